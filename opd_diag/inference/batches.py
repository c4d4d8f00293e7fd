"""Which prompts are read together, padded to the longest: a pure function of their lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def length_sorted_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group indices by length, longest first, so that padding is small and no batch exceeds the budget.

    A sequence longer than the budget gets a batch of its own. Equal lengths keep their order.

    Examples
    --------
    >>> length_sorted_batches([3, 9, 4, 8], tokens_per_batch=18)
    [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= tokens_per_batch:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def right_padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Give (batch, longest) int64 tokens; padding repeats each sequence's last token, which no state ever sees."""
    width = max(len(s) for s in sequences)
    rows = [[*s, *[s[-1]] * (width - len(s))] for s in sequences]
    return torch.tensor(rows, dtype=torch.long, device=device)
