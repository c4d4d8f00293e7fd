"""Weights in the form of Hugging Face: an adapter, one whole file, shards with their index, or what is left of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opd_diag.runs.disk import Disk
from opd_diag.runs.holdings import CONFIG, SAVE_AGAIN, Place, Weights, is_local, with_config
from opd_diag.runs.integrity import file_damage

FULL = "model.safetensors"
INDEX = "model.safetensors.index.json"
BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_BIN = "adapter_model.bin"
ADAPTER_CONFIG = "adapter_config.json"

_SHARD = re.compile(r"(?:model-\d+-of-\d+\.safetensors|pytorch_model-\d+-of-\d+\.bin)")

NAME_BASE = "Name it with --base-model (a folder or a hub id)."


def adapter(disk: Disk, folder: Path, base_model: str | None) -> Weights | None:
    """Tell of a PEFT adapter, on the base model given or the one that it names; None where there is none."""
    names = disk.names(folder)
    if ADAPTER_CONFIG not in names:
        return None
    file = next((name for name in (ADAPTER, ADAPTER_BIN) if name in names), None)
    weights = Weights("adapter", (folder / file,) if file else ())
    config, problem = disk.json_object(folder / ADAPTER_CONFIG)
    if problem:
        return weights.blocked("UNREADABLE", problem, SAVE_AGAIN)
    if file is None:
        blocker = f"It has {ADAPTER_CONFIG} but no {ADAPTER}: the save was interrupted."
        return weights.blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    base = base_model or config.get("base_model_name_or_path")
    weights = replace(weights, base_model=os.path.expanduser(base) if base and isinstance(base, str) else None)
    if FULL in names or INDEX in names:
        weights = replace(weights, note="Full weights lie beside the adapter; the adapter on its base model is used.")
    return _damaged(disk, weights) or _with_base_model(weights, given=base_model is not None)


def full(disk: Disk, folder: Path, configs: Sequence[Place]) -> Weights | None:
    """Tell of full weights, one file or shards, safetensors before pickles of tensors; None where there are none.

    `configs` as of :func:`~opd_diag.runs.holdings.with_config`.
    """
    names = disk.names(folder)
    what = next((name for name in (FULL, INDEX, BIN, BIN_INDEX) if name in names), None)
    if what is None:
        return None
    whole = what in (FULL, BIN)
    weights = Weights("full", (folder / what,)) if whole else _indexed(disk, folder, names, what)
    if not weights.blocker:
        weights = with_config(weights, disk, folder, configs, what)
    return weights if weights.blocker else _damaged(disk, weights) or weights


def unfinished(disk: Disk, folder: Path) -> Weights | None:
    """Name what is left of a model; None without any sign of one."""
    names = disk.names(folder)
    shards = _files(folder, {name for name in names if _SHARD.fullmatch(name)})
    if shards:
        blocker = f"It has {len(shards)} weight shards but no index: the save was interrupted."
        return Weights("full", shards).blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    if CONFIG in names:
        way_out = f"Save the model into it with save_pretrained, as {FULL}."
        return Weights("full").blocked("NO_WEIGHTS", f"It has {CONFIG} but no weights.", way_out)
    return None


def _with_base_model(weights: Weights, given: bool) -> Weights:
    base = weights.base_model
    if base is None:
        blocker = f"The adapter names no base model ('base_model_name_or_path' in {ADAPTER_CONFIG})."
    elif is_local(base) and not os.path.exists(base):
        origin = "given for the adapter" if given else f"that {ADAPTER_CONFIG} names"
        blocker = f"The base model {base} {origin} does not exist here."
    else:
        quantised = f"The adapter names {base}, which is quantised. Name another with --base-model."
        notes = [weights.note, quantised if re.search(r"-bnb-[48]bit$", base) else None]
        return replace(weights, note=" ".join(note for note in notes if note) or None)
    return weights.blocked("BASE_MODEL_MISSING", blocker, NAME_BASE)


def _indexed(disk: Disk, folder: Path, names: frozenset[str], file: str) -> Weights:
    weights = Weights("full", _files(folder, {name for name in names if _SHARD.fullmatch(name)}))
    index, problem = disk.json_object(folder / file)
    if problem:
        return weights.blocked("UNREADABLE", problem, SAVE_AGAIN)
    weight_map = index.get("weight_map")
    entries = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not entries or not all(isinstance(entry, str) and Path(entry).name == entry for entry in entries):
        blocker = f"{file} has no 'weight_map' from tensors to files beside it."
        return weights.blocked("UNREADABLE", blocker, SAVE_AGAIN)
    wanted = sorted(set(entries))
    missing = [name for name in wanted if name not in names or disk.stat(folder / name).st_size == 0]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        blocker = f"{file} names {len(wanted)} files, of which are missing or empty: {shown}."
        return weights.blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    return replace(weights, files=tuple(folder / name for name in wanted))


def _damaged(disk: Disk, weights: Weights) -> Weights | None:
    """Give `weights` blocked by the first damaged file; None when all are whole. Of pickles, only an empty one is."""
    for file in weights.files:
        damage = _emptiness(disk, file) if file.suffix == ".bin" else file_damage(file)
        if damage:
            way_out = "Run git lfs pull there." if "LFS" in damage else SAVE_AGAIN
            return weights.blocked("INCOMPLETE_WEIGHTS", f"{file.name} {damage}.", way_out)
    return None


def _emptiness(disk: Disk, file: Path) -> str | None:
    return "is empty" if disk.stat(file).st_size == 0 else None


def _files(folder: Path, names: frozenset[str] | set[str]) -> tuple[Path, ...]:
    return tuple(folder / name for name in sorted(names))
