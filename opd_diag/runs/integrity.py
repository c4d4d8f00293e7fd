"""Whether a safetensors file is whole, told from its header and its size alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

HEADER_LIMIT = 100_000_000
"""Bytes; the format allows no longer header, and a length above it is no length."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def file_damage(path: Path) -> str | None:
    """Say what is wrong with a safetensors file; None when its header accounts for every byte of it.

    The file starts with the length of a JSON header (8 bytes, little-endian); the header names the range of every
    tensor in what follows. Only the header is read.

    Raises
    ------
    OSError
        The file cannot be opened or read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    found = status.st_size
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            return "is a Git LFS pointer, not the weights themselves"
        length = int.from_bytes(start[:8], "little")
        if len(start) >= 8 and not 2 <= length <= HEADER_LIMIT:
            return f"is damaged: no safetensors header (it would be {length} bytes long)"
        if found < 8 + length:
            return f"is truncated: expected at least {8 + max(length, 2)} bytes, found {found}"
        file.seek(8)
        header = file.read(length)
    end = _end_of_tensors(header)
    if end is None:
        return "is damaged: its header is no table of tensors"
    expected = 8 + length + end
    if found < expected:
        return f"is truncated: expected {expected} bytes, found {found}"
    return f"is damaged: expected {expected} bytes, found {found}" if found > expected else None


def _end_of_tensors(header: bytes) -> int | None:
    try:
        table = json.loads(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in table.items() if name != "__metadata__"]
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return max(ends, default=0)
