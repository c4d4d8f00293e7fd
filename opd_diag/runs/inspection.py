"""What ``opd-diag inspect`` shows of a run: its checkpoints, and the models and files that its manifest names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opd_diag.records.checkpoint import Checkpoint, CheckpointKind
from opd_diag.runs.weights import classify_weights, is_local


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
    blocker: str
    """Why it cannot be loaded; empty when it can."""
    way_out: str
    """What to do about it; empty when it can."""
    note: str
    """What else to know; may be empty."""


@dataclass(frozen=True)
class NamedInput:
    """A model or file that the manifest or an option names."""

    name: str
    """Field of ``Settings``, for example ``teacher``."""
    value: str
    """Path or hub id."""
    found: Literal["folder", "file", "hub id", "missing"]
    """What is there; ``hub id`` is not looked up, as that needs the network."""


def inspection_rows(checkpoints: Iterable[Checkpoint]) -> list[InspectionRow]:
    """Give one row for each checkpoint, in the same order."""
    return [
        InspectionRow(
            step=checkpoint.step,
            label=checkpoint.label,
            kind=checkpoint.kind,
            loadable=checkpoint.loadable,
            complete=checkpoint.complete,
            megabytes=_megabytes(checkpoint),
            path=str(checkpoint.path),
            base_model=checkpoint.base_model,
            blocker=checkpoint.blocker or "",
            way_out=checkpoint.way_out or "",
            note=checkpoint.note or "",
        )
        for checkpoint in checkpoints
    ]


def named_inputs(settings: Mapping[str, Any]) -> list[NamedInput]:
    """Say of each model and file that `settings` (by field name of ``Settings``) names whether it is there."""
    models = ("student", "teacher", "base_model", "tokenizer")
    names = (*models, "prompts", "rollouts", "teacher_template")
    return [
        NamedInput(name, str(settings[name]), _found(str(settings[name]), name in models))
        for name in names
        if settings.get(name)
    ]


def _found(value: str, is_model: bool) -> Literal["folder", "file", "hub id", "missing"]:
    path = os.path.expanduser(value)
    if os.path.isdir(path):
        return "folder"
    if os.path.isfile(path):
        return "file"
    return "hub id" if is_model and not is_local(value) else "missing"


def _megabytes(checkpoint: Checkpoint) -> float | None:
    weights = classify_weights(checkpoint.path, checkpoint.base_model)
    sizes = [os.path.getsize(file) for file in weights.files if file.exists()] if weights else []
    return sum(sizes) / 1e6 if sizes else None
