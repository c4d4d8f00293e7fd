"""The k most probable tokens, exactly, with ties in a fixed order."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
"""Vocabulary entries whose maximum stands for them in the first pass."""


CANDIDATES = 2**18
"""Candidates that are searched together, so that they fit the cache."""


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
    values, ids, _ = topk_of_blocks(logprobs, block_maxima(logprobs), k)
    return values, ids


def block_maxima(logits: Tensor) -> Tensor:
    """Give the (..., V // 64) maxima of whole blocks; what is left over at the end of the vocabulary has none.

    Examples
    --------
    >>> block_maxima(torch.arange(300.0))
    tensor([ 63., 127., 191., 255.])
    """
    blocks = logits.shape[-1] // BLOCK
    return logits[..., : blocks * BLOCK].unflatten(-1, (blocks, BLOCK)).amax(-1)


def topk_of_blocks(logits: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Do :func:`topk` where the block maxima are known already.

    Parameters
    ----------
    logits
        (..., V).
    maxima
        From :func:`block_maxima`.
    k
        1 to V.

    Returns
    -------
    values, ids, tied
        (..., k), (..., k), and (...): whether the last token taken is as probable as one that was not.
    """
    size = logits.shape[-1]
    if not 1 <= k <= size:
        raise ValueError(f"k must be 1 to the vocabulary size {size}, found {k}.")
    if maxima.shape[-1] <= 2 * k:
        values, ids = logits.topk(k, dim=-1)
        tied = (logits >= values[..., -1:]).sum(-1) > k
    else:
        values, ids, tied = _topk_by_blocks(logits, maxima, k)
    if tied.any():  # which of the tied tokens torch.topk takes is its own affair
        values[tied], ids[tied] = _topk_by_sorting(logits[tied], k)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order), tied


def _topk_by_sorting(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    return values[..., :k], ids[..., :k]


def _topk_by_blocks(logits: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    rows, of = logits.reshape(-1, logits.shape[-1]), maxima.reshape(-1, maxima.shape[-1])
    few = max(1, CANDIDATES // (k * BLOCK))
    parts = [_topk_of_few(*pair, k) for pair in zip(rows.split(few), of.split(few), strict=True)]
    values, ids, tied = (torch.cat(found) for found in zip(*parts, strict=True))
    shape = logits.shape[:-1]
    return values.reshape(*shape, k), ids.reshape(*shape, k), tied.reshape(shape)


def _topk_of_few(rows: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Do it for (rows, V)."""
    end = maxima.shape[-1] * BLOCK
    winners = maxima.topk(k, dim=-1, sorted=False).indices  # (rows, k)
    candidates = _blocks_of(rows, winners, end)
    if end < rows.shape[-1]:
        candidates = torch.cat([candidates, rows[:, end:]], dim=-1)
    values, chosen = candidates.topk(k, dim=-1)
    inside = winners.gather(-1, (chosen // BLOCK).clamp_(max=k - 1)) * BLOCK + chosen % BLOCK
    ids = torch.where(chosen < k * BLOCK, inside, chosen - k * BLOCK + end)
    last = values[:, -1:]
    # A block that did not win can hold a token as good as the last one only if its maximum is that good.
    elsewhere = (maxima >= last).sum(-1) > (maxima.gather(-1, winners) >= last).sum(-1)
    return values, ids, ((candidates >= last).sum(-1) > k) | elsewhere


def _blocks_of(rows: Tensor, winners: Tensor, end: int) -> Tensor:
    """Give (rows, k · BLOCK): the logits of the winning blocks."""
    row = torch.arange(len(rows), device=rows.device).unsqueeze(-1)
    if end == rows.shape[-1] and rows.is_contiguous():  # whole blocks in a row can be copied as such: five times faster
        return rows.view(-1, BLOCK).index_select(0, (winners + row * (end // BLOCK)).flatten()).view(len(rows), -1)
    return rows[:, :end].unflatten(-1, (-1, BLOCK))[row, winners].flatten(-2)
