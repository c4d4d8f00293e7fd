"""Whether the study of depth finds breaks that were planted, and none where there is none.

``python -m benchmarks.horizon coverage``: synthetic states with a break at a known position.
``python -m benchmarks.horizon planted``: copies of the bundled run ``new`` whose students' responses are noise from a
token on.
``python -m benchmarks.horizon moving``: the same, the noise earlier at every later checkpoint.
``python -m benchmarks.horizon taught``: the same run, its checkpoints taught to write random words from a token on.
``python -m benchmarks.horizon healthy``: the bundled runs as they are.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from opd_diag.diagnosis import plan_report
from opd_diag.lab.faults import sampled, trained
from opd_diag.lab.faults.case import Case, copied_case, record_rollouts
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts
from opd_diag.replay import measured, open_store
from opd_diag.studies import Study, horizon
from opd_diag.tables.excess import excess_of

DATA = Path(__file__).parents[1] / "data"
TEMPERATURE = 3.0
LENGTH = 16


def synthetic(rng: np.random.Generator, prompts: int, place: int | None, jump: float) -> pd.DataFrame:
    """Make states of one checkpoint and of the teacher's: prompts differ, tokens differ by depth, own ones break."""
    by_depth = rng.exponential(0.3, LENGTH)
    rows = []
    for prompt in range(prompts):
        level = rng.exponential(1.0)
        for states in ("on-policy", "teacher"):
            for rollout in range(2):
                values = by_depth * level * rng.exponential(1.0, LENGTH)
                if place is not None and states == "on-policy":
                    values[place:] += jump * rng.exponential(1.0) * rng.exponential(1.0, LENGTH - place)
                about = {"step": 0, "label": "step 0", "states": states, "prompt_index": prompt}
                rows += [
                    about | {"rollout_index": rollout, "position": i, "reverse_kl": v} for i, v in enumerate(values)
                ]
    return pd.DataFrame(rows)


def coverage(draws: int) -> Iterator[str]:
    """Say how often the interval holds the planted position, and how often a break is seen where there is none."""
    yield (
        f"{'prompts':>7} {'jump':>5} {'place':>5} {'found':>9} {'interval holds it':>18} {'exactly there':>13} width"
    )
    for prompts in (16, 64):
        for jump, place in ((0.0, None), (0.5, 4), (0.5, 8), (0.5, 13), (2.0, 4), (2.0, 8), (2.0, 13)):
            found = []
            for draw in range(draws):
                rng = np.random.default_rng([prompts, int(10 * jump), place or 0, draw])
                excess = excess_of(
                    synthetic(rng, prompts, place, jump), "reverse_kl", "step 0", LENGTH, than=("step 0", "teacher")
                )
                assert excess is not None
                found.append(excess.breaks(0.1))
            seen = [of for of in found if of is not None]
            held = sum(place is not None and of.low <= place <= of.high for of in seen)
            exact = sum(of.position == place for of in seen)
            width = np.mean([of.high - of.low + 1 for of in seen]) if seen else float("nan")
            yield (
                f"{prompts:>7} {jump:>5} {place if place is not None else '–':>5} {len(seen):>4}/{draws:<4} "
                f"{held:>13}/{len(seen):<4} {exact:>8}/{len(seen):<4} {width:>5.1f}"
            )


def planted(root: Path, seed: int, depths: Sequence[int] | None, place: int) -> Study:
    """Study a copy of ``new`` whose students' recorded responses are noise, so that states from `place` on follow it.

    With `depths`, one a checkpoint in their order, the noise begins before those instead.
    """
    case = copied_case(DATA / "new", root)
    chosen = None if depths else "160"
    plan = plan_report(case.run_dir, out=root / "clean", states=("on-policy",), checkpoints=chosen, seed=seed)
    with open_store(root / "clean", plan.run_dir) as store:
        measured(plan, store)
    record_rollouts(case, root / "clean" / "rollouts")
    if depths is None:
        sampled.sample_noise_after(case, seed, depth=place - 1, temperature=TEMPERATURE)
    else:
        for path, depth in zip(sorted(case.rollouts.glob("*.jsonl")), depths, strict=True):
            _noise_in(case, path, seed, depth)
    return horizon(case.run_dir, out=root / "out", checkpoints=chosen, seed=seed, continuations=0)


