"""Finding the checkpoints of a run, choosing among them, and the initial student that trainers do not save."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from opd_diag.errors import CheckpointError, InputError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.discovery import find_run
from opd_diag.runs.holdings import is_local
from opd_diag.runs.layouts.run import checkpoint_at
from opd_diag.runs.manifest import Manifest
from opd_diag.runs.weights import classify_weights


def find_checkpoints(
    run_dir: str | Path,
    *,
    base_model: str | None = None,
    student: str | None = None,
    layout: str | None = None,
    manifest: Manifest | None = None,
    steps: str | Sequence[str] | None = None,
    step_base: int | None = None,
) -> list[Checkpoint]:
    """Find the checkpoints of a run by names and small text files; no tensor is loaded.

    Parameters and errors as :func:`~opd_diag.runs.discovery.find_run`, which also tells where the run is, how it is
    laid out, and what must be known of it as a whole.

    Returns
    -------
    list of Checkpoint
        Lowest step first; of unknown step where their names put them, else last. One that cannot be loaded is in the
        list, with its blocker.
    """
    found = find_run(
        run_dir,
        base_model=base_model,
        student=student,
        layout=layout,
        manifest=manifest,
        steps=steps,
        step_base=step_base,
    )
    return found.checkpoints


def select_checkpoints(checkpoints: Sequence[Checkpoint], wanted: Sequence[str]) -> list[Checkpoint]:
    """Keep the checkpoints named in `wanted`, by step or label, in their own order; all when `wanted` is empty.

    Raises
    ------
    InputError
        A name that no checkpoint has; the message lists those there are.
    """
    if not wanted:
        return list(checkpoints)
    unknown = [name for name in wanted if not any(name in _names(c) for c in checkpoints)]
    if unknown:
        there = ", ".join(c.label if c.step is None else str(c.step) for c in checkpoints)
        raise InputError(
            f"--checkpoints names {', '.join(unknown)}, which the run does not have. Choose among: {there}."
        )
    return [c for c in checkpoints if any(name in _names(c) for name in wanted)]


def step_zero(student: str, checkpoints: Sequence[Checkpoint], *, base_model: str | None = None) -> Checkpoint:
    """Make the record of the initial student.

    Parameters
    ----------
    student
        A folder or a hub id, with a revision after ``@`` if any.
    checkpoints
        Those found in the run; one of them may be step 0 itself.
    base_model
        Model under it when it is an adapter; default: what the adapter names.

    Raises
    ------
    CheckpointError
        `student` can only be a path, and there is no folder; or the run has another checkpoint of step 0.
    """
    folder = Path(os.path.expanduser(student))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"The student must be a folder or a hub id; {student} is a file. Correct --student.")
    if not folder.exists() and is_local(student):
        raise CheckpointError(f"The student must be a folder or a hub id; {student} does not exist. Correct --student.")
    for checkpoint in checkpoints:
        if checkpoint.step == 0:
            if os.path.realpath(checkpoint.path) == os.path.realpath(folder):
                return checkpoint
            raise CheckpointError(
                f"Step 0 stands twice: the run has {checkpoint.path} and the student is {student}. Leave one out: "
                "the student with no --student (or no 'student' in the manifest), the other with --checkpoints."
            )
    if not folder.exists():
        return Checkpoint("step 0", 0, Path(student), "full", tokenizer=student)
    return checkpoint_at(folder, classify_weights(folder, base_model), "step 0", 0)


def _names(checkpoint: Checkpoint) -> tuple[str, ...]:
    return (checkpoint.label,) if checkpoint.step is None else (checkpoint.label, str(checkpoint.step))
