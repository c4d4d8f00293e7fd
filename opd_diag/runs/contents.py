"""What a file of a checkpoint holds, told by digests of all of it: of safetensors, one for every tensor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from opd_diag.errors import CheckpointError
from opd_diag.records.files import content_key
from opd_diag.runs.integrity import HEADER_LIMIT

PIECE = 2**22
"""Bytes that are read at a time; whoever wants to stop waits for one of them at most."""

Stop = Callable[[], bool]
"""Whether to read no further."""


class Stopped(Exception):
    """Reading was stopped before the end of a file."""


class Stamp(NamedTuple):
    """What the system says of a file. While it is equal, nothing is known to have written to it."""

    size: int
    inode: int
    modified_ns: int
    changed_ns: int
    """When its name, links, permissions or content last changed."""

    @classmethod
    def of(cls, file: str | Path) -> Stamp:
        """Ask the system."""
        found = os.stat(file)
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    def same_bytes(self, other: Stamp) -> bool:
        """Whether nothing wrote between the two; a new link or other permissions are no writing."""
        return self[:3] == other[:3]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    dtype: str
    """As the format names it: ``F32``, ``BF16``, …"""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""
    size: int
    """In bytes."""
    digest: str = ""
    """SHA-256 of its bytes."""


@dataclass(frozen=True)
class FileContent:
    """What one file holds."""

    stamp: Stamp
    """Of the file when it was read."""
    digest: str
    """Of safetensors: a key of the names, types, shapes and digests of all tensors, in whatever order they lie. Of any
    other file: the SHA-256 of its bytes."""
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    """By name; empty unless the file is whole safetensors."""


def read_content(file: Path, stop: Stop = lambda: False) -> FileContent:
    """Read a file from end to end and give the digests of what it holds.

    Raises
    ------
    OSError
        It cannot be read.
    CheckpointError
        Something wrote to it meanwhile.
    Stopped
        `stop` said so.
    """
    stamp = Stamp.of(file)
    with file.open("rb") as handle:
        table = _table(handle, stamp.size) if file.suffix == ".safetensors" else None
        if table is None:
            handle.seek(0)
            content = FileContent(stamp, _digest(handle, stamp.size, stop))
        else:
            content = _of_tensors(stamp, {name: _digested(handle, t, stop) for name, t in table})
    refuse_changed(file, stamp)
    return content


def refuse_changed(file: Path, expected: Stamp) -> None:
    """Refuse a file that something wrote to, or took away.

    Raises
    ------
    CheckpointError
        As said.
    """
    try:
        found = Stamp.of(file)
    except OSError as error:
        raise changed(file, f"it is gone ({error.strerror})") from error
    if not found.same_bytes(expected):
        sizes = f"from {expected.size:,} to {found.size:,} bytes"
        raise changed(file, sizes if found.size != expected.size else "written anew, with equally many bytes")


def changed(file: Path, how: str) -> CheckpointError:
    """Give the error of a file that did not stay what it was while it was read."""
    return CheckpointError(
        f"{file} changed while it was read: {how}. Something else writes there. Wait until it has finished (or take "
        "the copy that it does not write to), then run the same command again."
    )


def _table(handle: BinaryIO, size: int) -> list[tuple[str, StoredTensor]] | None:
    """Give the tensors of a safetensors file in the order in which they lie; None if it is not whole."""
    length = int.from_bytes(handle.read(8), "little")
    if not 2 <= length <= min(HEADER_LIMIT, size - 8):
        return None
    try:
        entries = json.loads(handle.read(length))
        tensors = [(name, _entry(entry, 8 + length)) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    tensors.sort(key=lambda pair: (pair[1].start, pair[1].size))
    ends = [8 + length, *(t.start + t.size for _, t in tensors)]
    in_place = all(t.start == end for (_, t), end in zip(tensors, ends, strict=False))
    return tensors if in_place and ends[-1] == size else None


def _entry(entry: Any, begin: int) -> StoredTensor:
    first, last = map(int, entry["data_offsets"])
    if not 0 <= first <= last:
        raise ValueError(entry)
    return StoredTensor(str(entry["dtype"]), tuple(map(int, entry["shape"])), begin + first, last - first)


def _of_tensors(stamp: Stamp, tensors: dict[str, StoredTensor]) -> FileContent:
    key = content_key(sorted([name, t.dtype, t.shape, t.digest] for name, t in tensors.items()))
    return FileContent(stamp, key, tensors)


def _digested(handle: BinaryIO, tensor: StoredTensor, stop: Stop) -> StoredTensor:
    handle.seek(tensor.start)
    return replace(tensor, digest=_digest(handle, tensor.size, stop))


def _digest(handle: BinaryIO, size: int, stop: Stop) -> str:
    digest = hashlib.sha256()
    for piece in pieces(handle, size):
        if stop():
            raise Stopped
        digest.update(piece)
    return digest.hexdigest()


def pieces(handle: BinaryIO, size: int) -> Iterator[memoryview]:
    """Give the next `size` bytes of a file in pieces, each valid until the next is asked for.

    They are read, not mapped: a mapped file that another process cuts short kills whoever looks at it.

    Raises
    ------
    CheckpointError
        The file ends before.
    """
    buffer = memoryview(bytearray(min(PIECE, size)))
    for first in range(0, size, PIECE):
        part = buffer[: min(PIECE, size - first)]
        if handle.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise changed(Path(handle.name), f"it ends {size - first:,} bytes early")
        yield part