def _noise_in(case: Case, path: Path, seed: int, place: int) -> None:
    """Plant noise in the responses of one checkpoint."""
    alone = replace(case, root=case.root / f"alone-{path.stem}")
    alone.root.mkdir()
    for name in ("student", "teacher", "run"):
        (alone.root / name).symlink_to(case.root / name)
    alone.rollouts.mkdir()
    save_rollouts(alone.rollouts / path.name, load_rollouts(path))
    sampled.sample_noise_after(alone, seed, depth=place - 1, temperature=TEMPERATURE)
    noisy: list[Rollout] = load_rollouts(alone.rollouts / path.name)
    save_rollouts(path, noisy)


def of_planted(seeds: int, places: Sequence[int]) -> Iterator[str]:
    """Say where each planted break was found."""
    yield f"{'noise':>5} {'seed':>4} {'break':>5} {'interval':>10} {'holds it':>8}  headline"
    for place in places:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as root:
                study = planted(Path(root) / "case", seed, None, place)
            found = study.verdicts[0]
            holds = found.ci_low <= place <= found.ci_high
            span = f"[{found.ci_low:g}, {found.ci_high:g}]"
            yield f"{place:>5} {seed:>4} {found.value:>5g} {span:>10} {'yes' if holds else 'no':>8}  {study.headline}"


def of_taught(seeds: int, place: int) -> Iterator[str]:
    """Say what is found of weights that break: on the teacher's responses too, so that the start is the control."""
    yield f"seed {'break':>5} {'interval':>10} {'holds it':>8}  depth_signal"
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as root:
            case = copied_case(DATA / "new", Path(root) / "case")
            trained.teach_noise_after(case, seed, depth=place)
            found = horizon(
                case.run_dir, out=Path(root) / "out", checkpoints="160", seed=seed, continuations=0
            ).verdicts[0]
        holds, span = found.ci_low <= place <= found.ci_high, f"[{found.ci_low:g}, {found.ci_high:g}]"
        yield f"{seed:>4} {found.value:>5g} {span:>10} {'yes' if holds else 'no':>8}  {found.evidence}"


def of_moving(seeds: int) -> Iterator[str]:
    """Say what is seen of noise that begins before token 16, 14, 12, 10, 8 of the checkpoints in their order."""
    yield "seed status  instability"
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as root:
            study = planted(Path(root) / "case", seed, (16, 14, 12, 10, 8), 0)
        yield f"{seed:>4} {study.verdicts[1].status:<7} {study.verdicts[1].evidence}"


def of_healthy(seeds: int) -> Iterator[str]:
    """Say what each study says of the bundled runs."""
    yield f"{'run':<6} {'seed':>4} {'signal':<8} {'instability':<12} {'continuing':<11} headline; lost advantage"
    for seed in range(1, seeds + 1):
        for run in ("new", "same", "other"):
            with tempfile.TemporaryDirectory() as root:
                study = horizon(DATA / run, out=Path(root) / "out", seed=seed)
            one, two, three = study.verdicts
            yield (
                f"{run:<6} {seed:>4} {one.status:<8} {two.status:<12} {three.status:<11} {study.headline}; "
                f"{three.value:+.2f} [{three.ci_low:+.2f}, {three.ci_high:+.2f}]"
            )


def main() -> None:
    """Print one table, line by line as it is made."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "planted", "moving", "taught", "healthy"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=200, help="Of coverage.")
    given = parser.parse_args()
    tables: dict[str, Callable[[], Iterator[str]]] = {
        "coverage": functools.partial(coverage, given.draws),
        "planted": functools.partial(of_planted, given.seeds, (8, 12)),
        "moving": functools.partial(of_moving, given.seeds),
        "taught": functools.partial(of_taught, given.seeds, 8),
        "healthy": functools.partial(of_healthy, given.seeds),
    }
    for line in tables[given.what]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
