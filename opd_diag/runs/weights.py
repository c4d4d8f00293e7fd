"""What one folder holds, told from names and small text files: full weights, an adapter, or what blocks loading."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import CheckpointKind
from opd_diag.runs.integrity import file_damage

FULL = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
_PICKLE = re.compile(r"(adapter_model|pytorch_model(-\d+-of-\d+)?)\.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")

SAVE_AGAIN = "Copy or save it again."
CONVERT = (
    "Load it where you trust it and save it with save_pretrained(..., safe_serialization=True): this version reads "
    "safetensors only."
)


@dataclass(frozen=True)
class Weights:
    """What one folder holds."""

    kind: CheckpointKind
    """``full`` or ``adapter``."""
    files: tuple[Path, ...] = ()
    """The weight files that are there, in order of name; empty when there are none."""
    base_model: str | None = None
    """Path or hub id of the model under an adapter; None for full weights, or when nothing names it."""
    blocker: str | None = None
    """Why the weights cannot be loaded, one sentence; None when nothing speaks against it."""
    way_out: str | None = None
    """What to do about `blocker`, one sentence."""
    note: str | None = None
    """What a reader should know, one sentence."""


def classify_weights(folder: Path, base_model: str | None = None) -> Weights | None:
    """Tell what a folder holds without loading it; None when nothing in it looks like a model.

    The order is that of transformers: an adapter wins over full weights beside it, one whole file over shards.

    Parameters
    ----------
    folder
        The folder to look at; if it is missing, that is the blocker.
    base_model
        Model under an adapter, in place of what the adapter itself names.
    """
    if not os.path.isdir(folder):
        found = "is a file" if os.path.isfile(folder) else "does not exist"
        return Weights("full", blocker=f"Expected a model folder, but {folder} {found}.", way_out="Correct the path.")
    try:
        names = frozenset(os.listdir(folder))
        return _adapter(folder, names, base_model) or _full(folder, names) or _unreadable_formats(folder, names)
    except OSError as error:
        where = error.filename or folder
        blocker = f"{where} cannot be read: {error.strerror}."
        return Weights("full", blocker=blocker, way_out="Check that the file exists and that you may read it.")


def is_local(model: str) -> bool:
    """Whether a model name can only be a path, as hub ids have at most one slash and start with a letter or digit.

    Examples
    --------
    >>> [is_local(name) for name in ("org/name@main", "gpt2", "./name", "/models/name", "a/b/c")]
    [False, False, True, True, True]
    """
    return model.startswith((".", "/", "~")) or model.count("/") > 1


def has_tokenizer(folder: Path) -> bool:
    """Whether files of a tokenizer lie in `folder`."""
    return any(os.path.isfile(folder / name) for name in _TOKENIZERS)


def _adapter(folder: Path, names: frozenset[str], base_model: str | None) -> Weights | None:
    if ADAPTER_CONFIG not in names:
        return None
    weights = Weights("adapter", _files(folder, names, {ADAPTER, "adapter_model.bin"}))
    config, problem = _json_object(folder / ADAPTER_CONFIG)
    if problem:
        return replace(weights, blocker=problem, way_out=SAVE_AGAIN)
    if ADAPTER not in names:
        if "adapter_model.bin" in names:
            return replace(weights, blocker="adapter_model.bin is a pickle, which can run code.", way_out=CONVERT)
        blocker = f"It has {ADAPTER_CONFIG} but no {ADAPTER}: the save was interrupted."
        return replace(weights, blocker=blocker, way_out=SAVE_AGAIN)
    base = base_model or config.get("base_model_name_or_path")
    weights = replace(weights, base_model=os.path.expanduser(base) if base and isinstance(base, str) else None)
    if FULL in names or INDEX in names:
        weights = replace(weights, note="Full weights lie beside the adapter; the adapter on its base model is used.")
    return _whole(weights, [folder / ADAPTER]) or _base_model(weights, given=base_model is not None)


def _base_model(weights: Weights, given: bool) -> Weights:
    base = weights.base_model
    if base is None:
        blocker = f"The adapter names no base model ('base_model_name_or_path' in {ADAPTER_CONFIG})."
    elif is_local(base) and not os.path.exists(base):
        origin = "given for the adapter" if given else f"that {ADAPTER_CONFIG} names"
        blocker = f"The base model {base} {origin} does not exist here."
    else:
        return weights
    return replace(weights, blocker=blocker, way_out="Name it with --base-model (a folder or a hub id).")


def _full(folder: Path, names: frozenset[str]) -> Weights | None:
    if FULL not in names and INDEX not in names:
        return None
    weights = Weights("full", _files(folder, names, {FULL} if FULL in names else set()))
    if FULL not in names:
        weights, problem = _indexed(folder, names)
        if problem:
            return replace(weights, blocker=problem, way_out=SAVE_AGAIN)
    if "config.json" not in names:
        blocker = f"It has {FULL if FULL in names else INDEX} but no config.json."
        return replace(weights, blocker=blocker, way_out="Copy config.json of the model that was trained into it.")
    problem = _json_object(folder / "config.json")[1]
    if problem:
        return replace(weights, blocker=problem, way_out=SAVE_AGAIN)
    return _whole(weights, list(weights.files)) or weights


def _indexed(folder: Path, names: frozenset[str]) -> tuple[Weights, str | None]:
    shards = {name for name in names if _SHARD.fullmatch(name)}
    weights = Weights("full", _files(folder, names, shards))
    index, problem = _json_object(folder / INDEX)
    if problem:
        return weights, problem
    weight_map = index.get("weight_map")
    entries = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not entries or not all(isinstance(entry, str) and Path(entry).name == entry for entry in entries):
        return weights, f"{INDEX} has no 'weight_map' from tensors to files beside it."
    wanted = sorted(set(entries))
    missing = [n for n in wanted if not os.path.exists(folder / n) or os.path.getsize(folder / n) == 0]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return weights, f"{INDEX} names {len(wanted)} files, of which are missing or empty: {shown}."
    return replace(weights, files=tuple(folder / name for name in wanted)), None


def _unreadable_formats(folder: Path, names: frozenset[str]) -> Weights | None:
    """Name what no loader here reads, from the most to the least specific sign of it."""
    shards = _files(folder, names, {name for name in names if _SHARD.fullmatch(name)})
    pickles = _files(folder, names, {name for name in names if _PICKLE.fullmatch(name)})
    if shards:
        blocker = f"It has {len(shards)} weight shards but no {INDEX}: the save was interrupted."
        return Weights("full", shards, blocker=blocker, way_out=SAVE_AGAIN)
    if pickles:
        blocker = f"Its weights are pickles, which can run code ({pickles[0].name})."
        return Weights("full", pickles, blocker=blocker, way_out=CONVERT)
    if "pytorch_model_fsdp_0" in names:
        merge = f"accelerate merge-weights {folder / 'pytorch_model_fsdp_0'} OUT, then add config.json and tokenizer."
        return Weights("full", blocker="It holds FSDP shards, not Hugging Face weights.", way_out=f"Run {merge}")
    if "zero_to_fp32.py" in names:
        merge = f"python {folder / 'zero_to_fp32.py'} {folder} OUT --safe_serialization, then add config and tokenizer."
        return Weights("full", blocker="It holds DeepSpeed shards, not Hugging Face weights.", way_out=f"Run {merge}")
    if "config.json" in names:
        blocker = "It has config.json but no weights."
        return Weights("full", blocker=blocker, way_out=f"Save the model into it with save_pretrained, as {FULL}.")
    return None


def _whole(weights: Weights, files: list[Path]) -> Weights | None:
    """Give `weights` blocked by the first damaged file; None when all are whole."""
    for file in files:
        damage = file_damage(file)
        if damage:
            way_out = "Run git lfs pull there." if "LFS" in damage else SAVE_AGAIN
            return replace(weights, blocker=f"{file.name} {damage}.", way_out=way_out)
    return None


def _files(folder: Path, names: frozenset[str], wanted: set[str]) -> tuple[Path, ...]:
    return tuple(folder / name for name in sorted(names & wanted))


def _json_object(path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"{path.name} is not JSON ({error})."
    return (data, None) if isinstance(data, dict) else ({}, f"{path.name} holds no JSON object.")
