"""How fast opd-diag scores two models and how much memory it takes, against a straightforward script.

``python -m benchmarks.scoring [--small] [--shape deep|wide] [--rounds 2]``; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import opd_diag
from benchmarks.straightforward import score_straightforwardly
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.scores import Scores

TOLERANCE = 1e-4
PROMPTS, ROLLOUTS_PER_PROMPT, PROMPT_TOKENS = 24, 4, 100
MEDIAN_RESPONSE, LOG_SD, LONGEST_RESPONSE = 100, 0.7, 600


@dataclass(frozen=True)
class Shape:
    """A Llama-like model."""

    title: str
    width: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    ffn: int


SHAPES = {
    "deep": Shape("576 wide × 30 layers × 49k vocabulary", 576, 30, 49_152, 9, 3, 1536),
    "wide": Shape("1024 wide × 6 layers × 152k vocabulary", 1024, 6, 151_936, 16, 8, 3072),
}


def models(shape: Shape, seed: int = 0) -> tuple[Any, Any]:
    """Build student and teacher from seeds; the teacher is half the student, so that their top tokens overlap."""
    config = LlamaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocabulary,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=2048,
        initializer_range=0.06,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    student = LlamaForCausalLM(config).eval()
    torch.manual_seed(seed + 1)
    teacher = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(other, 0.5)
    return student, teacher


def rollouts(shape: Shape, small: bool, seed: int = 0) -> list[Rollout]:
    """Draw random rollouts, in order of arrival: prompt by prompt."""
    rng = np.random.default_rng(seed)
    source = Provenance("sampled", "student", "", 0, 1.0, 1.0, seed)
    drawn = []
    for prompt in range(PROMPTS):
        prompt_ids = tuple(rng.integers(0, shape.vocabulary, PROMPT_TOKENS).tolist())
        for index in range(1 if small else ROLLOUTS_PER_PROMPT):
            length = int(np.clip(rng.lognormal(np.log(MEDIAN_RESPONSE), LOG_SD), 1, LONGEST_RESPONSE))
            response = tuple(rng.integers(0, shape.vocabulary, length).tolist())
            drawn.append(Rollout(prompt, index, str(prompt), None, prompt_ids, prompt_ids, response, "stop", source))
    return drawn


def methods(student: Any, teacher: Any, drawn: list[Rollout]) -> dict[str, Callable[[], Any]]:
    """Give both methods, ready to call."""
    wrapped = [opd_diag.wrap_model(m, name=n, stop_ids=()) for m, n in ((student, "student"), (teacher, "teacher"))]
    pairs = [(r.prompt_ids, r.response_ids) for r in drawn]
    return {
        "straightforward": lambda: score_straightforwardly(student, teacher, pairs),
        "opd-diag": lambda: opd_diag.score(*wrapped, drawn),
    }


def assert_equal(theirs: dict[str, np.ndarray], ours: Scores) -> float:
    """Hold every number of the straightforward script against ours; give the largest difference.

    Where two tokens are as good as tied, the scripts may rank them differently; numbers that hang on ids are compared
    where the ids are the same, and the ids must be so almost everywhere.
    """
    worst = 0.0
    same_ids = {}
    for model in ("student", "teacher"):
        kept = ours.k_kept
        same_ids[model] = theirs[f"{model}_topk_ids"][:, :kept] == getattr(ours, f"{model}_topk_ids")
        if same_ids[model].mean() < 0.999:
            raise AssertionError(f"Only {same_ids[model].mean():.2%} of the {model}'s top ids agree.")
    for name, expected in theirs.items():
        found = np.asarray(getattr(ours, name), dtype=np.float64)
        if name.endswith("topk_ids"):
            continue
        if found.ndim == 2 and name.endswith("logprobs"):
            expected = expected[:, : found.shape[1]]
        difference = np.abs(found - expected)
        if name.endswith("at_student_topk_logprobs") or name.endswith("at_teacher_topk_logprobs"):
            difference = difference[same_ids["student" if "at_student" in name else "teacher"]]
        if name == "curve_shared":
            if (difference > 0).mean() > 1e-3:
                raise AssertionError(f"{(difference > 0).mean():.2%} of the shared counts differ.")
            continue
        if not difference.max() <= TOLERANCE:
            raise AssertionError(f"{name} differs by {difference.max():.2e}.")
        worst = max(worst, float(difference.max()))
    return worst


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class PeakMemory:
    """Samples anonymous resident memory every 5 ms while a block runs."""

    def __enter__(self) -> PeakMemory:
        self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def measure_memory(shape: Shape, small: bool, method: str) -> int:
    """Give the peak while one method scores, above what is resident after one warm-up forward of both models."""
    student, teacher = models(shape)
    drawn = rollouts(shape, small)
    run = methods(student, teacher, drawn)[method]
    with torch.inference_mode():
        for model in (student, teacher):
            model(torch.arange(8)[None])
    before = anonymous_bytes()
    with PeakMemory() as memory:
        run()
    return memory.peak - before


def memory_in_own_process(name: str, small: bool, method: str) -> int:
    """Do :func:`measure_memory` in a fresh process, so that no method finds what another left."""
    command = [sys.executable, "-m", "benchmarks.scoring", "--shape", name, "--memory-of", method]
    output = subprocess.run([*command, "--small"] if small else command, check=True, capture_output=True, text=True)
    return int(json.loads(output.stdout)["bytes"])


@dataclass
class Timing:
    """Seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure_times(shape: Shape, small: bool, rounds: int) -> tuple[dict[str, Timing], int, float]:
    """Run both methods in turns in this process; give their times, the states, and the largest difference."""
    student, teacher = models(shape)
    drawn = rollouts(shape, small)
    runs = methods(student, teacher, drawn)
    for warm_up in methods(student, teacher, drawn[:2]).values():
        warm_up()
    timings = {name: Timing() for name in runs}
    results = {}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            timings[name].wall.append(time.perf_counter() - wall)
            timings[name].cpu.append(time.process_time() - cpu)
    worst = assert_equal(results["straightforward"], results["opd-diag"])
    return timings, len(results["opd-diag"]), worst


