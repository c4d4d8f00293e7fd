"""Runs around and below a folder: the run that one checkpoint belongs to, and runs in the folders of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from opd_diag.errors import RunFolderError
from opd_diag.runs.found import FoundRun, by_name, by_trainer, related
from opd_diag.runs.layouts import TRAINERS, Run
from opd_diag.runs.manifest import MANIFEST_NAME

DEEPEST = 5
"""Folders below the one given that are looked into: AReaL puts five between its root and the steps."""

MOST_FOLDERS = 2000
"""Folders that are looked into at most in looking for runs below."""

_HIGHEST = 4
"""Folders above one that may be part of a checkpoint."""

_PARTS = frozenset(
    {"actor", "policy", "huggingface", "lora_adapter", "adapter", "weights", "model", "consolidated", "trainer"}
    | {"dist_ckpt", "pytorch_model_fsdp_0"}
)
"""Names of folders inside a checkpoint."""

_NO_RUNS_IN = frozenset(
    {"critic", "optimizer", "recover_checkpoint", "broadcasts", "logs", "wandb", "tensorboard", "tensorboard_log"}
    | {"completions", "rollouts", "rollout_data", "train_data", "token_exports", "dumped_data", "dumped_evals"}
    | {"node_modules", "__pycache__"}
)
"""Names of folders that a trainer writes other things to, or nobody trains in."""


def one_of_a_run(run: Run) -> FoundRun | None:
    """Give the one checkpoint that a folder is, or is part of, as the run above it has it; None where there is none.

    By the folder's name alone it is decided whether to look above it.
    """
    folder = run.folder.resolve()
    if folder.name not in _PARTS and not any(n.steps and n.steps.fullmatch(folder.name) for n in TRAINERS):
        return None
    for above in list(folder.parents)[:_HIGHEST]:
        _, found = _read(run.at(above), None)
        if found is None:
            continue
        hits = [c for c in found.checkpoints if c.path != above and related(c.path, folder)]
        if len(hits) != 1:
            return None
        ((checkpoint,), count) = hits, len(found.checkpoints)
        more = f"The folder above it holds {count} checkpoints; pass {above} to compare steps." if count > 1 else None
        path = run.folder if checkpoint.path == folder else checkpoint.path
        note = " ".join(part for part in (checkpoint.note, more) if part) or None
        return FoundRun(run.folder, found.layout, [replace(checkpoint, path=path, note=note)])
    return None


def runs_below(run: Run, deepest: int = DEEPEST, layout: str | None = None) -> dict[Path, FoundRun | None]:
    """Find the runs nearest below a folder, all of one depth; each folder is looked into once, whatever leads to it.

    Parameters
    ----------
    run
        The folder.
    deepest
        How many folders down.
    layout
        How the runs are laid out; default: as any trainer does, or, more than one folder down, models side by side.

    Returns
    -------
    dict
        What is in each, by its folder; None where it has a manifest of its own or two readings.
    """
    seen = {_place(run, run.folder)}
    level = [run.folder]
    for _ in range(deepest):
        found: dict[Path, FoundRun | None] = {}
        below = [folder / name for folder in level for name in run.disk.folders(folder) if _may_hold_runs(name)]
        level = []
        for folder in below:
            place = None if len(seen) > MOST_FOLDERS else _place(run, folder)
            if place is None or place in seen:
                continue
            seen.add(place)
            level.append(folder)
            is_run, here = _read(run.at(folder), layout, with_models=deepest > 1)
            if MANIFEST_NAME in run.disk.names(folder):
                is_run, here = True, None
            if is_run:
                found[folder] = here
        if found:
            return found
    return {}


def _read(run: Run, layout: str | None, with_models: bool = False) -> tuple[bool, FoundRun | None]:
    """Read a folder near the one given, of which nobody said that it is a run: whether it is one, and what is in it."""
    try:
        found = by_trainer(run) if layout is None else by_name(run, layout)
        if found is None and layout is None and with_models:
            models = by_name(run, "generic_hf")
            found = models if models and sum(c.step is not None for c in models.checkpoints) > 1 else None
    except RunFolderError:  # of two readings
        return True, None
    except OSError:  # not to be listed
        return False, None
    return found is not None, found


def _may_hold_runs(name: str) -> bool:
    return not name.startswith(".") and name not in _NO_RUNS_IN


def _place(run: Run, folder: Path) -> tuple[int, int] | None:
    try:
        status = run.disk.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
