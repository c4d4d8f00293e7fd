"""Reading pickles: tensors and plain values without running code, anything else only where the user allows it."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded.recorded_file import unreadable
from opd_diag.runs.unpickling import unsafe_torch

PICKLE_REFUSED = "PICKLE_REFUSED"
"""Code of the error for a file whose reading would run code in it."""

_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    ImportError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
)
"""What unpickling raises on a file that is damaged or needs classes that are not here."""


def load_pt(path: Path, *, allow_pickle: bool) -> Any:
    """Load a file of ``torch.save``: under ``weights_only`` first, which runs no code of the file's.

    Raises
    ------
    RolloutsError
        It cannot be read, is not whole, or needs more than `allow_pickle` allows (code ``PICKLE_REFUSED``).
    """
    import torch

    _refuse_unreadable(path)
    why = None if allow_pickle else unsafe_torch()
    if why is not None:
        raise RolloutsError(
            f"{path} is a pickle, and {why}: whoever wrote the file could run code here. Update torch, or pass "
            "--allow-pickle if the run is yours.",
            code=PICKLE_REFUSED,
        )
    if not zipfile.is_zipfile(path):
        raise _not_whole(path, "torch.save wrote no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        if not allow_pickle:
            raise refused_pickle(path) from problem
    except _BROKEN as problem:
        raise _not_whole(path, problem) from problem
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except _BROKEN as problem:
        raise _not_whole(path, problem) from problem


def load_pickle(path: Path, stand_ins: Mapping[str, Mapping[str, Any]], *, allow_pickle: bool) -> Any:
    """Load a pickle that the user allows, with classes of packages that need not be installed.

    Parameters
    ----------
    path
        The file.
    stand_ins
        Package to name to what stands for it, in whatever module of the package it is.
    allow_pickle
        Whether code in it may run.

    Raises
    ------
    RolloutsError
        It cannot be read, is not whole, or is not allowed (code ``PICKLE_REFUSED``).
    """
    if not allow_pickle:
        raise refused_pickle(path)
    _refuse_unreadable(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, stand_ins).load()
    except _BROKEN as problem:
        raise _not_whole(path, problem) from problem


def tensor_values(value: Any) -> Any:
    """Give a tensor, an array, or the form in which SkyRL pickles one, as nested lists; anything else as it is."""
    if isinstance(value, dict) and "data" in value:
        return _serialized(value)
    return value.tolist() if hasattr(value, "tolist") else value


def refused_pickle(path: Path) -> RolloutsError:
    """Give the error for a pickle that the user has not allowed."""
    return RolloutsError(
        f"Reading {path} would run code that is in the file. If the run is yours, allow it with --allow-pickle; else "
        "leave the file out.",
        code=PICKLE_REFUSED,
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader, stand_ins: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(file)
        self.stand_ins = stand_ins

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self.stand_ins.get(module.partition(".")[0], {}).get(name)
        return super().find_class(module, name) if stand_in is None else stand_in


def _serialized(value: dict[str, Any]) -> Any:
    import numpy as np

    if value.get("format") == "torch":
        import torch

        return torch.load(io.BytesIO(value["data"]), weights_only=True).tolist()
    return np.frombuffer(value["data"], dtype=np.dtype(value["dtype"])).reshape(value["shape"]).tolist()


def _refuse_unreadable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _not_whole(path: Path, problem: object) -> RolloutsError:
    reason = str(problem).strip().split("\n")[0].rstrip(".")[:200] or type(problem).__name__
    return RolloutsError(
        f"{path} cannot be loaded ({reason}). If the trainer is writing it, run the command again later; else leave "
        "the file out."
    )
