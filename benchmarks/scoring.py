"""Scoring two models: opd-diag against a straightforward script, a bare forward, and itself in 16 bits.

``python -m benchmarks.scoring [--small] [--shape deep|wide] [--rounds 2]``; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import copy
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import opd_diag
from benchmarks.checkpoints import report_checkpoints
from benchmarks.head import report_head
from benchmarks.memory import in_own_process
from benchmarks.models import PROMPTS, SHAPES, Shape, models, rollouts, states
from benchmarks.straightforward import score_straightforwardly
from opd_diag.inference import usable_dtype
from opd_diag.inference.packing import TOKENS_PER_PACK
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.replay.precision import measured_floors, rollouts_for_floor

TOLERANCE = 3e-4
"""Of a log-probability: thirty random layers in float32 turn another order of summation into 1e-4."""

COMPARED = ("reverse_kl", "forward_kl", "student_entropy", "teacher_entropy")


@torch.inference_mode()
def forward_bare(student: Any, teacher: Any, drawn: list[Rollout]) -> None:
    """Run both models on each sequence alone, unpadded, with logits at all positions, and look at nothing."""
    for rollout in drawn:
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
        for model in (student, teacher):
            model(input_ids=ids, use_cache=False)


def methods(student: Any, teacher: Any, drawn: list[Rollout]) -> dict[str, Callable[[], Any]]:
    """Give every method, ready to call."""
    named = {"student": student, "teacher": teacher}
    wrapped = [opd_diag.wrap_model(m, name=n, stop_ids=()) for n, m in named.items()]
    pairs = [(r.prompt_ids, r.response_ids) for r in drawn]
    found: dict[str, Callable[[], Any]] = {
        "straightforward": lambda: score_straightforwardly(student, teacher, pairs),
        "bare forward": lambda: forward_bare(student, teacher, drawn),
        "opd-diag": lambda: opd_diag.score(*wrapped, drawn),
    }
    dtype, note = usable_dtype("bfloat16", "cpu")
    if dtype == "bfloat16":
        half = [opd_diag.wrap_model(copy.deepcopy(m).bfloat16(), name=n, stop_ids=()) for n, m in named.items()]
        found["opd-diag, bfloat16"] = lambda: opd_diag.score(*half, drawn)
    else:
        print(note)
    return found


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


@dataclass
class Timing:
    """Seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure_times(shape: Shape, prompts: int, rounds: int) -> dict[str, Timing]:
    """Run all methods in turns in this process; print what their numbers differ by; give their times."""
    student, teacher = models(shape)
    drawn = rollouts(shape, prompts)
    runs = methods(student, teacher, drawn)
    for warm_up in methods(student, teacher, drawn[:2]).values():
        warm_up()
    gc.collect()
    timings = {name: Timing() for name in runs}
    results = {}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            timings[name].wall.append(time.perf_counter() - wall)
            timings[name].cpu.append(time.process_time() - cpu)
    ours = results["opd-diag"]
    print(f"largest difference from the straightforward script: {assert_equal(results['straightforward'], ours):.1e}")
    if "opd-diag, bfloat16" in results:
        report_half(student, drawn, ours, results["opd-diag, bfloat16"])
    return timings


def report_half(student: Any, drawn: list[Rollout], ours: Scores, half: Scores) -> None:
    """Print what 16-bit bodies change in each metric, beside the precision floor that a report would state."""
    model = opd_diag.wrap_model(copy.deepcopy(student).bfloat16(), name="student", stop_ids=())
    floor = measured_floors(model, rollouts_for_floor(drawn, as_teacher=False), temperature=1.0)[16]
    for name in COMPARED:
        change = float(np.mean(getattr(half, name)) - np.mean(getattr(ours, name)))
        limit = max(floor.precision[name], floor.batches[name])
        verdict = "within" if abs(change) <= limit else "ABOVE"
        print(f"bfloat16 bodies change {name} by {change:+.1e}, {verdict} the floor of {limit:.1e}")


def report(name: str, prompts: int, rounds: int) -> None:
    """Measure one shape and print its tables."""
    shape = SHAPES[name]
    n = states(rollouts(shape, prompts))
    print(f"\n## {shape.title}; {n} states, median of {rounds} rounds\n", flush=True)
    report_head(shape)
    timings = measure_times(shape, prompts, rounds)
    print(
        "\n| method | states/s, both models | seconds, each round | CPU seconds, each round | opd-diag is faster by |"
    )
    print("|---|---:|---:|---:|---:|")
    ours = timings["opd-diag"]
    for method, timing in timings.items():
        wall, cpu = (", ".join(f"{t:.1f}" for t in times) for times in (timing.wall, timing.cpu))
        ratio = np.median(timing.wall) / np.median(ours.wall)
        by_cpu = np.median(timing.cpu) / np.median(ours.cpu)
        print(f"| {method} | {n / np.median(timing.wall):.0f} | {wall} | {cpu} | {ratio:.2f} ({by_cpu:.2f} by CPU) |")
    print(flush=True)
    for method in ("straightforward", "opd-diag"):
        peak, counted = in_own_process(name, min(prompts, 6), method)
        print(f"memory above the models, {method}: {peak / 2**20:.0f} MiB at {counted} states", flush=True)


def report_flat() -> None:
    """Print that memory does not grow with the number of states."""
    for prompts in (2, 200):
        peak, n = in_own_process("flat", prompts, "opd-diag")
        print(f"memory above the models, 152k vocabulary: {peak / 2**20:.0f} MiB at {n} states", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a quarter of the prompts")
    parser.add_argument("--shape", choices=SHAPES, help="only this shape")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each method")
    arguments = parser.parse_args()
    prompts = PROMPTS // 4 if arguments.small else PROMPTS
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"packs of {TOKENS_PER_PACK['cpu']} tokens"
    )
    for name in SHAPES if arguments.shape is None else [arguments.shape]:
        report(name, prompts, arguments.rounds)
    if arguments.shape != "wide":
        print()
        report_checkpoints(SHAPES["deep"], PROMPTS // 4)
    if arguments.shape != "deep":
        report_flat()


if __name__ == "__main__":
    main()
