"""Whether two workers take half the time of one: a bundled run replayed on Ray, each worker with one thread.

``python -m benchmarks.ray_workers [--run NAME] [--prompts N] [--rollouts N]`` replays a bundled run in one process, by
one worker and by two, all within one local cluster and each into a folder of its own, and fails where two workers are
less than 1.6 × as fast as one, or where any score differs. The clock of a replay runs from when its workers are there,
with nothing loaded: reading and checking models counts, starting Ray and importing torch does not, and is printed too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opd_diag.diagnosis import plan_report
from opd_diag.replay import ReplayPlan, open_store, replay
from opd_diag.replay.spread.cluster import joined

DATA = Path(__file__).parents[1] / "data"
WANTED = 1.6


@dataclass(frozen=True)
class Timed:
    """One replay."""

    seconds: float
    """From when its workers were there."""
    starting: float
    """Until they were."""
    scores: dict[str, str]
    """SHA-256 of each file of scores."""


def main() -> None:
    """Replay, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="new", choices=sorted(folder.name for folder in DATA.iterdir()))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rollouts", type=int, default=8, help="Of each prompt.")
    asked = parser.parse_args()
    options: dict[str, Any] = {
        "max_prompts": asked.prompts,
        "rollouts_per_prompt": asked.rollouts,
        "device": "cpu",
    }
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, data/{asked.run}")
    with joined():
        found = {
            "one process": timed(DATA / asked.run, **options),
            "one worker": timed(DATA / asked.run, engine="ray", workers=1, **options),
            "two workers": timed(DATA / asked.run, engine="ray", workers=2, **options),
        }
    for name, of in found.items():
        print(f"{name:12s}{of.seconds:8.1f} s, after {of.starting:.1f} s until it began")
    ratio = found["one worker"].seconds / found["two workers"].seconds
    print(f"two workers are {ratio:.2f} × as fast as one; load {os.getloadavg()[0]:.1f}")
    if any(of.scores != found["one process"].scores for of in found.values()):
        sys.exit("Scores differ.")
    if ratio < WANTED:
        sys.exit(f"Wanted: {WANTED} ×.")


def timed(run_dir: Path, **options: Any) -> Timed:
    """Replay a run into a folder that is new."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        plan: ReplayPlan = plan_report(run_dir, out=out, **options)
        begun = there = time.perf_counter()

        def progress(what: str, done: int, total: int) -> None:
            nonlocal there
            if what.startswith("ray: workers") and done == total:
                there = time.perf_counter()

        with open_store(out, plan.run_dir) as store:
            replayed = replay(plan, store, progress)
            ended = time.perf_counter()
            assert not replayed.broken
            scores = {name: part.sha256 for name, part in store.parts.items() if name.startswith("scores/")}
    return Timed(ended - there, there - begun, scores)


if __name__ == "__main__":
    main()
