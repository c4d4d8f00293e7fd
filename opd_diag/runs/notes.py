"""What the whole of a run tells, beyond its checkpoints: pointer files, empty folders, caveats, changed tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts import Layout, Run
from opd_diag.runs.layouts.run import skipped

_MOST = 10


def after_pointer(run: Run, layout: Layout, checkpoints: list[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Mark what the pointer file says of each checkpoint: up to its step they are finished, later ones may not be.

    Returns
    -------
    list, list
        The checkpoints, and a note where the one that it points to is not there.
    """
    number = None if layout.pointer is None else run.disk.number(run.folder / layout.pointer)
    if number is None or layout.pointer is None:
        return checkpoints, []
    pointed = run.updates(number, layout.base)
    marked = []
    for checkpoint in checkpoints:
        if checkpoint.step is not None and checkpoint.step > pointed:
            newer = f"It is newer than {layout.pointer} says (step {pointed}): its save may not have finished."
            note = " ".join(part for part in (checkpoint.note, newer) if part)
            checkpoint = replace(checkpoint, complete=checkpoint.complete and None, note=note)
        elif checkpoint.step is not None and checkpoint.complete is None and checkpoint.loadable:
            checkpoint = replace(checkpoint, complete=True)
        marked.append(checkpoint)
    if pointed in {c.step for c in checkpoints}:
        return marked, []
    return marked, [f"{layout.pointer} says that step {pointed} was saved last; it is not here."]


def notes_of(run: Run, layout: Layout, checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Give the notes on a run, one sentence each."""
    notes = [layout.caveat] if layout.caveat and (layout.base == 1 or run.step_base != 1) else []
    if layout.base == 0 and run.step_base is None and layout.caveat is None:
        notes.append("Its folders count from 0: a step here is the number of finished updates, one more.")
    empty = skipped(run, layout.steps, checkpoints) if layout.steps else []
    if empty:
        more = f" and {len(empty) - _MOST} more" if len(empty) > _MOST else ""
        notes.append(f"Nothing to load in: {', '.join(empty[:_MOST])}{more}.")
    unknown = [c for c in checkpoints if c.step is None and c.label != "final"]
    if len(unknown) > 1 and layout.name != "kdflow":
        example = ",".join(f"STEP={c.path}" for c in unknown[:_MOST])
        notes.append(
            f"Steps are unknown, as no name tells them; {len(unknown)} checkpoints stand in the order of their names. "
            f"To give their steps: --steps '{example}'."
        )
    return notes + _changed_tokenizers(run, checkpoints)


def missing_tokenizer(checkpoints: Sequence[Checkpoint]) -> str | None:
    """Say that no checkpoint comes with a tokenizer; None where one does, or the model under an adapter may."""
    if not checkpoints or any(c.tokenizer or c.base_model for c in checkpoints):
        return None
    return "No tokenizer lies in the checkpoints or beside them. Name one with --tokenizer."


def _changed_tokenizers(run: Run, checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Compare tokenizers by the size of ``tokenizer.json``, which may be large, and the text of the chat template."""
    seen: dict[str, tuple[int | None, str]] = {}
    first: tuple[Checkpoint, tuple[int | None, str]] | None = None
    for checkpoint in checkpoints:
        where = checkpoint.tokenizer
        if where is None:
            continue
        if where not in seen:
            seen[where] = _size(run, Path(where) / "tokenizer.json"), _template(run, Path(where))
        if first is None:
            first = checkpoint, seen[where]
        elif seen[where] != first[1]:
            what = "chat template" if seen[where][0] == first[1][0] else "tokenizer.json"
            return [f"The {what} of {checkpoint.label} is another than that of {first[0].label}."]
    return []


def _size(run: Run, file: Path) -> int | None:
    if file.name not in run.disk.names(file.parent):
        return None
    try:
        return run.disk.stat(file).st_size
    except OSError:
        return None


def _template(run: Run, folder: Path) -> str:
    if "chat_template.jinja" not in run.disk.names(folder):
        return ""
    try:
        return run.disk.text(folder / "chat_template.jinja")
    except (OSError, ValueError):
        return ""
