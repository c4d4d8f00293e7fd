"""What prime-rl writes: ``checkpoints/step_N/trainer``, and, up to 0.8.0, whole models in ``weights/step_N``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts.nemo_rl import STEP
from opd_diag.runs.layouts.run import Run, checkpoint_at

_CONFIGS = ("trainer.json", "trainer.toml", "rl.json", "rl.toml")


def prime_rl(run: Run) -> list[Checkpoint]:
    """Give ``weights/step_N`` and, of the other steps, ``checkpoints/step_N/trainer``; either folder may be given.

    ``STABLE`` tells that whole weights are finished. The shards come without a config: ``configs/`` names the model
    whose config fits. ``broadcasts/`` holds the newest weights only, for a while, and is left alone.
    """
    names = run.disk.names(run.folder)
    root = run.folder if names & {"weights", "checkpoints"} else run.folder.parent
    given = () if root == run.folder else (run.folder,)
    found = {c.step: c for c in _sharded(run, root, given or (root / "checkpoints",))}
    found |= {c.step: c for c in _whole(run, given or (root / "weights",))}
    return [found[step] for step in sorted(found, key=lambda step: step or 0)]


def _whole(run: Run, folders: tuple[Path, ...]) -> Iterator[Checkpoint]:
    for number, folder in _steps(run, folders):
        weights = run.classified(folder)
        stable = "STABLE" in run.disk.names(folder)
        if weights is None or not weights.files or not (stable or folder.parent.name == "weights"):
            continue
        step = run.updates(number, base=1)
        note = None if stable else "STABLE is not there yet: the save may not have finished."
        yield checkpoint_at(
            folder, weights, f"step {step}", step, complete=True if stable else None, note=note, disk=run.disk
        )


def _sharded(run: Run, root: Path, folders: tuple[Path, ...]) -> Iterator[Checkpoint]:
    for number, folder in _steps(run, folders):
        trainer = folder / "trainer"
        if run.disk.names(trainer):
            step = run.updates(number, base=1)
            weights = run.classified(trainer, f"merged/step-{step}", _model_names(run, root / "configs"))
            complete = True if weights is not None and weights.kind == "distributed" else None
            yield checkpoint_at(trainer, weights, f"step {step}", step, complete=complete, disk=run.disk)


def _steps(run: Run, folders: tuple[Path, ...]) -> Iterator[tuple[int, Path]]:
    for folder in folders:
        if run.disk.names(folder):
            yield from run.at(folder).step_folders(STEP)


def _model_names(run: Run, configs: Path) -> list[str]:
    """Read ``model.name`` of the resolved configuration: JSON now, TOML before."""
    for name in _CONFIGS:
        if name in run.disk.names(configs):
            try:
                text = run.disk.text(configs / name)
                data: Any = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
                model = data["model"]["name"]
            except (OSError, ValueError, TypeError, LookupError, RecursionError):
                continue
            if isinstance(model, str) and model:
                return [model]
    return []
