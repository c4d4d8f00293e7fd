"""Scalars out of TensorBoard's event files, with the package of that name, which is an extra."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError, MissingExtra
from opd_diag.runs.logged.lines import Logs

EXTRA = "tensorboard"

_ARGUMENTS = "args/text_summary"
"""Where Hugging Face's TensorBoard callback writes the training arguments, as JSON, before anything else."""

_EARLY = 20
"""Values of a file among which the arguments are looked for."""


def scalars(path: Path) -> Logs:
    """Read the scalars of an event file, one record a (step, tag), up to where it is cut short or damaged.

    Raises
    ------
    MissingExtra
        The package is not installed.
    InputError
        The file cannot be read.
    """
    package = _package()
    found = []
    for event, value in _values(package, path):
        content = _content(package, value) if value.metadata.plugin_data.plugin_name == "scalars" else None
        if isinstance(content, (int, float)) and event.step >= 0:
            found.append((event.step, {value.tag: float(content) if math.isfinite(content) else math.nan}))
    return found


def arguments(path: Path) -> dict[str, Any]:
    """Read the training arguments that Hugging Face's callback wrote to an event file; empty where it has none.

    Raises
    ------
    MissingExtra, InputError
        As :func:`scalars`.
    """
    package = _package()
    for _, value in itertools.islice(_values(package, path), _EARLY):
        if value.tag == _ARGUMENTS:
            try:
                read = json.loads(_content(package, value) or "{}")
            except (ValueError, TypeError, RecursionError):
                return {}
            return read if isinstance(read, dict) else {}
    return {}


def _package() -> dict[str, Any]:
    try:
        return {
            "loader": importlib.import_module("tensorboard.backend.event_processing.event_file_loader"),
            "tensor_util": importlib.import_module("tensorboard.util.tensor_util"),
            "message": importlib.import_module("google.protobuf.message"),
        }
    except ModuleNotFoundError as error:
        raise MissingExtra("tensorboard", extra=EXTRA) from error


def _content(package: dict[str, Any], value: Any) -> Any:
    """Give the one number or text of a value; None where it holds anything else."""
    try:
        return package["tensor_util"].make_ndarray(value.tensor).item()
    except (ValueError, TypeError, KeyError):
        return None


def _values(package: dict[str, Any], path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        with path.open("rb"):
            pass
        for event in package["loader"].EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield event, value
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error
    except package["message"].DecodeError:  # what follows damage is unreadable too; what came before stands
        return
