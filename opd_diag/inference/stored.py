"""Tensors of a safetensors file, read piece by piece into tensors that are there already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from opd_diag.runs.contents import StoredTensor, changed, pieces

_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    "BOOL": torch.bool,
}

_LOOKS, _LOOK = 8, 2**14
"""How often, and at how many bytes, a tensor is compared with its file."""


@dataclass
class Copied:
    """Counts what was read into tensors that were there already."""

    tensors: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one tensor of `size` bytes."""
        self.tensors += 1
        self.bytes += size


def fits(place: Tensor, stored: StoredTensor) -> bool:
    """Whether a stored tensor can be read into `place`: equal shape, a type that torch has, rows one after another."""
    return (
        tuple(place.shape) == stored.shape
        and stored.dtype in _TYPES
        and stored.size == place.numel() * _TYPES[stored.dtype].itemsize
        and place.is_contiguous()
    )


def read_into(place: Tensor, handle: BinaryIO, stored: StoredTensor) -> None:
    """Read a stored tensor into `place`, converted to its type and device.

    Raises
    ------
    CheckpointError
        The file ends before.
    """
    dtype, flat = _TYPES[stored.dtype], place.view(-1)
    handle.seek(stored.start)
    first = 0
    for piece in pieces(handle, stored.size):
        values = torch.frombuffer(piece, dtype=dtype)
        flat[first : first + len(values)].copy_(values)
        first += len(values)


def looks_like(place: Tensor, handle: BinaryIO, stored: StoredTensor) -> bool:
    """Whether `place` holds what the file says, in pieces spread over it: not transposed, not permuted, not scaled."""
    dtype, flat = _TYPES[stored.dtype], place.view(-1)
    for first, count in _spread(place.numel(), _LOOK // dtype.itemsize):
        piece = bytearray(count * dtype.itemsize)
        handle.seek(stored.start + first * dtype.itemsize)
        if handle.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise changed(Path(handle.name), "it ends early")
        values = torch.frombuffer(piece, dtype=dtype).to(flat.dtype)
        if not torch.equal(flat[first : first + count].cpu(), values):
            return False
    return True


def _spread(length: int, piece: int) -> Iterator[tuple[int, int]]:
    if length <= piece * _LOOKS:
        yield from [(0, length)] if length else []
    else:
        yield from ((i * (length - piece) // (_LOOKS - 1), piece) for i in range(_LOOKS))
