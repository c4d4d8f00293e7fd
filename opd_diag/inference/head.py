"""The output head: hidden states → logits in float32, only where they are wanted.

Bypassing ``model(...)`` saves the logits of prompts and padding, which are most of the work of a large vocabulary. What
a family of models does after its linear layer (bias, scale, soft-cap) is repeated here and *checked*, not trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opd_diag.errors import ModelError
from opd_diag.inference.hooks import brought, first_device
from opd_diag.inference.linear import linear
from opd_diag.inference.sharding import whole

if TYPE_CHECKING:
    from opd_diag.inference.model import Model


@dataclass(frozen=True)
class Head:
    """logits = softcap · tanh(scale · (hidden · Wᵀ + bias) / softcap), the last step only where there is a soft-cap."""

    weight: Tensor
    """(V, d) float32."""
    bias: Tensor | None
    """(V,) float32."""
    scale: float
    softcap: float | None

    @property
    def vocabulary(self) -> int:
        """Ids that get a logit, padding rows included."""
        return int(self.weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.weight.device

    def logits(self, hidden: Tensor) -> Tensor:
        """Give (m, V) float32 logits of (m, d) hidden states, where these are."""
        return self.tile(hidden, 0, self.vocabulary)

    def tile(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Give (m, stop - start) float32 logits of the ids from `start` on, before `stop`, where the states are."""
        bias = None if self.bias is None else self.bias[start:stop]
        logits = linear(hidden.to(self.device).float(), self.weight[start:stop], bias)
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits.to(hidden.device)


@dataclass(frozen=True)
class OwnLogits:
    """In place of a head that is not linear: what such a model gives as hidden states are its logits already."""

    vocabulary: int
    """Ids that get a logit."""
    device: torch.device
    """Where the model computes."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Give (m, V) float32 logits."""
        return self.tile(hidden, 0, self.vocabulary)

    def tile(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Give (m, stop - start) float32 logits of the ids from `start` on, before `stop`, to be written over."""
        return hidden[:, start:stop].to(torch.float32, copy=True)


def read_head(model: Any) -> Head | OwnLogits:
    """Read the head of a transformers causal language model; a weight that is not float32 is copied once.

    A head that accelerate keeps elsewhere is held where it computes all the time; one in shards is made whole, which
    every rank must ask for.

    Where there is no linear output layer, or no body that runs without it, the model's own logits serve.

    Raises
    ------
    ModelError
        It is no causal language model: it says of no vocabulary.
    """
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    config = model.config.get_text_config()
    if model.base_model is model or weight is None or weight.dim() != 2:
        if getattr(config, "vocab_size", None) is None:
            raise ModelError(
                f"{type(model).__name__} has no output layer and no vocabulary. Give a causal language model of "
                "transformers."
            )
        return OwnLogits(int(config.vocab_size), first_device(model))
    with brought(layer):
        weight, bias = whole(layer.weight.detach()).float(), getattr(layer, "bias", None)
        bias = None if bias is None else whole(bias.detach()).float()
    softcap = next((cap for cap in (getattr(config, name, None) for name in _SOFTCAPS) if cap is not None), None)
    return Head(
        weight=weight,
        bias=bias,
        scale=_scale(config),
        softcap=None if softcap is None else float(softcap),
    )


_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configs call the soft-cap: Gemma, RecurrentGemma, xLSTM."""


def _scale(config: Any) -> float:
    scale = float(getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0)
    scaling = float(getattr(config, "logits_scaling", None) or 1.0)
    # Granite divides by what HyperCLOVA X multiplies with under the same name.
    return scale * scaling if str(config.model_type).startswith("hyperclovax") else scale / scaling


@dataclass(frozen=True)
class HeadCheck:
    """Result of :func:`check_head`."""

    model: str
    max_abs_difference: float
    """Largest difference of a logit, in logits."""
    tolerance: float
    n_states: int
    note: str = ""
    """What a reader must know of it; empty where nothing."""


CHECKED_TOKENS = 64
"""States on which the head is checked."""


@torch.inference_mode()
def check_head(model: Model, ids: list[int]) -> HeadCheck:
    """Hold our logits against ``model(...).logits`` on the first states of one sequence.

    Parameters
    ----------
    model
        The model.
    ids
        Token ids of one prompt and response; the first 64 are used.

    Returns
    -------
    HeadCheck
        The measured difference; the tolerance is 1e-4 of the largest logit in float32 and 2e-2 in 16-bit bodies (the
        model then rounds its own logits).

    Raises
    ------
    ModelError
        The logits differ by more than the tolerance.
    """
    tokens = torch.tensor([ids[:CHECKED_TOKENS]], device=model.enters_at)
    theirs = model.own_logits(tokens)[0].float()
    ours = model.head.logits(model.hidden(tokens)[0])
    if ours.shape != theirs.shape:
        raise ModelError(
            f"{model.name}: the head that opd-diag applies gives {ours.shape[1]} logits a token, model(...).logits "
            f"{theirs.shape[1]}. This architecture ({type(model.hf).__name__}) is not one that opd-diag knows; "
            "please report it."
        )
    relative = 1e-4 if model.dtype == torch.float32 else 2e-2
    finite = theirs[theirs.isfinite()]
    tolerance = relative * max(1.0, float(finite.abs().max()) if len(finite) else 1.0)
    # Padding rows may be masked with -inf on both sides, which is no difference; NaN on one side is one. NaN on both
    # is left to sampling and scoring, which name the state.
    equal = (ours == theirs) | (ours.isnan() & theirs.isnan())
    difference = float((ours - theirs).abs().masked_fill(equal, 0.0).max())
    if not difference <= tolerance:
        raise ModelError(
            f"{model.name}: the head that opd-diag applies differs from model(...).logits by {difference:.3g} "
            f"(tolerance {tolerance:.3g}, {tokens.shape[1]} states). This architecture "
            f"({type(model.hf).__name__}) does more after its last layer than opd-diag knows; please report it."
        )
    return HeadCheck(model.name, difference, tolerance, int(tokens.shape[1]), _note(model))


def _note(model: Model) -> str:
    if isinstance(model.head, Head):
        return ""
    return (
        "it has no linear output layer that can be applied apart from its body. The logits that it gives itself were "
        "used, one sequence at a time, which takes more memory."
    )
