"""What ``--device`` and ``--device-map`` name: a device, or a device for each module of a model.

A map that puts all on one device is that device: nothing is spread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opd_diag.errors import InputError

NAMES = ("auto", "balanced", "sequential")
"""``auto``: one GPU where the model has room there, else as ``balanced``."""

ROLES = ("student", "teacher")
"""A device map may name another one for each."""

Spread = dict[str, int | str]
"""A device for each module: the number of a GPU, or ``cpu``."""

DeviceMap = str | Spread


@dataclass(frozen=True)
class Sharded:
    """A shard of every layer in each of several processes (:mod:`opd_diag.inference.sharding`)."""

    ranks: int
    """How many; rank n has GPU n, where there are any."""


Wanted = DeviceMap | Sharded


def resolve_device(device: str) -> torch.device:
    """Give the device of a name; ``auto`` takes CUDA where it is there.

    Raises
    ------
    InputError
        The name is no device, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        if target.type not in ("cpu", "cuda"):  # mps has no float64
            raise RuntimeError(target.type)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:  # the second is what a torch built without CUDA raises
        raise InputError(f"Device '{device}' is not available here. Use --device cpu or --device auto.") from error
    return target


def device_type(device: str) -> str:
    """Give ``cpu`` or ``cuda``: of a named device by its name, as it may be another machine's; of ``auto``, of ours."""
    return resolve_device(device).type if device == "auto" else device.partition(":")[0]


def read_device_maps(text: str | None) -> dict[str, DeviceMap]:
    """Read ``--device-map``: one map for both models, or one for each that is named.

    Parameters
    ----------
    text
        One of `NAMES`, a device, JSON of {module: device} or of {"student": map, "teacher": map}, or a file of it.

    Returns
    -------
    dict
        By role; devices are there, and are numbers of GPUs or ``cpu``.

    Raises
    ------
    InputError
        It is none of these, names a device that is not there, or the disk.
    """
    if text is None:
        return {}
    value = _parsed(text)
    if isinstance(value, dict) and value and {*value} <= {*ROLES}:
        return {role: checked_map(each) for role, each in value.items()}
    return dict.fromkeys(ROLES, checked_map(value))


def wanted_places(text: str | None, tensor_parallel: int | None) -> dict[str, Wanted]:
    """Read ``--device-map``, and put the teacher in so many shards if there are to be any, whatever the map says."""
    return {**read_device_maps(text), **({"teacher": Sharded(tensor_parallel)} if tensor_parallel else {})}


def normal_form(device: str, text: str | None) -> tuple[str, str | None]:
    """Give ``--device`` and ``--device-map`` so that the first is where students compute.

    A map of one device is that device, and a map of the teacher alone names its device where that is another one.
    """
    maps = read_device_maps(text)
    if not maps:
        return device, None
    own = str(resolve_device(device))
    student, teacher = (maps.get(role, own) for role in ROLES)
    if isinstance(student, dict) or student in NAMES:
        return "auto", json.dumps({"student": student, "teacher": teacher})
    return student, None if teacher == student else json.dumps({"teacher": teacher})


def checked_map(value: Any) -> DeviceMap:
    """Check the map of one model; a map of one device becomes that device.

    Raises
    ------
    InputError
        As of :func:`read_device_maps`.
    """
    if isinstance(value, str) and value in NAMES:
        return value
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(resolve_device(called(_device(value))))
    if not isinstance(value, dict) or not value:
        raise InputError(
            f"--device-map must be {', '.join(NAMES)}, a device, or JSON of {{module: device}}, found {value!r}."
        )
    spread = {module: _device(device) for module, device in value.items()}
    return one_device(spread) or spread


def called(device: int | str) -> str:
    """Give the name of a device as torch has it."""
    return f"cuda:{device}" if isinstance(device, int) else device


def one_device(spread: Spread) -> str | None:
    """Give the device that all modules are on; None where there are several."""
    devices = {*spread.values()}
    return called(devices.pop()) if len(devices) == 1 else None


def _parsed(text: str) -> Any:
    """Give a name, or what JSON says."""
    stripped = text.strip()
    try:
        if stripped[:1] in ("{", '"'):
            return json.loads(stripped)
        path = Path(stripped).expanduser()
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else stripped
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--device-map is no JSON: {error}.") from error


def _device(value: Any) -> int | str:
    """Check a device; give the number of a GPU, or ``cpu``."""
    if value == "disk":
        raise InputError(
            "--device-map puts a part on the disk, where it would be read from the checkpoint's files at every pass. "
            'Put it on "cpu", use --dtype bfloat16, or spread the model over more devices.'
        )
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InputError(f'--device-map must name devices as 0, "cuda:0" or "cpu", found {value!r}.')
    device = resolve_device(called(value))
    if device.type == "cpu":
        return "cpu"
    return torch.cuda.current_device() if device.index is None else device.index
