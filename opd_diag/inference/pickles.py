"""Tensors of files that torch pickled, read without running anything that they name.

A pickle names functions, and whoever reads it calls them. Torch's reader for weights (``weights_only``) calls those on
a list alone, and here that list is ours: tensors, and for what torch writes beside them (meshes, placements, shards)
records of our own that hold what the file says and do nothing. So no process group is needed, and files of other
versions of torch are read, whose classes have other fields.

Torch mended that reader in 2.10 (CVE-2026-24747: a file made for it could write to foreign memory), so that an older
torch reads pickles only for whoever allows it. Files are read whole and not mapped: torch checks lengths only then.
"""

from __future__ import annotations

import pickle
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from opd_diag.errors import CheckpointError
from opd_diag.runs.unpickling import unsafe_torch

DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(MemoryError, OverflowError, ImportError),
)
"""What a file that is cut short or nonsense ends in."""

_LOCK = threading.RLock()


class Record:
    """Stands for an object of torch: it holds what the file says of it, and does nothing."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Parted(torch.Tensor):
    """Stands for a tensor that is in parts: its shape is that of the whole, `state` holds the part of this file."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Refuse to be computed with."""
        raise TypeError(f"{func} of a tensor that is in parts")


def field(record: Any, name: str) -> Any:
    """Give what a record, or the state of one, says for a field; None where it says nothing."""
    state = record.state if isinstance(record, Record) else record
    found: list[Any] = [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, dict)]
    return next((part[name] for part in found if name in part), None)


def kind_of(record: Any) -> str:
    """Name the class of torch that a record stands for, as ``Replicate``."""
    return type(record).__name__


def records_for(names: Mapping[str, tuple[str, ...]]) -> dict[str, type[Record]]:
    """Make a class of records for each class of torch.

    Parameters
    ----------
    names
        Classes by module.

    Examples
    --------
    >>> sorted(records_for({"torch.x": ("Mesh", "Shard")}))
    ['torch.x.Mesh', 'torch.x.Shard']
    """
    return {f"{module}.{name}": _named(module, name, Record) for module, some in names.items() for name in some}


def _named(module: str, name: str, stand_in: type[Any]) -> type[Any]:
    """Make a class that has the name of one of torch's, by which torch's reader looks it up."""
    return type(name, (stand_in,), {"__module__": module})


_PLACEMENTS = ("Shard", "Replicate", "Partial", "_Partial", "_StridedShard")

_RECORDS = records_for(
    {
        "torch.distributed.device_mesh": ("DeviceMesh",),
        "torch.distributed._mesh_layout": ("_MeshLayout", "_FlatLayout"),
        "torch.distributed.tensor.placement_types": _PLACEMENTS,
        "torch.distributed.tensor._dtensor_spec": ("DTensorSpec", "TensorMeta", "ShardOrderEntry"),
        "torch.distributed._tensor.placement_types": (*_PLACEMENTS, "DTensorSpec", "TensorMeta"),
        "torch.distributed._shard.metadata": ("ShardMetadata",),
        "torch.distributed._shard.sharded_tensor.shard": ("Shard",),
        "torch.distributed._shard.sharded_tensor.metadata": (
            *("ShardedTensorMetadata", "TensorProperties", "MEM_FORMAT_ENCODING"),
        ),
        "torch.distributed._shard.sharding_spec.chunk_sharding_spec": ("ChunkShardingSpec",),
        "torch.distributed._shard.sharding_spec.api": ("EnumerableShardingSpec",),
        "torch.distributed.remote_device": ("_remote_device",),
    }
)

_PARTED = [
    _named("torch.distributed.tensor", "DTensor", Parted),
    _named("torch.distributed.tensor._api", "DTensor", Parted),
    _named("torch.distributed._tensor.api", "DTensor", Parted),
    _named("torch.distributed._shard.sharded_tensor.api", "ShardedTensor", Parted),
]


def _attribute(owner: Any, name: str) -> type[Record]:
    """Stand for ``getattr``, by which files name a class within a class: whatever is asked for, give a record's."""
    return Record


_attribute.__module__, _attribute.__name__, _attribute.__qualname__ = "builtins", "getattr", "getattr"


def read_pickle(file: Path, *, allow_pickle: bool = False) -> Any:
    """Read a file of ``torch.save``: tensors, and records for what torch writes beside them.

    Parameters
    ----------
    file
        A file of weights.
    allow_pickle
        Whether a torch whose reader has a known hole may read it.

    Raises
    ------
    CheckpointError
        It is damaged, names something that would have to be run, or torch is too old to read it safely.
    """
    refuse_unsafe_torch(file, allow_pickle)
    try:
        with only_tensors():
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise unreadable(file, error) from error


def read_tensors(file: Path, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Read a file of ``torch.save`` that holds weights by name. Parameters and errors as of :func:`read_pickle`."""
    stored = read_pickle(file, allow_pickle=allow_pickle)
    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise CheckpointError(f"{file} holds no weights by name. Copy or save it again.", code="NO_WEIGHTS")
    return dict(stored)


@contextmanager
def only_tensors() -> Iterator[None]:
    """Let torch's reader for weights make tensors and records of ours, and nothing that this process allowed it."""
    allowed: list[Any] = [*_RECORDS.values(), *_PARTED, _attribute, Record]
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with torch.serialization.safe_globals(allowed):
                yield
        finally:
            torch.serialization.add_safe_globals(before)


def refuse_unsafe_torch(file: Path, allow_pickle: bool) -> None:
    """Refuse to read pickles with a torch that has a known hole in its reader, unless that is allowed.

    Raises
    ------
    CheckpointError
        As said.
    """
    why = None if allow_pickle else unsafe_torch()
    if why is not None:
        raise CheckpointError(
            f"{file} is a pickle, and {why}: whoever wrote the file could run code here. Update torch, or pass "
            "--allow-pickle if the run is yours.",
            code="PICKLE_REFUSED",
        )


def unreadable(file: Path, error: BaseException) -> CheckpointError:
    """Give the error of a pickle that names something that is no tensor, or that is no whole pickle."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return CheckpointError(
            f"{file} holds more than tensors ({found[1]}): reading it could run code that came with it. Load it where "
            "you trust it and save the model with save_pretrained, which writes safetensors.",
            code="PICKLE_REFUSED",
        )
    reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
    reason = "its end is missing" if _cut_short(file) else reason[:200]
    return CheckpointError(f"{file} is damaged: {reason}. Copy or save it again.", code="INCOMPLETE_WEIGHTS")


def _cut_short(file: Path) -> bool:
    """Tell whether a file of ``torch.save`` begins as one and does not end as one."""
    try:
        with file.open("rb") as handle:
            return handle.read(4) == b"PK\3\4" and not zipfile.is_zipfile(handle)
    except OSError:
        return False
