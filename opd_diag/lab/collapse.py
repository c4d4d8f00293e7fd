"""Grow tiny runs that work and tiny runs that collapse: ``python -m opd_diag.lab.collapse --data data --out DIR``.

All of them start from the bundled student and learn from the bundled teachers; a seed decides what a run is asked and
what it samples. The collapsing recipe differs from one that gets across (*rough*) in the learning rate, which is more
than fifty times too high: the student forgets how to answer within ten steps, and what it writes from then on are a few
words over and over, where agreeing with the teacher is easy. On its own states that looks like learning.
"""

import argparse
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from opd_diag.errors import InputError
from opd_diag.lab.distillation import Distillation, distil, write_manifest
from opd_diag.lab.prompts import draw_held_out, draw_training_questions, write_prompts
from opd_diag.lab.terminal import Say, run


@dataclass(frozen=True)
class Kind:
    """One way a run can go.

    Attributes
    ----------
    teacher : str
        Name of the bundled teacher.
    distillation : Distillation
        How long and how fast; the seed is set run by run.
    """

    teacher: str
    distillation: Distillation


STEPS = (10, 20, 40, 80)
#: *healthy*: the student gains a skill. *collapsing*: it ends in rubbish. *idle*: its teacher knows nothing more.
#: *rough*: the teacher of the collapsing runs at the learning rate of the bundled ones; it forgets first and recovers.
KINDS = {
    "healthy": Kind("new", Distillation(STEPS, learning_rate=3e-4)),
    "collapsing": Kind("other", Distillation(STEPS, learning_rate=2e-2)),
    "idle": Kind("same", Distillation(STEPS, learning_rate=3e-4)),
    "rough": Kind("other", Distillation((20, 40, 80, 160), learning_rate=3e-4)),
}
DEFAULT_KINDS = ("healthy", "collapsing")
HELD_OUT_PER_OPERATION = 32


def grow_runs(
    data: Path,
    out: Path,
    seeds: list[int],
    say: Say,
    *,
    kinds: dict[str, Kind],
    held_out_per_operation: int = HELD_OUT_PER_OPERATION,
) -> list[Path]:
    """Grow one run of every kind for every seed, with models and prompts beside them so that `out` can be moved.

    Parameters
    ----------
    data : Path
        Folder of the bundled models, ``student`` and ``teachers``.
    out : Path
        Gets a folder ``KIND-SEED`` for each run, the models, and ``prompts-SEED.jsonl``.
    seeds : list of int
        Of the prompts held out, the questions trained on, their order and the sampling.
    say : callable
        Receives one line of progress at a time.
    kinds : dict of str to Kind
        The kinds by name.
    held_out_per_operation : int
        How many held-out prompts of each operation.

    Returns
    -------
    list of Path
        The folders of the runs.

    Raises
    ------
    InputError
        If `data` lacks one of the models.
    """
    copy_models(data, out, {kind.teacher for kind in kinds.values()})
    runs = []
    for seed in seeds:
        problems = draw_held_out(held_out_per_operation, seed)
        write_prompts(problems, out / f"prompts-{seed}.jsonl")
        held_out = frozenset(problem.question for problem in problems)
        for name, kind in kinds.items():
            say(f"{name}-{seed}: {kind.distillation.save_at[-1]} steps")
            runs.append(grow_run(f"{name}-{seed}", kind, seed, held_out, out))
    return runs


def grow_run(name: str, kind: Kind, seed: int, held_out: frozenset[str], out: Path) -> Path:
    """Distil the student in `out` from a teacher in `out`; write checkpoints and manifest into the folder `name`."""
    folder = out / name
    n_questions = kind.distillation.batch_size * kind.distillation.save_at[-1]
    questions = draw_training_questions(n_questions, seed, held_out)
    distil(out / "student", out / "teachers" / kind.teacher, questions, replace(kind.distillation, seed=seed), folder)
    teacher = f"../teachers/{kind.teacher}"
    write_manifest(folder, student="../student", teacher=teacher, prompts=f"../prompts-{seed}.jsonl")
    return folder


def copy_models(data: Path, out: Path, teachers: set[str]) -> None:
    """Copy the student and the named teachers from `data` to the same places in `out`."""
    folders = ["student", *(f"teachers/{teacher}" for teacher in sorted(teachers))]
    missing = [folder for folder in folders if not (data / folder / "config.json").is_file()]
    if missing:
        raise InputError(
            f"Expected models in {data}, found none in {', '.join(missing)}. "
            "Pass the folder that opd_diag.lab.grow made as --data."
        )
    for folder in folders:
        shutil.copytree(data / folder, out / folder, dirs_exist_ok=True)


def main() -> None:
    """Read the command line and grow."""
    parser = argparse.ArgumentParser(prog="python -m opd_diag.lab.collapse", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the bundled models (default data)")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="one run of each kind a seed")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=DEFAULT_KINDS, help="which kinds of run")
    run(
        parser,
        lambda options, say: grow_runs(
            options.data, options.out, options.seeds, say, kinds={kind: KINDS[kind] for kind in options.kinds}
        ),
    )


if __name__ == "__main__":
    main()
