"""What trainers write for themselves: a file a rank, torch distributed checkpoints, Megatron, DeepSpeed."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from opd_diag.runs.disk import Disk
from opd_diag.runs.holdings import SAVE_AGAIN, Place, Weights, with_config

NEEDS_MERGE = "NEEDS_MERGE"

RANK_FILE = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt", re.ASCII)
"""World size and rank: a shard of verl and SkyRL."""

ACCELERATE = "pytorch_model_fsdp_0"
"""The folder inside a checkpoint that accelerate puts the shards of FSDP in."""

METADATA = ".metadata"
"""Says which part of which tensor of a distributed checkpoint lies where."""

LORA_META = "lora_train_meta.json"
"""Beside shards of verl with an adapter: how it is scaled. Where they hold that alone, its base must be named."""

ZERO_SCRIPT = "zero_to_fp32.py"

_MOST = 10


def sharded(disk: Disk, folder: Path, configs: Sequence[Place], out: str) -> Weights | None:
    """Tell which trainer's own weights a folder holds; None when it has none.

    Parameters as :func:`~opd_diag.runs.weights.classify_weights`.
    """
    names = disk.names(folder)
    return (
        _ranks(disk, folder, names, (folder / "huggingface", *configs))
        or _distributed(disk, folder, names, configs, out)
        or _inside(disk, folder, names, configs, out)
        or _megatron(disk, folder, names, out)
        or _deepspeed(folder, names, out)
    )


def mended(command: str, out: str, *, clone: str = "", after: str = "") -> str:
    """Tell what to run, and how its result is used.

    Parameters
    ----------
    command
        As one types it.
    out
        The folder that it makes.
    clone
        The repository in which it is run; empty: anywhere.
    after
        What is left to do then.
    """
    where = f", in a clone of {clone}" if clone else ""
    return f"Run{where}: {command}; then {f'{after} and ' if after else ''}list it with --steps 'STEP={out}'."


def unzeroed(root: Path, out: str, tag: str = "") -> str:
    """Tell how to merge what DeepSpeed saved in `root`; a `tag` names the folder in it, else it is the last one."""
    script, where = shlex.quote(str(root / ZERO_SCRIPT)), shlex.quote(str(root))
    tagged = f" --tag {shlex.quote(tag)}" if tag else ""
    command = f"python {script} {where} {shlex.quote(out)} --safe_serialization{tagged}"
    return mended(command, out, after="copy config.json and tokenizer of the model that was trained into it")


def by_slime(folder: Path, out: str, clone: str = "slime") -> str:
    """Tell how slime converts Megatron's distributed checkpoints; `clone` as of :func:`mended`."""
    where = shlex.quote(str(folder))
    command = f"python tools/convert_torch_dist_to_hf.py --input-dir {where} --output-dir {shlex.quote(out)}"
    return mended(f"{command} --origin-hf-dir HF_CHECKPOINT", out, clone=clone)


def _ranks(disk: Disk, folder: Path, names: frozenset[str], configs: Sequence[Place]) -> Weights | None:
    worlds: dict[int, dict[int, str]] = defaultdict(dict)
    for name in names:
        match = RANK_FILE.fullmatch(name)
        if match and int(match[2]) < int(match[1]):
            worlds[int(match[1])][int(match[2])] = name
    if not worlds:
        return None
    weights = Weights(
        "fsdp", tuple(folder / worlds[size][rank] for size in sorted(worlds) for rank in sorted(worlds[size]))
    )
    if len(worlds) > 1:
        return _mixed(disk, folder, weights, sorted(worlds))
    ((size, ranks),) = worlds.items()
    there = {rank for rank, name in ranks.items() if disk.stat(folder / name).st_size > 0}
    missing = size - len(there)
    if missing:
        first = ", ".join(map(str, islice((rank for rank in range(size) if rank not in there), _MOST)))
        more = f" and {missing - _MOST} more" if missing > _MOST else ""
        blocker = f"It has shards of {len(there)} of {size} ranks; missing or empty: {first}{more}."
        return weights.blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    return with_config(weights, disk, folder, configs, f"shards of {size} ranks")


