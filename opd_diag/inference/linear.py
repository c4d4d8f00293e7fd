"""Matrix products in float32 at the speed of the processor.

On a CPU, torch multiplies float32 matrices with a library that leaves half of the speed of some processors unused; its
other one, oneDNN, does not, and adds up in float32 just the same. Within :func:`fast_linear` every linear layer is
computed by it, whatever model it belongs to. Elsewhere, and in other precisions, nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

AVAILABLE = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
"""Whether this build of torch has it. Decided by the build alone, never by a race against the clock: equal inputs must
give equal numbers."""


KERNELS = 24
"""Compiled products that oneDNN remembers, one for each shape: some 300 kB each, and every pack has shapes of its own.
Its own default, 1024, lets memory grow by hundreds of megabytes; a model needs about ten at a time."""

for _capacity in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's own, and torch's before it
    os.environ.setdefault(_capacity, str(KERNELS))  # read when the first product is computed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give x · weightᵀ + bias, as :func:`torch.nn.functional.linear` does.

    Parameters
    ----------
    x
        (..., d).
    weight
        (n, d), of the same type.
    bias
        (n,), or none.
    """
    if not _takes(x, weight, bias):
        return torch.nn.functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@contextmanager
def fast_linear() -> Iterator[None]:
    """Compute all linear layers that are called inside by :func:`linear`."""
    with _Linear() if AVAILABLE else _Nothing():
        yield


def _takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        AVAILABLE
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, weight))
        and (bias is None or bias.dtype == torch.float32)
        and weight.dim() == 2
        and weight.is_contiguous()
        and x.numel() > 0
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias) if t is not None))
    )


def _by_torchs_names(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return linear(input, weight, bias)


class _Linear(TorchFunctionMode):
    """Takes the place of ``torch.nn.functional.linear``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.linear:
            with torch._C.DisableTorchFunction():
                return _by_torchs_names(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
