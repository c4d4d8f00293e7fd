"""The run in one folder, read by the layouts: which one it is, and what the whole of it tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts import LAYOUTS, TRAINERS, Layout, Run
from opd_diag.runs.notes import after_pointer, notes_of
from opd_diag.runs.refusals import ambiguous

_BY_NAME = {layout.name: layout for layout in LAYOUTS}


@dataclass(frozen=True)
class FoundRun:
    """The run in a folder."""

    folder: Path
    """Where it is: the folder that was given, or the one run below it."""
    layout: str
    """How it is laid out, as ``--layout`` names it."""
    checkpoints: list[Checkpoint]
    """Lowest step first; of unknown step where their names put them, else last."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the run as a whole, one sentence each."""


def by_name(run: Run, layout: str) -> FoundRun | None:
    """Read a folder by one layout; None where that finds nothing.

    Raises
    ------
    OSError
        The folder cannot be listed.
    """
    named = _BY_NAME[layout]
    checkpoints = named.find(run)
    return finished(run, named, checkpoints) if checkpoints else None


def by_trainer(run: Run) -> FoundRun | None:
    """Read a folder by the layouts of trainers; None where none finds anything.

    A run may mix the layouts of one family: of steps that the first lacks, those of the next are taken.

    Raises
    ------
    RunFolderError
        Two families find checkpoints there.
    OSError
        The folder cannot be listed.
    """
    matched = [(layout, found) for layout in TRAINERS if (found := layout.find(run))]
    if not matched:
        return None
    (first, checkpoints), *others = matched
    rivals = []
    for layout, found in others:
        if layout.family == first.family:
            checkpoints = _with_missing_steps(checkpoints, found)
        else:
            apart = [c for c in found if not any(related(c.path, mine.path) for mine in checkpoints)]
            if len(apart) >= min(2, len(checkpoints)):
                rivals.append((layout.name, len(apart)))
    if rivals:
        raise ambiguous(run.folder, [(first.name, len(checkpoints)), *rivals])
    return finished(run, first, checkpoints)


def finished(run: Run, layout: Layout, checkpoints: Iterable[Checkpoint]) -> FoundRun:
    """Give the run with what its pointer file and its names tell."""
    marked, of_pointer = after_pointer(run, layout, list(checkpoints))
    return FoundRun(run.folder, layout.name, marked, (*of_pointer, *notes_of(run, layout, marked)))


def related(one: Path, other: Path) -> bool:
    """Whether two paths are equal, or one lies in the other."""
    return one == other or one in other.parents or other in one.parents


def _with_missing_steps(checkpoints: list[Checkpoint], others: list[Checkpoint]) -> list[Checkpoint]:
    steps, paths = {c.step for c in checkpoints}, {c.path for c in checkpoints}
    missing = [c for c in others if c.path not in paths and (c.step is None or c.step not in steps)]
    if not missing:
        return checkpoints
    return sorted([*checkpoints, *missing], key=lambda c: (c.step is None, c.step or 0))
