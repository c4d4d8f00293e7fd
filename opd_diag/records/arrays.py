"""Named arrays in one safetensors file: written without a copy, mapped and not read.

Scores and hidden states outgrow memory long before they outgrow disks. Writing goes array by array to the file, reading
maps it: only what is looked at is loaded, and the system may drop it again.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from opd_diag.errors import StoreError
from opd_diag.records.files import replaced_whole, unwritable

METADATA_KEY = "opd-diag"
"""Key of the file's metadata: JSON of what is said about the arrays."""

IN_MEMORY = 2**20
"""Bytes of an array up to which :func:`scratch` takes memory."""

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_NAMES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_OF = {np.dtype(kind): name for name, kind in _NAMES.items()}


def save_arrays(path: Path, arrays: Mapping[str, Array], about: dict[str, Any] | None = None) -> None:
    """Write arrays, and what is said about them, whole or not at all.

    Raises
    ------
    StoreError
        The folder cannot be written to, or the disk is full.
    """
    header: dict[str, Any] = (
        {} if about is None else {"__metadata__": {METADATA_KEY: json.dumps(about, sort_keys=True)}}
    )
    # The widest first, as readers of the format expect aligned numbers.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    start = 0
    for name, array in ordered:
        stop = start + array.nbytes
        header[name] = {"dtype": _OF[array.dtype], "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replaced_whole(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            if array.size:  # an empty one has no memory to look at
                file.write(np.ascontiguousarray(array).data.cast("B"))


def load_arrays(path: Path) -> Arrays:
    """Map the arrays of :func:`save_arrays`; writing to them does not reach the file.

    Raises
    ------
    StoreError
        The file is missing or damaged.
    """
    return load_described(path)[0]


def load_described(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Map the arrays of :func:`save_arrays`, and give what was said about them.

    Raises
    ------
    StoreError
        The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as checked:  # refuses a header that does not fit the file
            about = json.loads((checked.metadata() or {}).get(METADATA_KEY, "{}"))
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        # Writable but private: torch warns of arrays that may not be written to.
        bytes_ = np.asarray(np.memmap(path, mode="c", offset=0))[8 + length :]
        return {name: _view(bytes_, **entry) for name, entry in header.items()}, about
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no readable file of arrays: {error}. Delete it and run report again.") from error


def _view(bytes_: Array, dtype: str, shape: list[int], data_offsets: list[int]) -> Array:
    return bytes_[slice(*data_offsets)].view(_NAMES[dtype]).reshape(shape)


def scratch(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Give an array to fill: in memory while it is small, else in a file that is gone when the array is.

    Raises
    ------
    StoreError
        The folder for temporary files is full or cannot be written to.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype=kind)
    try:
        with tempfile.TemporaryFile() as file:
            # Claim the room now: a mapped file that finds the disk full later ends the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, dtype=kind, mode="r+", shape=shape))
    except OSError as error:
        way_out = "Set TMPDIR to a folder with room."
        raise unwritable(Path(tempfile.gettempdir()), error, way_out) from error
