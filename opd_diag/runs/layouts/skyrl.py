"""What SkyRL writes: checkpoints as shards in ``global_step_N/policy``, and exports of whole models elsewhere."""

from __future__ import annotations

from dataclasses import replace

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.holdings import Weights
from opd_diag.runs.layouts.run import Run, checkpoint_at, first_names, student_in
from opd_diag.runs.layouts.verl import STEP
from opd_diag.runs.sharded import NEEDS_MERGE

POINTER = "latest_ckpt_global_step.txt"
"""Written last of all."""

_EXPORT = (
    "SkyRL has no converter: load it in SkyRL with trainer.resume_path and trainer.hf_save_interval=1, which exports "
    "it to trainer.export_path, and pass that folder."
)
_SAVE = "For runs to come set trainer.hf_save_interval, and pass trainer.export_path."


def skyrl(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N/policy`` of checkpoints: an adapter, or one file of weights a rank."""
    of_run = POINTER in run.disk.names(run.folder)
    found = []
    for number, folder in run.step_folders(STEP):
        policy = folder / "policy"
        if not run.disk.names(policy) or not (of_run or "trainer_state.pt" in run.disk.names(folder)):
            continue
        config = policy / "huggingface"
        where, weights = student_in(run, [policy / "lora_adapter", policy], configs=(config,)) or (policy, None)
        if weights is None or weights.code == "NO_WEIGHTS":
            blocker = f"Found no weights in {policy}; found {first_names(run.disk, policy)}."
            weights = Weights("full").blocked("NO_WEIGHTS", blocker, _SAVE)
        elif weights.code == NEEDS_MERGE:
            weights = replace(weights, way_out=_EXPORT)
        step = run.updates(number, base=1)
        found.append(checkpoint_at(where, weights, f"step {step}", step, tokenizers=(config,), disk=run.disk))
    return found


def skyrl_export(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N/policy`` of exports, whole models; they are moved into place when they are finished."""
    found = []
    for number, folder in run.step_folders(STEP):
        policy = folder / "policy"
        if "trainer_state.pt" in run.disk.names(folder) or not run.disk.names(policy):
            continue
        weights = run.classified(policy)
        if weights is not None and weights.kind == "full" and weights.files:
            step = run.updates(number, base=1)
            found.append(checkpoint_at(policy, weights, f"step {step}", step, complete=True, disk=run.disk))
    return found
