"""Weights of a run that was sharded over ranks, one file a rank, made whole again (verl, SkyRL).

Each file holds, by name, this rank's part of every weight and where it belongs. Files are read one after another and
their parts copied into place, so that at most one rank's part is in memory beside the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opd_diag.errors import CheckpointError
from opd_diag.inference.completeness import refuse_other_shape, some
from opd_diag.inference.pickles import Parted, field, kind_of, read_tensors


@dataclass(frozen=True)
class _Part:
    """A part of a weight, and where it belongs."""

    values: Tensor
    dim: int | None = None
    """The dimension that is cut, where only the place in line is known."""
    line: int = 0
    """Place in line along `dim`."""
    offsets: tuple[int, ...] | None = None
    """Where it begins in the whole, where that is known."""


class RankFiles:
    """The weights in the files of all ranks."""

    def __init__(self, files: Sequence[Path], *, allow_pickle: bool = False) -> None:
        """Take the files in order of rank; `allow_pickle` as of :func:`~opd_diag.inference.pickles.read_pickle`."""
        self.files, self.allow_pickle = list(files), allow_pickle

    @cached_property
    def _first(self) -> dict[str, Any]:
        return read_tensors(self.files[0], allow_pickle=self.allow_pickle)

    @property
    def names(self) -> list[str]:
        """Names of the weights, as they are stored."""
        return [name for name, value in self._first.items() if isinstance(value, Tensor)]

    def read(self, wanted: Mapping[str, tuple[int, ...] | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """Put weights together, once: parts are forgotten when they are in place.

        Parameters
        ----------
        wanted
            By stored name, the shape that it must have; None where nothing is known of it.
        dtype
            Weights of fewer bits are widened to it.

        Returns
        -------
        dict of str to Tensor
            By stored name, in memory of their own.

        Raises
        ------
        CheckpointError
            A file cannot be read, holds other weights than the first, or is cut in a way that is not known here; or
            parts are missing.
        """
        wholes = {name: _Whole(name, self.files[0].parent, shape, dtype) for name, shape in wanted.items()}
        names = set(self._first)
        for number, file in enumerate(self.files):
            stored = self._first if number == 0 else read_tensors(file, allow_pickle=self.allow_pickle)
            if set(stored) != names:
                other = sorted(set(stored) ^ names)
                raise CheckpointError(
                    f"{file} and {self.files[0].name} do not hold the same weights ({some(other)}): they are of two "
                    "saves. Copy or save the checkpoint again."
                )
            for name, whole in wholes.items():
                whole.add(stored.pop(name), file)
        return {name: whole.finished(len(self.files)) for name, whole in wholes.items()}


class _Whole:
    """One weight that grows from its parts."""

    def __init__(self, name: str, folder: Path, shape: tuple[int, ...] | None, dtype: torch.dtype) -> None:
        self.name, self.folder, self.expected, self.dtype = name, folder, shape, dtype
        self.values: Tensor | None = None
        self.copies: list[Tensor] = []
        """Of a weight that says nothing of parts: one a rank."""
        self.filled: dict[tuple[int, ...], int] = {}
        """How many numbers lie at which offsets."""
        self.step = 0
        """Rows of the first in line, and so of all but the last."""

    def add(self, value: Any, file: Path) -> None:
        """Put the parts of one rank in place."""
        if not isinstance(value, Parted):
            self.copies.append(value.detach())
            return
        shape = tuple(value.shape)
        refuse_other_shape(self.name, shape, self.expected, file)
        for part in _parts(value, file, self.name):
            offsets, values = self._offsets(part, shape, file), part.values.detach()
            if not values.numel():
                continue
            if self.values is None:
                self.values = torch.empty(shape, dtype=wider(values.dtype, self.dtype))
            place = tuple(slice(o, o + n) for o, n in zip(offsets, values.shape, strict=True))
            if self.values[place].shape != values.shape:
                raise CheckpointError(f"{file}: a part of {self.name} lies outside of it. Save the checkpoint again.")
            self.values[place] = values
            self.filled[offsets] = values.numel()

    def finished(self, ranks: int) -> Tensor:
        """Give the weight, every number of it found."""
        if self.copies:
            return self._of_copies(ranks)
        found = sum(self.filled.values())
        if self.values is None or found != self.values.numel():
            n = 0 if self.values is None else self.values.numel()
            raise CheckpointError(
                f"{self.folder} has {found:,} of {n:,} numbers of {self.name}: a rank's part is missing. Copy or save "
                "the checkpoint again."
            )
        return self.values

    def _offsets(self, part: _Part, shape: tuple[int, ...], file: Path) -> tuple[int, ...]:
        if part.offsets is not None:
            return part.offsets
        if part.dim is None:
            return (0,) * len(shape)
        rows = part.values.shape[part.dim]
        if part.line == 0:
            self.step = rows
        first = min(part.line * self.step, shape[part.dim])
        if rows != min(self.step, shape[part.dim] - first):
            raise CheckpointError(f"{file}: {self.name} is not cut into equal parts. Save the checkpoint again.")
        return tuple(first if d == part.dim else 0 for d in range(len(shape)))

    def _of_copies(self, ranks: int) -> Tensor:
        """Give a weight that says nothing of parts: the same on all ranks, or else rows of each."""
        first, shape = self.copies[0], self.expected
        if self.values is not None or len(self.copies) != ranks:
            raise CheckpointError(f"{self.folder}: {self.name} is in parts on some ranks only. Save it again.")
        alike = all(torch.equal(first, other) for other in self.copies[1:])
        if alike and shape in (None, tuple(first.shape)):
            whole = first
        elif first.dim():
            whole = torch.cat(self.copies)
        else:
            raise CheckpointError(f"{self.folder}: ranks disagree about {self.name}. Save the checkpoint again.")
        return whole.to(wider(whole.dtype, self.dtype)).contiguous()


def wider(stored: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """Give the type in which to keep a stored tensor: `wanted` where that loses nothing.

    Examples
    --------
    >>> wider(torch.bfloat16, torch.float32), wider(torch.float32, torch.bfloat16), wider(torch.int64, torch.float32)
    (torch.float32, torch.float32, torch.int64)
    """
    return wanted if stored.is_floating_point and stored.itemsize < wanted.itemsize else stored


def _parts(value: Parted, file: Path, name: str) -> list[_Part]:
    """Read what a file says of its part of a weight: a DTensor on a mesh, or the older ShardedTensor."""
    spec = field(value.state, "_spec")
    if spec is None:
        shards = value.state[0] if isinstance(value.state, tuple) and value.state else None
        return [_shard(shard) for shard in shards] if isinstance(shards, list) else _unknown(file, name, "its form")
    placements, line = field(spec, "placements"), field(field(spec, "mesh"), "_coordinate_on_dim")
    local = field(value.state, "_local_tensor")
    if not isinstance(local, Tensor) or line is None or len(line) != len(placements):
        return _unknown(file, name, "its mesh")
    cuts = [(p, i) for p, i in zip(placements, line, strict=True) if kind_of(p) != "Replicate"]
    if len(cuts) > 1 or any(kind_of(p) != "Shard" for p, _ in cuts):
        return _unknown(file, name, ", ".join(kind_of(p) for p in placements))
    if not cuts:
        return [_Part(local)]
    placement, place = cuts[0]
    return [_Part(local, int(field(placement, "dim")), int(place))]


def _shard(shard: Any) -> _Part:
    return _Part(field(shard, "tensor"), offsets=tuple(map(int, field(field(shard, "metadata"), "shard_offsets"))))


def _unknown(file: Path, name: str, what: str) -> list[_Part]:
    raise CheckpointError(
        f"{file}: {name} is cut in a way that is not read here ({what}): merge the checkpoint with the trainer's own "
        "tool."
    )
