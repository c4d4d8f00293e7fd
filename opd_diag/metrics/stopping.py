"""Whether the models would stop here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stop_logprobs(logprobs: Tensor, stop_ids: Sequence[int]) -> Tensor:
    """Log-probability that the next token is a stop token.

    Formula: log Σ_{e ∈ E} p(e), with E the union of both models' stop tokens.

    Parameters
    ----------
    logprobs
        (..., V) normalised log-probabilities.
    stop_ids
        Distinct ids in [0, V); may be empty.

    Returns
    -------
    Tensor
        (...) nats, at most 0; -inf where `stop_ids` is empty.

    Examples
    --------
    >>> stop_logprobs(torch.tensor([0.5, 0.25, 0.25]).log(), [1, 2])
    tensor(-0.6931)
    """
    if not stop_ids:
        return torch.full(logprobs.shape[:-1], -torch.inf, dtype=logprobs.dtype, device=logprobs.device)
    return logprobs[..., list(stop_ids)].logsumexp(-1).clamp_(max=0)
