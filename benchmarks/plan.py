"""Whether what ``--plan`` says beforehand is right: predicted and actual cost of three reports, side by side.

``python -m benchmarks.plan [--only NAME]`` runs the terminal program on two bundled runs with different settings and on
one of random models that never stop, and fails where anything is off by more than a factor of two.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FACTOR = 2.0
FIELDS = ("sampled", "tokens", "gflop", "minutes", "bytes")
VOCABULARY = 49_152
DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Configuration:
    """A run and how it is reported."""

    name: str
    about: str
    run_dir: Callable[[Path], Path]
    """Gives the run folder, made below the given one if need be."""
    options: tuple[str, ...] = ()


def main() -> None:
    """Predict, replay, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[c.name for c in CONFIGURATIONS], help="One of the three.")
    only = parser.parse_args().only
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    off = []
    for configuration in CONFIGURATIONS:
        if only in (None, configuration.name):
            off += compared(configuration)
    if off:
        sys.exit(f"Off by more than a factor of {FACTOR:g}: {'; '.join(off)}")
    print(f"All within a factor of {FACTOR:g}.")


def compared(configuration: Configuration) -> list[str]:
    """Make one report and print its costs; give what is off."""
    scratch = Path(tempfile.mkdtemp())
    try:
        cost = reported(configuration.run_dir(scratch), scratch / "out", configuration.options)
    finally:
        shutil.rmtree(scratch)
    print(f"\n{configuration.name}: {configuration.about}")
    print(f"{'':10s}{'predicted':>14s}{'actual':>14s}{'ratio':>8s}{'at most':>14s}")
    off = []
    for field in FIELDS:
        predicted, actual, most = (cost[kind][field] for kind in ("predicted", "actual", "predicted_at_most"))
        ratio = predicted / actual
        print(f"{field:10s}{predicted:14,.4g}{actual:14,.4g}{ratio:8.2f}{most:14,.4g}")
        if not 1 / FACTOR <= ratio <= FACTOR:
            off.append(f"{configuration.name}: {field} by {ratio:.2f}")
    return off


def reported(run_dir: Path, out: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """Run the terminal program; give what its ``report.json`` says of the cost."""
    script = "from opd_diag.cli import main; main()"
    command = [sys.executable, "-c", script, "report", str(run_dir), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    cost: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))["provenance"]["cost"]
    return cost


def random_run(root: Path) -> Path:
    """Write a run of random models: a step 0, one checkpoint, and a teacher of another shape."""
    words = {f"w{i}": i for i in range(VOCABULARY - 2)} | {"<end>": VOCABULARY - 2, "<unknown>": VOCABULARY - 1}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", unk_token="<unknown>")
    transformers.utils.logging.disable_progress_bar()
    shapes = {"student": (320, 8, 0), "run/checkpoint-10": (320, 8, 1), "teacher": (448, 6, 2)}
    for name, (width, layers, seed) in shapes.items():
        torch.manual_seed(seed)
        config = LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=3 * width,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            vocab_size=VOCABULARY,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            eos_token_id=words["<end>"],
        )
        model = LlamaForCausalLM(config)
        model.generation_config = GenerationConfig(eos_token_id=words["<end>"])
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    (root / "run/checkpoint-10/trainer_state.json").write_text("{}")
    prompts = [" ".join(f"w{(31 * i + j) % 40_000}" for j in range(40 + 4 * i)) for i in range(12)]
    (root / "prompts.txt").write_text("\n".join(prompts) + "\n")
    named = {"student": "../student", "teacher": "../teacher", "prompts": "../prompts.txt"}
    (root / "run/opd-diag.toml").write_text("".join(f'{name} = "{path}"\n' for name, path in named.items()))
    return root / "run"


CONFIGURATIONS = (
    Configuration("new", "the bundled run data/new as it is", lambda root: DATA / "new"),
    Configuration(
        "few",
        "the bundled run data/other, two checkpoints, few prompts, many responses",
        lambda root: DATA / "other",
        ("--checkpoints=20,160", "--max-prompts=12", "--rollouts-per-prompt=8", "--max-new-tokens=40"),
    ),
    Configuration(
        "random",
        "random models 320 and 448 wide, vocabulary 49k, whose responses fill their room",
        random_run,
        ("--max-new-tokens=64",),
    ),
)


if __name__ == "__main__":
    main()
