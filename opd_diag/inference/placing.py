"""Where models lie: on one device, or spread over several as transformers and accelerate do it.

A device map is settled before any weight is read, on a model without weights, and transformers is then told the device
of each module. So what it would end in is refused beforehand: modules without a device, layers torn apart, tied weights
on two devices, and parts on the disk, which accelerate would read from the checkpoint's files at every pass, whoever
wrote to them meanwhile. What has no room on GPUs stays in the memory of the CPU, and is brought to a GPU for each pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers

from opd_diag.errors import InputError, MissingExtra
from opd_diag.inference.configs import read_config
from opd_diag.inference.device_maps import (
    NAMES,
    Sharded,
    Spread,
    Wanted,
    called,
    checked_map,
    one_device,
    resolve_device,
)
from opd_diag.inference.libraries import errors_of, quiet
from opd_diag.inference.room import room_of
from opd_diag.inference.sharding import refuse_unshardable
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import readable_size
from opd_diag.runs.shapes import config_source

SHARE = 0.9
"""Part of a device's free memory that weights are spread over by `NAMES`; the rest is for what else is needed."""


def settled(
    checkpoint: Checkpoint,
    device: str,
    device_map: Wanted | None,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    taken: Mapping[int | str, int] | None = None,
) -> torch.device | Spread | Sharded:
    """Say where a checkpoint will lie; no weight is read.

    Parameters
    ----------
    checkpoint
        Which; an adapter lies where its base model does.
    device
        Where it lies without a map.
    device_map
        One of `NAMES`, a device, a device for each module, or shards of every layer.
    dtype
        Of its weights.
    trust_remote_code
        Whether code that comes with the model may run.
    taken
        Bytes by device, as a `Spread` calls it, that will not be free any more.

    Raises
    ------
    InputError
        The map does not fit the model, or there is no room for the model.
    CheckpointError
        The config cannot be read.
    MissingExtra
        The model is to be spread, and accelerate is not installed.
    """
    if device_map is None:
        return resolve_device(device)
    if isinstance(device_map, Sharded):
        refuse_unshardable(checkpoint, device_map, skeleton(checkpoint, dtype, trust_remote_code=trust_remote_code))
        return device_map
    device_map = checked_map(device_map)
    if isinstance(device_map, str) and device_map not in NAMES:
        return resolve_device(device_map)
    if device_map in NAMES and not torch.cuda.is_available():
        return resolve_device("cpu")
    accelerate = _accelerate()
    model = skeleton(checkpoint, dtype, trust_remote_code=trust_remote_code)
    if isinstance(device_map, dict):
        _refuse_unfit(device_map, model)
        return device_map
    return _inferred(accelerate, device_map, model, _rooms(taken or {}))


def skeleton(checkpoint: Checkpoint, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """Make the transformers model of a checkpoint without weights."""
    with quiet(), errors_of(checkpoint), torch.device("meta"):
        config = read_config(config_source(checkpoint), trust_remote_code=trust_remote_code)
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, dtype=dtype)
        model.tie_weights()
    return model


def weights_by_device(model: Any, spread: Spread) -> dict[int | str, int]:
    """Give the bytes of a model's weights on each device; weights used twice count once."""
    found: dict[int | str, int] = {}
    for name, parameter in model.named_parameters():
        device = _device_of(name, spread)
        assert device is not None
        found[device] = found.get(device, 0) + parameter.numel() * parameter.element_size()
    return found


def dispatched(model: Any, spread: Spread) -> Any:
    """Spread a model that is in memory."""
    stays = getattr(model, "_skip_keys_device_placement", None)
    with quiet():
        return _accelerate().dispatch_model(model, spread, skip_keys=stays)


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError as error:
        raise MissingExtra("accelerate", extra="large") from error
    return accelerate


def _rooms(taken: Mapping[int | str, int]) -> dict[int | str, int]:
    """Give the bytes of each device that weights may fill, GPUs first."""
    devices: list[int | str] = [*range(torch.cuda.device_count()), "cpu"]
    rooms = {device: room_of(torch.device(called(device))) for device in devices}
    return {
        device: max(0, round(SHARE * room.free) - taken.get(device, 0))
        for device, room in rooms.items()
        if room is not None
    }


def _inferred(accelerate: Any, name: str, model: Any, rooms: dict[int | str, int]) -> torch.device | Spread:
    """Spread a model over devices as accelerate finds that it fits."""
    needed = sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))
    roomy = [device for device, room in rooms.items() if device != "cpu" and needed <= room]
    if name == "auto" and roomy:
        return torch.device(called(roomy[0]))
    blocks, most = _unsplit(model), dict(rooms)
    with quiet():
        if name != "sequential":
            from accelerate.utils import get_balanced_memory

            most = get_balanced_memory(model, most, no_split_module_classes=blocks)
        spread: Spread = dict(accelerate.infer_auto_device_map(model, most, no_split_module_classes=blocks))
    if "disk" in spread.values():
        there = ", ".join(f"{readable_size(room)} on {called(device)}" for device, room in rooms.items())
        raise InputError(
            f"A {type(model).__name__} of {readable_size(needed)} has no room here: there are {there}, where "
            f"{1 - SHARE:.0%} is left for what else is needed. Use --dtype bfloat16, or serve the teacher elsewhere."
        )
    one = one_device(spread)
    return spread if one is None else torch.device(one)


def _unsplit(model: Any) -> list[str]:
    """Name the classes of modules that must lie on one device."""
    return sorted(getattr(model, "_no_split_modules", None) or ())


def _device_of(name: str, spread: Spread) -> int | str | None:
    """Give the device of a module or weight: that of the nearest module around it that the map names."""
    while name and name not in spread:
        name = name.rpartition(".")[0]
    return spread.get(name)


def _refuse_unfit(spread: Spread, model: Any) -> None:
    """Refuse a map that leaves a weight without a device, names what is not there, or tears apart what is one."""
    kind = type(model).__name__
    weights = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    known = {"", *weights, *(name for name, _ in model.named_modules()), *(name for name, _ in model.named_buffers())}
    unknown = [name for name in spread if name not in known]
    if unknown:
        raise InputError(
            f"--device-map names {unknown[0]}, which a {kind} does not have. Its parts are {', '.join(_parts(model))}."
        )
    missing = [name for name in weights if _device_of(name, spread) is None]
    if missing:
        raise InputError(f'--device-map gives no device to {missing[0]} of a {kind}. Add it, or "" for all the rest.')
    together = [[f"{name}.{n}" for n, _ in module.named_parameters()] for name, module in _blocks(model)]
    for names in (*together, *_tied(model)):
        devices = sorted({called(device) for name in names if (device := _device_of(name, spread)) is not None})
        if len(devices) > 1:
            raise InputError(
                f"--device-map puts {names[0]} and {names[-1]} of a {kind} on {' and '.join(devices)}; they must be on "
                "one device."
            )


def _parts(model: Any) -> Iterable[str]:
    body = model.base_model_prefix
    inner = [f"{body}.{name}" for name, _ in model.base_model.named_children()] if model.base_model is not model else []
    return [*inner, *(name for name, _ in model.named_children() if name != body)]


def _blocks(model: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if type(module).__name__ in _unsplit(model)]


def _tied(model: Any) -> list[list[str]]:
    """Give the names of weights that are one, in groups."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]
