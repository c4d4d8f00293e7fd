"""How trainers lay out a run: one function per layout, from a run folder to its checkpoints, or none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.manifest import Manifest
from opd_diag.runs.weights import Weights, classify_weights, has_tokenizer

TRAINER_STATE = "trainer_state.json"

_STEP_FOLDER = re.compile(r"checkpoint-(\d+)", re.ASCII)


def listed(run_dir: Path, manifest: Manifest, base_model: str | None) -> list[Checkpoint]:
    """Give the checkpoints that the manifest lists as ``[[checkpoints]]``."""
    return [
        checkpoint_at(folder, classify_weights(folder, base_model), f"step {step}", step, beside=run_dir)
        for step, folder in manifest.checkpoints
    ]


def hf_trainer(run_dir: Path, manifest: Manifest, base_model: str | None) -> list[Checkpoint]:
    """Give the ``checkpoint-N`` folders that the Hugging Face Trainer, and so TRL, writes; N is the step.

    ``trainer_state.json`` is written last, so that it tells of a finished save. A model in the run folder itself is
    the final one, see :func:`_final`.
    """
    found = []
    for step, folder in step_folders(run_dir):
        weights = classify_weights(folder, base_model)
        complete = True if os.path.isfile(folder / TRAINER_STATE) else None
        found.append(checkpoint_at(folder, weights, f"step {step}", step, beside=run_dir, complete=complete))
    return found + _final(run_dir, base_model, {c.step for c in found}) if found else []


def single(run_dir: Path, manifest: Manifest, base_model: str | None) -> list[Checkpoint]:
    """Give the run folder itself when weights lie in it.

    The step is what ``trainer_state.json`` says, else that of its name ``checkpoint-N``, else unknown.
    """
    weights = classify_weights(run_dir, base_model)
    if weights is None or not weights.files:
        return []
    folder = run_dir.resolve()
    step, note = finished_step(run_dir), None
    own = _STEP_FOLDER.fullmatch(folder.name)
    if own:
        step = int(own[1]) if step is None else step
        siblings = len(step_folders(folder.parent))
        if siblings > 1:
            note = f"The folder above it holds {siblings} checkpoints; pass {folder.parent} to compare steps."
    label = folder.name or "model" if step is None else f"step {step}"
    return [checkpoint_at(run_dir, weights, label, step, note=note)]


Layout = Callable[[Path, Manifest, str | None], list[Checkpoint]]
"""(run folder, its manifest, model under adapters) to checkpoints; an empty list when the run is laid out otherwise."""

LAYOUTS: tuple[tuple[str, Layout], ...] = (("manifest", listed), ("hf_trainer", hf_trainer), ("single", single))
"""Names for ``--layout`` in order of precedence: the first that finds anything is used."""


def checkpoint_at(
    folder: Path,
    weights: Weights | None,
    label: str,
    step: int | None,
    *,
    beside: Path | None = None,
    complete: bool | None = None,
    note: str | None = None,
) -> Checkpoint:
    """Make the record of one checkpoint from what its folder holds.

    Parameters
    ----------
    folder, weights
        The folder and what :func:`classify_weights` says of it.
    label, step
        As in the record.
    beside
        Where else to look for a tokenizer.
    complete, note
        As in the record.
    """
    if weights is None:
        seen = first_names(folder)
        way_out = "Save the model into it with save_pretrained, or remove the folder."
        weights = Weights("full", blocker=f"It holds no Hugging Face weights; found {seen}.", way_out=way_out)
    places = [place for place in (folder, beside) if place is not None and has_tokenizer(place)]
    return Checkpoint(
        label=label,
        step=step,
        path=folder,
        kind=weights.kind,
        base_model=weights.base_model,
        tokenizer=str(places[0]) if places else None,
        complete=complete,
        blocker=weights.blocker,
        way_out=weights.way_out,
        note=" ".join(part for part in (weights.note, note) if part) or None,
    )


def step_folders(run_dir: Path) -> list[tuple[int, Path]]:
    """Give (step, folder) of the ``checkpoint-N`` folders with anything in them, lowest step first."""
    found = [(int(m[1]), run_dir / m[0]) for name in os.listdir(run_dir) if (m := _STEP_FOLDER.fullmatch(name))]
    return sorted((step, folder) for step, folder in found if folder.is_dir() and not _is_empty(folder))


def skipped_folders(run_dir: str | Path) -> list[str]:
    """Name the step folders in which there is nothing to load, each with the reason in brackets."""
    run_dir, skipped = Path(run_dir), []
    for name in sorted(os.listdir(run_dir)):
        folder = run_dir / name
        if _STEP_FOLDER.fullmatch(name) and not folder.is_dir():
            skipped.append(f"{name} (a link to nothing)" if folder.is_symlink() else f"{name} (a file)")
        elif _STEP_FOLDER.fullmatch(name) and _is_empty(folder):
            skipped.append(f"{name} (empty)")
        elif _STEP_FOLDER.fullmatch(name.removeprefix("tmp-")) and name.startswith("tmp-"):
            skipped.append(f"{name} (an unfinished save)")
    return skipped


def first_names(folder: Path, count: int = 10) -> str:
    """List the first names in a folder for a message."""
    names = sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else []
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more or "nothing"


def finished_step(folder: Path) -> int | None:
    """Give the step that ``trainer_state.json`` in `folder` tells; None when it does not."""
    step = _trainer_state(folder).get("global_step")
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _final(run_dir: Path, base_model: str | None, steps: set[int | None]) -> list[Checkpoint]:
    """Give the model saved in the run folder beside its ``checkpoint-N`` folders, as label ``final``.

    Its step is known where ``trainer_state.json`` tells one that no checkpoint has, and no best checkpoint may have
    been loaded back at the end of training; files do not tell more.
    """
    weights = classify_weights(run_dir, base_model)
    if weights is None or not weights.files:
        return []
    step, note = finished_step(run_dir), "The model in the run folder itself."
    if step in steps and step is not None:
        step, note = None, f"{note} Its weights may be those of step {step}, where training ended."
    elif step is not None and _trainer_state(run_dir).get("best_model_checkpoint"):
        step, note = None, f"{note} Training ended at step {step}, but an earlier checkpoint may have been loaded back."
    return [checkpoint_at(run_dir, weights, "final", step, note=note)]


def _trainer_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / TRAINER_STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is in a folder; one that cannot be read is not empty, its record names the reason."""
    try:
        return not os.listdir(folder)
    except OSError:
        return False
