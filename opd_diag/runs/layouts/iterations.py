"""What Megatron (and so slime) and torchtune write: numbered folders with weights of their own making."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts.run import Run, checkpoint_at, student_in
from opd_diag.runs.layouts.verl import POINTER
from opd_diag.runs.sharded import NEEDS_MERGE, by_slime

MEGATRON = re.compile(r"iter_(\d{7})", re.ASCII)
TORCHTUNE = re.compile(r"(?:dist_)?epoch_(\d+)|step_(\d+)", re.ASCII)

MEGATRON_CAVEAT = (
    "slime numbers rollouts from 0, which may be several updates each: iter_0000019 is step 20 here. Megatron-LM "
    "itself counts finished updates: --step-base 1."
)

_RECIPE = ("recipe_state", "recipe_state.pt")


def megatron(run: Run) -> list[Checkpoint]:
    """Give ``iter_NNNNNNN``, whose weights must be converted; slime counts rollouts from 0."""
    found = []
    for number, folder in run.step_folders(MEGATRON):
        step = run.updates(number, base=0)
        out = f"merged/step-{step}"
        weights = run.classified(folder, out)
        if weights is not None and weights.code == NEEDS_MERGE:
            weights = replace(weights, way_out=by_slime(folder, out))
        if weights is not None or POINTER in run.disk.names(run.folder):
            found.append(checkpoint_at(folder, weights, f"step {step}", step, disk=run.disk))
    return found


def torchtune(run: Run) -> list[Checkpoint]:
    """Give ``epoch_N``, whose step no name tells, or ``step_N``.

    They are recognised by ``recipe_state`` (in the folder or beside it), by the file of an adapter, or by
    ``dist_epoch_N``, a torch distributed checkpoint.
    """
    beside = not run.disk.names(run.folder).isdisjoint(_RECIPE)
    found = []
    for folder in _numbered(run):
        weights = student_in(run, [folder, folder / "adapter_model"], out=f"merged/{folder.name}")
        own = not run.disk.names(folder).isdisjoint({*_RECIPE, "adapter_model.pt"})
        if weights is None or not (beside or own or folder.name.startswith("dist_")):
            continue
        where, held = weights
        match = re.fullmatch(r"step_(\d+)", folder.name)
        step = run.updates(int(match[1]), base=1) if match else None
        label = folder.name if step is None else f"step {step}"
        found.append(checkpoint_at(where, held, label, step, tokenizers=(folder,), disk=run.disk))
    return found


def _numbered(run: Run) -> list[Path]:
    entries = run.disk.entries(run.folder)
    names = [name for name, entry in entries.items() if entry.is_folder and TORCHTUNE.fullmatch(name)]
    ordered = sorted(names, key=lambda name: (int(re.findall(r"\d+", name)[0]), name))
    return [run.folder / name for name in ordered if not run.disk.is_empty(run.folder / name)]
