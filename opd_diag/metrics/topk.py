"""The k most probable tokens, exactly, with ties in a fixed order."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128
"""Vocabulary entries whose maximum stands for them in the first pass."""


def topk(logprobs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the k most probable tokens, best first; of tokens with equal probability the lower ids are taken first.

    A top-k element always lies in a block whose maximum is among the k largest block maxima, so only k blocks are
    searched instead of the whole vocabulary.

    Parameters
    ----------
    logprobs
        (..., V) log-probabilities or logits.
    k
        1 to V.

    Returns
    -------
    values, ids
        Both (..., k).

    Raises
    ------
    ValueError
        k is not in 1..V.

    Examples
    --------
    >>> topk(torch.tensor([0.1, 0.7, 0.1, 0.4]), 3)
    (tensor([0.7000, 0.4000, 0.1000]), tensor([1, 3, 0]))
    """
    size = logprobs.shape[-1]
    if not 1 <= k <= size:
        raise ValueError(f"k must be 1 to the vocabulary size {size}, found {k}.")
    blocks = size // BLOCK
    if blocks <= 2 * k:
        values, ids = logprobs.topk(k, dim=-1)
    else:
        values, ids = _topk_by_blocks(logprobs, k, blocks)
    tied = (logprobs >= values[..., -1:]).sum(-1) > k
    if tied.any():  # which of the tied tokens torch.topk takes is its own affair
        values[tied], ids[tied] = _topk_by_sorting(logprobs[tied], k)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _topk_by_sorting(logprobs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, ids = logprobs.sort(dim=-1, descending=True, stable=True)
    return values[..., :k], ids[..., :k]


def _topk_by_blocks(logprobs: Tensor, k: int, blocks: int) -> tuple[Tensor, Tensor]:
    body = logprobs[..., : blocks * BLOCK].unflatten(-1, (blocks, BLOCK))
    winners = body.amax(-1).topk(k, dim=-1, sorted=False).indices  # (..., k)
    candidates = body.gather(-2, winners.unsqueeze(-1).expand(*winners.shape, BLOCK)).flatten(-2)
    ids = (winners.unsqueeze(-1) * BLOCK + torch.arange(BLOCK, device=logprobs.device)).flatten(-2)
    rest = torch.arange(blocks * BLOCK, logprobs.shape[-1], device=logprobs.device)
    candidates = torch.cat([candidates, logprobs[..., blocks * BLOCK :]], dim=-1)
    ids = torch.cat([ids, rest.expand(*ids.shape[:-1], -1)], dim=-1)
    values, chosen = candidates.topk(k, dim=-1)
    return values, ids.gather(-1, chosen)