def report(name: str, small: bool, rounds: int) -> None:
    """Measure one shape and print a table."""
    shape = SHAPES[name]
    timings, states, worst = measure_times(shape, small, rounds)
    print(f"\n{shape.title}; {states} states, median of {rounds} rounds; largest difference {worst:.1e}\n")
    print("| method | states/s, both models | seconds, each round | CPU seconds, each round | peak above the models |")
    print("|---|---:|---:|---:|---:|")
    memory = {method: memory_in_own_process(name, small, method) for method in timings}
    for method, timing in timings.items():
        rate = states / float(np.median(timing.wall))
        wall, cpu = (", ".join(f"{t:.1f}" for t in times) for times in (timing.wall, timing.cpu))
        print(f"| {method} | {rate:.0f} | {wall} | {cpu} | {memory[method] / 2**20:.0f} MiB |")
    baseline, ours = timings["straightforward"], timings["opd-diag"]
    print(
        f"\nopd-diag: {np.median(baseline.wall) / np.median(ours.wall):.2f} × the speed "
        f"({np.median(baseline.cpu) / np.median(ours.cpu):.2f} × by CPU seconds), "
        f"{memory['straightforward'] / memory['opd-diag']:.1f} × less memory",
        flush=True,
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a quarter of the rollouts")
    parser.add_argument("--shape", choices=SHAPES, help="only this shape")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each method")
    parser.add_argument("--memory-of", choices=["straightforward", "opd-diag"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        peak = measure_memory(SHAPES[arguments.shape], arguments.small, arguments.memory_of)
        print(json.dumps({"bytes": peak}))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for name in SHAPES if arguments.shape is None else [arguments.shape]:
        report(name, arguments.small, arguments.rounds)


if __name__ == "__main__":
    main()
