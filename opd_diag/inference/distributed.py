"""Weights of a torch distributed checkpoint, each put together by torch itself; what else is in there is not read.

``.metadata`` says which part of which tensor lies where. It is a pickle, and torch's own reader of files unpickles it
without any check; so it is read here into records that do nothing (:mod:`opd_diag.inference.pickles`), checked, and
given to torch. The parts themselves are read by torch as weights only.
"""

from __future__ import annotations

import math
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opd_diag.errors import CheckpointError
from opd_diag.inference.completeness import refuse_other_shape, some
from opd_diag.inference.pickles import (
    DAMAGED,
    Record,
    field,
    kind_of,
    only_tensors,
    records_for,
    refuse_unsafe_torch,
    unreadable,
)
from opd_diag.inference.ranks import wider
from opd_diag.runs.sharded import METADATA

_RECORDS: dict[str, Any] = records_for(
    {
        "torch.distributed.checkpoint.metadata": (
            *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
            *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
        ),
        "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
        "torch.distributed._shard.sharded_tensor.metadata": ("TensorProperties", "MEM_FORMAT_ENCODING"),
        "torch.serialization": ("_get_layout",),
        "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath"),
        "pathlib._local": ("PosixPath", "WindowsPath"),
    }
) | {"torch.Size": torch.Size, "collections.OrderedDict": OrderedDict}


class DistributedCheckpoint:
    """The weights in a folder of torch's distributed checkpoint."""

    def __init__(self, folder: Path, *, allow_pickle: bool = False) -> None:
        """Take the folder of ``.metadata``; `allow_pickle` as of :func:`~opd_diag.inference.pickles.read_pickle`."""
        self.folder, self.allow_pickle = folder, allow_pickle

    @cached_property
    def _metadata(self) -> Any:
        return read_metadata(self.folder)

    @property
    def names(self) -> list[str]:
        """Names of the tensors, as they are stored: weights, and whatever else was saved."""
        return list(self._metadata.state_dict_metadata)

    def read(self, wanted: Mapping[str, tuple[int, ...] | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """Put weights together, one after another. Parameters, result and errors as of ``RankFiles.read``."""
        for name, expected in wanted.items():
            found = tuple(self._metadata.state_dict_metadata[name].size)
            refuse_other_shape(name, found, expected, self.folder)
        files = {info.relative_path for info in self._metadata.storage_data.values()}
        for file in sorted(files):
            refuse_unsafe_torch(self.folder / file, self.allow_pickle)
        return {name: self._whole(name, dtype) for name in wanted}

    def _whole(self, name: str, dtype: torch.dtype) -> Tensor:
        from torch.distributed import checkpoint

        entry = self._metadata.state_dict_metadata[name]
        whole = torch.empty(entry.size, dtype=entry.properties.dtype)
        try:
            with only_tensors(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is ")
                checkpoint.load({name: whole}, storage_reader=_reader(self.folder, self._metadata))
        except checkpoint.CheckpointException as error:
            cause = next((failure[0] for failure in error.failures.values()), error)
            raise unreadable(self._file(name), cause) from error
        return whole.to(wider(whole.dtype, dtype))

    def _file(self, name: str) -> Path:
        """Name the file of a weight, or one of them."""
        storage = self._metadata.storage_data.items()
        return self.folder / next(info.relative_path for index, info in storage if index.fqn == name)


def _reader(folder: Path, metadata: Any) -> Any:
    """Give torch's reader of files, which takes our word for what ``.metadata`` says."""
    from torch.distributed.checkpoint import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    return Reader(folder)


class _Unpickler(pickle.Unpickler):
    """Makes records, shapes and types of numbers; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _RECORDS:
            return _RECORDS[full]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"GLOBAL {full} is not allowed")


def read_metadata(folder: Path) -> Any:
    """Read what a torch distributed checkpoint says of its tensors, and run nothing that it names.

    Returns
    -------
    torch.distributed.checkpoint.Metadata
        Of tensors alone.

    Raises
    ------
    CheckpointError
        It is damaged, names something that would have to be run, or says what cannot be.
    """
    file = folder / METADATA
    try:
        with file.open("rb") as handle:
            record = _Unpickler(handle).load()
        return _checked(record, folder)
    except (pickle.UnpicklingError, RecursionError, *DAMAGED) as error:
        if isinstance(error, CheckpointError):
            raise
        raise unreadable(file, error) from error


def _checked(record: Any, folder: Path) -> Any:
    from torch.distributed.checkpoint.metadata import Metadata

    if kind_of(record) != "Metadata":
        raise ValueError(f"it holds {kind_of(record)}, not what torch writes")
    entries = {name: _tensor(entry) for name, entry in field(record, "state_dict_metadata").items()}
    tensors = {name: entry for name, entry in entries.items() if entry is not None}
    stored = dict(_stored(index, info) for index, info in field(record, "storage_data").items())
    gone = sorted({info.relative_path for info in stored.values()} - {file.name for file in folder.iterdir()})
    if gone:
        raise CheckpointError(
            f"{folder / METADATA} names files that are not there ({some(gone)}): the save was interrupted, or the "
            "copy. Copy or save it again.",
            code="INCOMPLETE_WEIGHTS",
        )
    lacking = sorted(name for name, entry in tensors.items() if not _is_whole(name, entry, stored))
    if lacking:
        raise ValueError(f"it does not say where all of {lacking[0]} is")
    return Metadata(state_dict_metadata=dict(tensors), storage_data=stored)


def _tensor(record: Any) -> Any:
    """Make torch's entry for a tensor; None of what is no tensor."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorProperties, TensorStorageMetadata

    if kind_of(record) != "TensorStorageMetadata":
        return None
    properties, chunks = field(record, "properties"), field(record, "chunks")
    dtype = field(properties, "dtype") or properties.state[0]
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{dtype} is no type of numbers")
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=dtype),
        size=_sizes(field(record, "size")),
        chunks=[ChunkStorageMetadata(_sizes(field(c, "offsets")), _sizes(field(c, "sizes"))) for c in chunks],
    )


def _stored(index: Record, info: Record) -> tuple[Any, Any]:
    """Make torch's entry for where a part lies: within a file beside ``.metadata``, as torch itself writes it."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import MetadataIndex

    path, first, length = field(info, "relative_path"), field(info, "offset"), field(info, "length")
    if Path(path).name != path or not path.endswith(".distcp"):
        raise ValueError(f"{path} is no file of a distributed checkpoint")
    if field(info, "transform_descriptors"):
        raise ValueError(f"{path} is compressed, which is not read here")
    offset, number = field(index, "offset"), field(index, "index")
    at = MetadataIndex(str(field(index, "fqn")), None if offset is None else _sizes(offset), number)
    return at, _StorageInfo(path, *_sizes((first, length)))


def _sizes(numbers: Any) -> torch.Size:
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{numbers} are no sizes")
    return torch.Size(numbers)


def _is_whole(name: str, entry: Any, stored: Mapping[Any, Any]) -> bool:
    """Whether the parts of a tensor lie within it, are somewhere, and are all of its numbers."""
    from torch.distributed.checkpoint.metadata import MetadataIndex

    inside = all(
        len(chunk.offsets) == len(chunk.sizes) == len(entry.size)
        and all(o + n <= size for o, n, size in zip(chunk.offsets, chunk.sizes, entry.size, strict=True))
        and MetadataIndex(name, chunk.offsets) in stored
        for chunk in entry.chunks
    )
    return inside and sum(math.prod(chunk.sizes) for chunk in entry.chunks) == math.prod(entry.size)
