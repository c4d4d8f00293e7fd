"""The same weights in another precision, and which precisions a machine computes in.

How much of a number is rounding? One way to know is to run the same model twice, with as many digits as scoring uses
and with more, and to look at what differs. A second copy of the weights would be as large as the model; here every
module holds converted copies of its own parameters only while it runs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from opd_diag.errors import ModelError
from opd_diag.inference.device_maps import resolve_device
from opd_diag.inference.loading import DTYPES
from opd_diag.inference.model import Forwarded, Model


def reference_dtype(dtype: torch.dtype) -> torch.dtype:
    """Give the precision that a body's own is compared with: float64 for float32, float32 for 16 bits."""
    return torch.float64 if dtype == torch.float32 else torch.float32


@contextmanager
def in_precision(body: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Run a module in another precision, without a second copy of its weights.

    Inside, each module that owns parameters holds copies of them in `dtype` while it runs, and has the very same
    parameters as before afterwards, also where it fails. An embedding gives its rows in `dtype` instead. Buffers stay,
    and so does what a model's code always computes in float32 (rotary angles, the sums of norms).

    Parameters
    ----------
    body
        Any module.
    dtype
        The precision to run it in.
    """
    swap, hooks = _Swap(dtype), []
    for module in body.modules():
        if isinstance(module, nn.Embedding):  # its table may be larger than all else: only the rows are converted
            hooks.append(module.register_forward_hook(swap.cast))
        elif module._parameters:
            hooks.append(module.register_forward_pre_hook(swap.convert))
            hooks.append(module.register_forward_hook(swap.restore))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        swap.restore_all()


class _Swap:
    """Holds the parameters of the modules that run just now, which have converted copies of them meanwhile."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def convert(self, module: nn.Module, args: Any) -> None:
        self.held[module] = dict(module._parameters)
        with torch.inference_mode(False), torch.no_grad():  # parameters in shards cannot be made in inference mode
            for name, parameter in self.held[module].items():
                if parameter is not None and parameter.is_floating_point():
                    module._parameters[name] = nn.Parameter(parameter.detach().to(self.dtype), requires_grad=False)

    def restore(self, module: nn.Module, args: Any, output: Any) -> None:
        module._parameters.update(self.held.pop(module))

    def cast(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.to(self.dtype)

    def restore_all(self) -> None:
        for module, own in self.held.items():  # of modules that failed, and of those that called them
            module._parameters.update(own)


@contextmanager
def _plain_experts(hf: Any) -> Iterator[None]:
    """Run a mixture of experts one expert after the other: the faster way of transformers has no float64."""
    before = hf.get_experts_implementation() if hasattr(hf, "get_experts_implementation") else {}
    chosen = {*before.values()} - {"eager", None}
    if chosen:
        hf.set_experts_implementation("eager")
    try:
        yield
    finally:
        if chosen:
            hf.set_experts_implementation(before)


@dataclass(frozen=True)
class Twin(Model):
    """A second view of a model: the same weights, tokens counted apart, and packs taken or not as it is told."""

    packs: bool = False

    @classmethod
    def of(cls, model: Model, *, packs: bool | None = None, **changes: Any) -> Self:
        """Give the twin of a model; by default it takes packs if the model does."""
        same = {f.name: getattr(model, f.name) for f in fields(Model)} | {"forwarded": Forwarded()}
        return cls(**same, packs=model.takes_packs if packs is None else packs, **changes)

    @property
    def takes_packs(self) -> bool:
        """Whether many sequences run in one row: not measured again."""
        return self.packs


@dataclass(frozen=True)
class OtherPrecision(Twin):
    """A twin whose body runs in another precision than its weights have; what it gives is float32."""

    body_dtype: torch.dtype = torch.float64

    @property
    def dtype(self) -> torch.dtype:
        """Of the hidden states that it gives."""
        return torch.float32

    @property
    def other_dtype(self) -> torch.dtype:
        """What its body runs in."""
        return self.body_dtype

    def hidden(self, tokens: Tensor, **inputs: Any) -> Tensor:
        """As :meth:`Model.hidden`.

        Raises
        ------
        ModelError
            The architecture does not let itself be run in another precision.
        """
        try:
            with in_precision(self.hf.base_model, self.body_dtype), _plain_experts(self.hf):
                states = super().hidden(tokens, **inputs)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise self._cannot(" ".join(str(error).split())[:200]) from error
        if states.dtype != self.body_dtype:
            raise self._cannot(f"its hidden states stay {_called(states.dtype)}")
        return states.float()

    def _cannot(self, reason: str) -> ModelError:
        return ModelError(f"{type(self.hf).__name__} cannot be run in {_called(self.body_dtype)} here: {reason}.")


def usable_dtype(dtype: str, device: str) -> tuple[str, str | None]:
    """Give the precision that bodies can run in on a device, and why it is another one than was asked for.

    A CPU without instructions for 16 bits computes them all the same, several times slower than float32.

    Parameters
    ----------
    dtype
        ``float32``, ``bfloat16`` or ``float16``.
    device
        As in :func:`~opd_diag.inference.resolve_device`.

    Returns
    -------
    tuple
        The precision, and a sentence; None where it is the one asked for.

    Examples
    --------
    >>> usable_dtype("float32", "cpu")
    ('float32', None)
    """
    wanted = DTYPES[dtype]
    if wanted == torch.float32 or resolve_device(device).type != "cpu" or cpu_computes(wanted):
        return dtype, None
    return "float32", (
        f"This CPU has no instructions for {dtype}, in which it would be slower than in float32: --dtype {dtype} was "
        "asked for, float32 was used."
    )


def cpu_computes(dtype: torch.dtype) -> bool:
    """Tell whether this CPU multiplies matrices of 16-bit numbers by instructions of its own."""
    if dtype == torch.float16:
        return _says(torch.ops.mkldnn, "_is_mkldnn_fp16_supported")
    if platform.machine().lower() in ("x86_64", "amd64"):
        # not torch.ops.mkldnn: it says yes to every AVX-512, also where bfloat16 is computed in float32 and rounded
        return any(_says(torch.cpu, name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return _says(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")


def _says(place: Any, name: str) -> bool:
    """Ask torch, which does not know the question in every build."""
    return hasattr(place, name) and bool(getattr(place, name)())


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
