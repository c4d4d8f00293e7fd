"""Drawing one token from logits with a given uniform number, so that equal numbers draw equal tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def tempered_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """Give log-probabilities at a temperature; at 0 (greedy) those at 1."""
    return (logits / temperature if temperature > 0 else logits).log_softmax(-1)


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Draw one id a row by inverting the cumulative distribution; give ids and their log-probabilities."""
    logprobs = tempered_logprobs(logits, temperature)
    if temperature == 0:
        ids = logprobs.argmax(-1)
    elif top_p < 1:
        ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
        p = ordered.double().exp()
        p[p.cumsum(-1) - p >= top_p] = 0.0  # the token that crosses top_p still belongs
        ids = order.gather(-1, _invert(p, uniforms)).squeeze(-1)
    else:
        ids = _invert(logprobs.double().exp(), uniforms).squeeze(-1)
    return ids, logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _invert(p: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = p.cumsum(-1)
    target = uniforms.to(cumulative.dtype).unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=p.shape[-1] - 1)
