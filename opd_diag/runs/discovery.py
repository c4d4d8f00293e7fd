"""From a folder to the run in it: what was listed, what it is itself, what lies in it, what lies below."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opd_diag.errors import RunFolderError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.found import FoundRun, by_name, by_trainer
from opd_diag.runs.layouts import LAYOUT_NAMES, Run
from opd_diag.runs.manifest import Manifest, read_manifest
from opd_diag.runs.nesting import DEEPEST, one_of_a_run, runs_below
from opd_diag.runs.refusals import existing_folder, nothing_found, refuse_repeated_steps, several_runs

_STEP_IS = re.compile(r"\s*(\d{1,15})\s*=\s*(.*\S)\s*", re.ASCII | re.DOTALL)


def find_run(
    run_dir: str | Path,
    *,
    base_model: str | None = None,
    student: str | None = None,
    layout: str | None = None,
    manifest: Manifest | None = None,
    steps: str | Sequence[str] | None = None,
    step_base: int | None = None,
) -> FoundRun:
    """Find the run in a folder by names and small text files; no tensor is loaded, nothing is unpickled.

    Parameters
    ----------
    run_dir
        Folder of the run, as the trainer wrote it; a folder around it; or one checkpoint.
    base_model
        Model under the adapters; default: the manifest's, else what each adapter names.
    student
        The initial student, whose config serves weights that come without one; default: the manifest's.
    layout
        How the run is laid out; default: the manifest's, else as names of folders tell.
    manifest
        What ``opd-diag.toml`` of the run says; read from `run_dir` by default.
    steps
        ``STEP=FOLDER`` of each checkpoint, in place of looking for them; default: the manifest's.
    step_base
        What the trainer numbers the first update, 0 or 1; default: the manifest's, else as the layout has it.

    Raises
    ------
    RunFolderError
        There is no run, or there are several, or two readings of it, or two checkpoints of one step; the message says
        what was looked for, what was seen and what to do.
    """
    folder = existing_folder(run_dir)
    manifest = read_manifest(folder) if manifest is None else manifest
    said = manifest.settings
    layout = layout or said.get("layout")
    if layout not in (None, *LAYOUT_NAMES):
        raise RunFolderError(f"Expected --layout as one of {', '.join(LAYOUT_NAMES)}, found '{layout}'.")
    step_base = said.get("step_base") if step_base is None else step_base
    if step_base not in (None, 0, 1):
        raise RunFolderError(f"Expected --step-base 0 or 1, found {step_base}.")
    listed = listed_steps(said.get("steps", ()) if steps is None else steps)
    if listed and layout not in (None, "manifest"):
        raise RunFolderError("Expected --steps, which lists checkpoints, or --layout, which finds them; found both.")
    student = student or said.get("student")
    run = Run(
        folder,
        base_model=base_model or said.get("base_model"),
        student=None if student is None else os.path.expanduser(student),
        listed=listed or manifest.checkpoints,
        step_base=step_base,
    )
    try:
        found = _found(run, layout)
    except OSError as error:
        where = error.filename or folder
        text = f"{where} cannot be read: {error.strerror}. Check its permissions."
        raise RunFolderError(text, code="UNREADABLE") from error
    found = replace(found, checkpoints=_without_copies(found.checkpoints))
    refuse_repeated_steps(found.checkpoints)
    return found


def listed_steps(entries: str | Sequence[str]) -> tuple[tuple[int, Path], ...]:
    """Read ``STEP=FOLDER`` of each entry, or of a text with commas.

    Raises
    ------
    RunFolderError
        An entry is none.
    """
    found = []
    for entry in entries.split(",") if isinstance(entries, str) else entries:
        match = _STEP_IS.fullmatch(entry)
        if match is None:
            raise RunFolderError(
                f"Expected --steps as STEP=FOLDER, separated by commas, found '{entry}'. Write --steps "
                "'20=run/a,40=run/b'; folders with a comma in their names can stand in opd-diag.toml, as "
                "[[checkpoints]]."
            )
        found.append((int(match[1]), Path(os.path.expanduser(match[2]))))
    return tuple(found)


def _found(run: Run, layout: str | None) -> FoundRun:
    if layout is None and run.listed:
        layout = "manifest"
    if layout is not None:
        named = by_name(run, layout) or _the_one_below(run, DEEPEST, layout)
        if named is None:
            raise nothing_found(run, layout)
        return replace(named, checkpoints=_completed(run, named.checkpoints)) if layout == "manifest" else named
    found = one_of_a_run(run) or by_trainer(run)
    single = None if found else by_name(run, "single")
    if found is None and single is None:
        found = _the_one_below(run, deepest=1)
    found = found or by_name(run, "generic_hf") or single or _the_one_below(run, DEEPEST)
    if found is None:
        raise nothing_found(run)
    return found


def _completed(run: Run, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Look for the weights of listed folders that are step folders of a trainer."""
    found = []
    for checkpoint in checkpoints:
        hit = None if checkpoint.loadable else one_of_a_run(run.at(checkpoint.path))
        if hit is not None and hit.checkpoints[0].loadable:
            checkpoint = replace(hit.checkpoints[0], label=checkpoint.label, step=checkpoint.step, note=None)
        found.append(checkpoint)
    return found


def _the_one_below(run: Run, deepest: int, layout: str | None = None) -> FoundRun | None:
    """Give the one run below a folder, with a note; None where there is none.

    Raises
    ------
    RunFolderError
        There are several, or the one has a manifest, which says more than that it is there, or two readings.
    """
    below = runs_below(run, deepest, layout)
    if len(below) > 1:
        raise several_runs(run, below)
    if not below:
        return None
    ((folder, found),) = below.items()
    if found is None:
        text = f"{run.folder} is no run, but a folder in it is one: pass {folder}."
        raise RunFolderError(text, code="NO_CHECKPOINTS")
    return replace(found, notes=(f"The run is in {folder}.", *found.notes))


def _without_copies(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Leave out a link to a folder that stands at the same step."""
    counts = Counter(c.step for c in checkpoints)
    there: dict[tuple[int | None, str], Checkpoint] = {}
    for checkpoint in sorted(checkpoints, key=lambda c: counts[c.step] > 1 and os.path.islink(c.path)):
        where = os.path.realpath(checkpoint.path) if counts[checkpoint.step] > 1 else str(checkpoint.path)
        there.setdefault((checkpoint.step, where), checkpoint)
    kept = {id(checkpoint) for checkpoint in there.values()}
    return [c for c in checkpoints if id(c) in kept]
