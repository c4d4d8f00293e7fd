"""What the Hugging Face Trainer writes, and so TRL, ms-swift, LLaMA-Factory, axolotl and unsloth: ``checkpoint-N``."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.holdings import Weights
from opd_diag.runs.layouts.run import Run, checkpoint_at
from opd_diag.runs.sharded import NEEDS_MERGE, mended

STEP = re.compile(r"checkpoint-(\d+)", re.ASCII)

TRAINER_STATE = "trainer_state.json"
DONE = (TRAINER_STATE, "CHECKPOINT_COMPLETE")
"""Written last, the second by LLaMA-Factory: one of them tells of a finished save."""

_HEAD = 2**13
"""Bytes; its keys are sorted, so that the step stands before the history, which grows to megabytes."""
_GLOBAL_STEP = re.compile(r'"global_step"\s*:\s*(\d{1,15})\s*[,}]', re.ASCII)
_BEST = re.compile(r'"best_model_checkpoint"\s*:\s*"')
_SWIFT = "args.json"


def hf_trainer(run: Run) -> list[Checkpoint]:
    """Give the ``checkpoint-N`` folders that the Hugging Face Trainer writes; N is the step.

    ``trainer_state.json`` is written last, so that it tells of a finished save. A model in the run folder itself is
    the final one, see :func:`_final`.
    """
    found = [_checkpoint(run, number, folder, _held(run, number, folder)) for number, folder in run.step_folders(STEP)]
    return found + _final(run, found) if found else []


def swift(run: Run) -> list[Checkpoint]:
    """Give the ``checkpoint-N`` folders with ``args.json`` that ms-swift and Megatron-SWIFT write.

    Where an adapter cannot be used, its merged copy ``checkpoint-N-merged`` is; Megatron's own shards must be exported.
    """
    found = []
    for number, folder in run.step_folders(STEP):
        if _SWIFT not in run.disk.names(folder):
            continue
        weights, merged, note = _held(run, number, folder), folder.with_name(f"{folder.name}-merged"), None
        if (weights is None or weights.blocker) and run.disk.names(merged):
            copy = run.classified(merged)
            if copy is not None and copy.blocker is None:
                note = f"{folder.name} cannot be used, its merged copy is."
                folder, weights = merged, copy
        if weights is None:
            weights = _megatron(run, folder, _out(run, number))
        found.append(_checkpoint(run, number, folder, weights, note))
    return found + _final(run, found) if found else []


def finished_step(folder: Path, run: Run) -> int | None:
    """Give the step that ``trainer_state.json`` in `folder` tells; None when it does not."""
    match = _GLOBAL_STEP.search(_state(run, folder))
    return int(match[1]) if match else None


def _held(run: Run, number: int, folder: Path) -> Weights | None:
    return run.classified(folder, _out(run, number), configs=(run.folder,))


def _out(run: Run, number: int) -> str:
    return f"merged/step-{run.updates(number, base=1)}"


def _checkpoint(run: Run, number: int, folder: Path, weights: Weights | None, note: str | None = None) -> Checkpoint:
    step = run.updates(number, base=1)
    if weights is None:
        weights, folder = _one_adapter(run, folder) or (None, folder)
    said = finished_step(folder, run)
    if said not in (None, number):
        note = f"{TRAINER_STATE} in {folder.name} says step {said}."
    complete = None if run.disk.names(folder).isdisjoint(DONE) else True
    return checkpoint_at(
        folder,
        weights,
        f"step {step}",
        step,
        tokenizers=(folder, run.folder),
        complete=complete,
        note=note,
        disk=run.disk,
    )


def _one_adapter(run: Run, folder: Path) -> tuple[Weights, Path] | None:
    """Give the one adapter in a folder below, where PEFT puts every adapter but that called ``default``."""
    found = [
        (weights, folder / name)
        for name in run.disk.folders(folder)
        if "adapter_config.json" in run.disk.names(folder / name) and (weights := run.classified(folder / name))
    ]
    return found[0] if len(found) == 1 else None


def _final(run: Run, found: list[Checkpoint]) -> list[Checkpoint]:
    """Give the model saved in the run folder beside its ``checkpoint-N`` folders, as label ``final``.

    Its step is known where ``trainer_state.json`` tells one that no checkpoint has, and no best checkpoint may have
    been loaded back at the end of training; files do not tell more. A copy of the last checkpoint, by size and time of
    its files, is none of its own.
    """
    weights = run.classified(run.folder)
    if weights is None or not weights.files or _is_copy(run, weights, found[-1]):
        return []
    step, note = finished_step(run.folder, run), "The model in the run folder itself."
    if step in {c.step for c in found} and step is not None:
        step, note = None, f"{note} Its weights may be those of step {step}, where training ended."
    elif step is not None and _BEST.search(_state(run, run.folder)):
        step, note = None, f"{note} Training ended at step {step}, but an earlier checkpoint may have been loaded back."
    return [checkpoint_at(run.folder, weights, "final", step, note=note, disk=run.disk)]


def _is_copy(run: Run, weights: Weights, last: Checkpoint) -> bool:
    try:
        pairs = [(run.disk.stat(file), run.disk.stat(last.path / file.name)) for file in weights.files]
    except OSError:
        return False
    return all((one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns) for one, other in pairs)


def _megatron(run: Run, folder: Path, out: str) -> Weights | None:
    inner = next((folder / name for name in run.disk.folders(folder) if re.fullmatch(r"iter_\d{7}", name)), None)
    weights = None if inner is None else run.classified(inner, out)
    if weights is None or weights.code != NEEDS_MERGE:
        return weights
    command = f"swift export --mcore_model {shlex.quote(str(folder))} --to_hf true --output_dir {out}"
    return replace(weights, way_out=mended(command, out))


def _state(run: Run, folder: Path) -> str:
    try:
        return run.disk.text(folder / TRAINER_STATE, _HEAD)
    except (OSError, ValueError):
        return ""
