"""What ``opd-diag inspect`` shows of a run: its checkpoints, what was recorded, and the inputs its manifest names."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opd_diag.records.checkpoint import Checkpoint, CheckpointKind
from opd_diag.records.rollout import Exactness
from opd_diag.runs.holdings import is_local
from opd_diag.runs.manifest import MODELS
from opd_diag.runs.recorded import RecordedFile

JUST_WRITTEN = 60
"""Seconds within which a save may still go on."""

_RECORDERS = {
    "hf_trainer": "of TRL, opd_diag.integrations.record(trainer) before train(), or log_completions=True",
    "swift": "--log_completions true",
    "verl": "trainer.rollout_data_dir=DIR, a folder in that of the run",
    "skyrl": "trainer.dump_data_batch=true",
    "nemo_rl": "nothing: name its log_dir with --rollouts",
    "prime_rl": "trainer.enable_token_export=true",
    "areal": "rollout.dump_to_file=true and rollout.tokenizer_path",
    "roll": "rollout_dump_dir, an absolute path",
    "megatron": "of slime, --dump-details DIR",
}
"""What to switch on so that responses are recorded, by the beginning of a layout's name; see TRAINERS.md."""

_ANY_RECORDER = "opd_diag.integrations.Recorder takes them from any trainer"


@dataclass(frozen=True)
class InspectionRow:
    """One checkpoint as a row of the table."""

    step: int | None
    label: str
    kind: CheckpointKind
    loadable: bool
    """Whether nothing is known that blocks loading."""
    complete: bool | None
    """Whether the save had finished; None when nothing tells."""
    megabytes: float | None
    """Size of the weight files, in 10^6 bytes; None where they are not on this machine."""
    path: str
    base_model: str | None
    code: str
    """Short name of what `blocker` is about; empty when it can be loaded."""
    blocker: str
    """Why it cannot be loaded; empty when it can."""
    way_out: str
    """What to do about it; empty when it can."""
    note: str
    """What else to know; may be empty."""


@dataclass(frozen=True)
class RecordedRow:
    """Files of one folder in which the trainer recorded responses, as a row of the table."""

    format: str
    folder: str
    files: int
    steps: str
    """The lowest and the highest number in their names; empty where there is none."""
    exactness: Exactness
    evaluation: bool
    """Whether the responses are to held-out prompts."""


@dataclass(frozen=True)
class NamedInput:
    """A model or file that the manifest names."""

    name: str
    """Field of ``Settings``, for example ``teacher``."""
    value: str
    """Path or hub id."""
    found: Literal["folder", "file", "hub id", "missing"]
    """What is there; ``hub id`` is not looked up, as that needs the network."""


def inspection_rows(checkpoints: Iterable[Checkpoint]) -> list[InspectionRow]:
    """Give one row for each checkpoint, in the same order; of its files, sizes and times alone are asked for."""
    return [_row(checkpoint) for checkpoint in checkpoints]


def recorded_rows(files: Iterable[RecordedFile]) -> list[RecordedRow]:
    """Give one row for the files of one format in one folder, in the order in which they come first."""
    alike: dict[tuple[str, str, Exactness, bool], list[RecordedFile]] = {}
    for file in files:
        # where a step has a folder of its own, the one above is shown
        above = file.path.parents[1] if re.search(r"\d", file.path.parent.name) else file.path.parent
        alike.setdefault((file.format, str(above), file.exactness, file.evaluation), []).append(file)
    rows = []
    for (name, folder, exactness, evaluation), group in alike.items():
        numbers = sorted({file.step for file in group if file.step is not None})
        steps = " to ".join(map(str, [numbers[0], *numbers[-1:]] if len(numbers) > 1 else numbers))
        rows.append(RecordedRow(name, folder, len(group), steps, exactness, evaluation))
    return rows


def nothing_recorded(layout: str) -> str:
    """Say what follows where a trainer recorded no responses, and what to switch on so that the next run does.

    Examples
    --------
    >>> nothing_recorded("prime_rl").rpartition(": ")[2]
    'trainer.enable_token_export=true (TRAINERS.md).'
    """
    switch = next((on for name, on in _RECORDERS.items() if layout.startswith(name)), _ANY_RECORDER)
    return (
        "no rollouts, so that a report samples them from each checkpoint. To have the next run record its own: "
        f"{switch} (TRAINERS.md)."
    )


def named_inputs(settings: Mapping[str, Any]) -> list[NamedInput]:
    """Say of each model and file that `settings` (by field name of ``Settings``) names whether it is there."""
    return [
        NamedInput(name, str(settings[name]), _found(str(settings[name]), name in MODELS))
        for name in (*MODELS, "prompts", "rollouts", "teacher_template", "logs")
        if settings.get(name)
    ]


def _found(value: str, is_model: bool) -> Literal["folder", "file", "hub id", "missing"]:
    path = os.path.expanduser(value)
    if os.path.isdir(path):
        return "folder"
    if os.path.isfile(path):
        return "file"
    return "hub id" if is_model and not is_local(value) else "missing"


def _row(checkpoint: Checkpoint) -> InspectionRow:
    size, written = _size_and_time(checkpoint)
    recent = checkpoint.complete is not True and 0 <= time.time() - written < JUST_WRITTEN
    notes = [checkpoint.note, "It was written to less than a minute ago: its save may go on." if recent else None]
    return InspectionRow(
        step=checkpoint.step,
        label=checkpoint.label,
        kind=checkpoint.kind,
        loadable=checkpoint.loadable,
        complete=checkpoint.complete,
        megabytes=None if size is None else size / 1e6,
        path=str(checkpoint.path),
        base_model=checkpoint.base_model,
        code=checkpoint.code or "",
        blocker=checkpoint.blocker or "",
        way_out=checkpoint.way_out or "",
        note=" ".join(note for note in notes if note),
    )


def _size_and_time(checkpoint: Checkpoint) -> tuple[int | None, float]:
    """Give the size of all weight files, in bytes, and when the newest was written, in seconds since 1970."""
    try:
        found = [file.stat() for file in checkpoint.files]
    except OSError:  # one was taken away since
        found = []
    if not found:
        return None, 0.0
    return sum(status.st_size for status in found), max(status.st_mtime for status in found)
