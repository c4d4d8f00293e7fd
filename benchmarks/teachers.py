"""What the study of teachers says of models whose truth is known: ``python -m benchmarks.teachers``.

Over sampling seeds, with the bundled student: teachers that fit and lead (`new`), fit and bring nothing (`same`), lead
and think in another pattern (`other`); a copy of `new`, copies with noise in their weights, and a model that was never
trained. Then the student after its run as one to be pulled back. Then three prompts, with which nothing can be told.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from opd_diag.lab.models import TEACHER_SHAPE, build_model, load_model, save_model
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.studies import Study, teachers

NOISES = (0.01, 0.1, 0.2, 0.4)
"""Standard deviation of noise added to each weight, as a share of the deviation of its tensor."""

OPTIONS = {"rollouts_per_prompt": 2, "max_new_tokens": 48}


def main() -> None:
    """Print one table a question: what is true, what was said, how often."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.teachers", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    said: dict[str, Counter[str]] = defaultdict(Counter)
    ratios: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "models"
        made = [*_variants(options.data / "teachers" / "new", models)]
        for seed in range(1, options.seeds + 1):
            for study in _studies(options.data, made, Path(scratch) / f"seed-{seed}", seed):
                for verdict in study.verdicts:
                    said[f"{study.subject}: {verdict.name}"][verdict.status] += 1
                for _, row in study.tables["distances"].dropna(subset=["relative"]).iterrows():
                    ratios[f"{study.subject}: {row['first']}, {row['second']}"].append(float(row["relative"]))
    for name, counts in ((n, c) for n, c in said.items() if "alike" not in n or "[new, " in n or "before" in n):
        print(f"{name:<60} {', '.join(f'{status} {n}' for status, n in counts.items())}")
    print()
    for name, values in ((n, v) for n, v in ratios.items() if ": new, " in n or "before" in n):
        print(f"relative KL {name:<50} {min(values):.4f} to {max(values):.4f}")


def _studies(data: Path, made: list[Path], out: Path, seed: int) -> Iterator[Study]:
    options = OPTIONS | {"prompts": str(data / "prompts.jsonl"), "seed": seed}
    trained = [data / "teachers" / name for name in ("new", "same", "other")]
    yield teachers(data / "student", [*trained, *made], out=out / "all", **options)
    yield teachers(
        data / "new" / "checkpoint-160", trained[:2], before=data / "student", out=out / "reverse", **options
    )
    few = teachers(data / "student", [trained[0], made[0]], out=out / "few", **options | {"max_prompts": 3})
    yield Study(**{**vars(few), "subject": "three prompts"})


def _variants(teacher: Path, folder: Path) -> Iterator[Path]:
    """Copy a teacher, as it is and with noise; and make one that was never trained."""
    copy = folder / "copy"
    shutil.copytree(teacher, copy)
    yield copy
    tokenizer = load_tokenizer(teacher)
    for noise in NOISES:
        model = load_model(teacher)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
        save_model(model, tokenizer, folder / f"noise-{noise}")
        yield folder / f"noise-{noise}"
    save_model(build_model(TEACHER_SHAPE, tokenizer, seed=7), tokenizer, folder / "untrained")
    yield folder / "untrained"


if __name__ == "__main__":
    main()