def _mixed(disk: Disk, folder: Path, weights: Weights, sizes: list[int]) -> Weights:
    """Refuse shards of two saves in one folder; ``fsdp_config.json`` is of the later one."""
    said = None
    if "fsdp_config.json" in disk.names(folder):
        said = disk.json_object(folder / "fsdp_config.json")[0].get("world_size")
    stale = next(size for size in sizes if size != said)
    blocker = f"It has shards for world sizes {' and '.join(map(str, sizes))}"
    blocker += f"; fsdp_config.json says {said}." if said in sizes else "."
    others = f"{shlex.quote(str(folder))}/*_world_size_{stale}_rank_*.pt"
    return weights.blocked(
        "MIXED_SHARDS", blocker, f"Move those of the other save away: mkdir ASIDE && mv {others} ASIDE."
    )


def _distributed(disk: Disk, folder: Path, names: frozenset[str], configs: Sequence[Place], out: str) -> Weights | None:
    shards = tuple(folder / name for name in sorted(names) if name.endswith(".distcp"))
    if not shards and METADATA not in names:
        return None
    if not names.isdisjoint({"metadata.json", "common.pt"}):
        return _of_megatron(folder, "a Megatron distributed checkpoint", shards, out)
    lacking = METADATA if METADATA not in names else ".distcp file" if not shards else None
    if lacking:
        there = f"{len(shards)} .distcp files" if shards else METADATA
        blocker = f"It has {there} but no {lacking}: the save was interrupted."
        return Weights("distributed", shards).blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    weights = Weights("distributed", (folder / METADATA, *shards))
    return with_config(weights, disk, folder, configs, "a torch distributed checkpoint")


def _inside(disk: Disk, folder: Path, names: frozenset[str], configs: Sequence[Place], out: str) -> Weights | None:
    if ACCELERATE not in names:
        return None
    inner = folder / ACCELERATE
    found = _distributed(disk, inner, frozenset(disk.entries(inner)), (folder, *configs), out)
    if found is None:
        blocker = f"{ACCELERATE} in it holds no shards: the save was interrupted."
        found = Weights("distributed").blocked("INCOMPLETE_WEIGHTS", blocker, SAVE_AGAIN)
    return replace(found, folder=inner)


def _megatron(disk: Disk, folder: Path, names: frozenset[str], out: str) -> Weights | None:
    ranks = sorted(name for name in names if re.fullmatch(r"mp_rank_[\d_]+", name))
    files = tuple(folder / n / "model_optim_rng.pt" for n in ranks if "model_optim_rng.pt" in disk.names(folder / n))
    return _of_megatron(folder, "Megatron shards, a folder a rank", files, out) if files else None


def _of_megatron(folder: Path, what: str, files: tuple[Path, ...], out: str) -> Weights:
    way_out = by_slime(folder, out, clone="slime (other trainers have tools of their own)")
    blocker = f"It holds {what}, not Hugging Face weights."
    return Weights("other", files).blocked(NEEDS_MERGE, blocker, way_out)


def _deepspeed(folder: Path, names: frozenset[str], out: str) -> Weights | None:
    shards = {n for n in names if n.startswith("zero_pp_rank_") or re.fullmatch(r"mp_rank_\d+_model_states\.pt", n)}
    if ZERO_SCRIPT in names:
        way_out = unzeroed(folder, out)
    elif shards:
        way_out = unzeroed(folder.parent, out, tag=folder.name)
    else:
        return None
    files = tuple(folder / name for name in sorted(shards))
    blocker = "It holds DeepSpeed shards, not Hugging Face weights."
    return Weights("other", files).blocked(NEEDS_MERGE, blocker, way_out)
