"""Models whose modules accelerate moves about: where a module computes, and its weights while they lie elsewhere.

accelerate spreads a model over devices by hooks: each brings what a module is given to the device where it computes,
and the module's weights too where they are kept in the memory of the CPU, or in files, between two passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def has_hooks(model: nn.Module) -> bool:
    """Whether accelerate moves anything of a model."""
    return any(hasattr(module, _HOOK) for module in model.modules())


def runs_on(module: nn.Module) -> torch.device:
    """Give where a module computes, wherever its weights are kept meanwhile."""
    for hook in _hooks(module):
        if getattr(hook, "execution_device", None) is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device


def first_device(model: nn.Module) -> torch.device:
    """Give where the first of the modules of a model that own weights computes."""
    return runs_on(next(module for module in model.modules() if module._parameters))


def brought(module: nn.Module) -> AbstractContextManager[None]:
    """Have the weights of a module inside where it computes; outside, where they are kept."""
    if not any(parameter.device.type == "meta" for parameter in module.parameters(recurse=False)):
        return nullcontext()
    from accelerate.utils import align_module_device

    aligned: AbstractContextManager[None] = align_module_device(module)
    return aligned


def own_kept(model: nn.Module) -> None:
    """Give weights that are kept in the memory of the CPU between passes memory of their own.

    accelerate knows tied weights by the addresses they had, which whatever is read later may be given: it forgets them.
    """
    for state in {id(state): state for module in model.modules() for state in _kept(module)}.values():
        for name, tensor in state.items():
            state[name] = tensor.clone()
    for hook in (hook for module in model.modules() for hook in _hooks(module)):
        if getattr(hook, "tied_params_map", None):
            hook.tied_params_map.clear()


_HOOK = "_hf_hook"
"""What accelerate calls the hook of a module."""


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook = getattr(module, _HOOK, None)
    return () if hook is None else tuple(getattr(hook, "hooks", (hook,)))


def _kept(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Give the dictionaries from which the hooks of a module take weights."""
    for hook in _hooks(module):
        weights: Any = getattr(hook, "weights_map", None)
        while hasattr(weights, "dataset"):  # one that adds the name of the module
            weights = weights.dataset
        state = getattr(weights, "state_dict", weights)
        if isinstance(state, dict):
            yield state
