"""Two GPUs that are not there: tensors compute on the CPU and are said to lie on devices that must not be mixed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

CPU = torch.device("cpu")


class Mixed(AssertionError):
    """An operation had tensors of two devices."""


class TwoDevices(TorchFunctionMode):
    """Keeps the device of each tensor, moves it by ``to`` and refuses what torch would: the numbers are real.

    As on real GPUs, single numbers and places to look at may come from the CPU, and a copy may go anywhere. Parameters
    that were not laid anywhere are made of what was, which torch does not say.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where: Any = WeakIdKeyDictionary()
        self.moved_between = 0
        """Tensors that went from one GPU to another."""

    def device_of(self, tensor: Tensor) -> torch.device:
        return self.where.get(tensor, CPU)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return self.device_of(args[0])
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(func, args, kwargs)
        asked = kwargs.pop("device", None)
        found = func(*args, **kwargs)
        if asked is not None:
            device = torch.device(asked)
        elif func in (Tensor.copy_, Tensor.__setitem__):
            device = self.device_of(args[0])
        else:
            device = self._common(func, args, kwargs)
        return self._claimed(found, device)

    def _moved(self, func, args, kwargs):
        tensor, *others = args
        target = kwargs.pop("device", None) or (CPU if func is Tensor.cpu else None)
        others = [x for x in others if not (isinstance(x, (torch.device, str)) and (target := torch.device(x)))]
        found = Tensor.to(tensor, *others, **kwargs) if others or kwargs else tensor
        target = self.device_of(tensor) if target is None else torch.device(target)
        if target != self.device_of(tensor):
            self.moved_between += {target.type, self.device_of(tensor).type} == {"cuda"}
            found = found.clone() if found is tensor else found
        return self._claimed(found, target)

    def _common(self, func, args, kwargs) -> torch.device:
        devices: dict[torch.device, Tensor] = {}
        for tensor in _tensors((args, kwargs)):
            if tensor in self.where or (tensor.dim() and not isinstance(tensor, Parameter)):
                devices.setdefault(self.device_of(tensor), tensor)
        if func is Tensor.__getitem__ and self.device_of(args[0]) != CPU:
            devices.pop(CPU, None)
        if len(devices) > 1:
            raise Mixed(f"{getattr(func, '__name__', func)} of {sorted(map(str, devices))}")
        return next(iter(devices), CPU)

    def _claimed(self, found, device):
        for tensor in _tensors(found):
            self.where[tensor] = device
        return found


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def on_two(monkeypatch) -> TwoDevices:
    """Give the devices; oneDNN's products, which no device but the CPU has, are left out."""
    monkeypatch.setattr("opd_diag.inference.model.fast_linear", nullcontext)
    monkeypatch.setattr("opd_diag.inference.linear.AVAILABLE", False)
    return TwoDevices()


def spread(devices: TwoDevices, hf, **where: str):
    """Lay modules, by a part of their names, on devices with the hooks of accelerate; all others on the first."""
    for name, module in hf.named_modules():
        device = next((d for part, d in where.items() if f".{part.replace('__', '.')}." in f".{name}."), "cuda:0")
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in own:
            devices.where[tensor] = torch.device(device)
        if own or name.count(".") == 2:
            hook = AlignDevicesHook(torch.device(device), skip_keys=hf._skip_keys_device_placement)
            with devices:
                add_hook_to_module(module, hook)
    return hf
