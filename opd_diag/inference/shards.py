"""Long work in shards: which batches are kept together, and how progress counts over all of them.

Where shards are kept and found again is not known here: that is what a `Keep` is for. Shards are cut between batches
and by lengths alone, so that no number depends on what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

TOKENS_PER_SHARD = 8192
"""Tokens of the batches that are kept together: what a killed process loses at most."""

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Which shard of how many, and which rows it holds, in JSON: cut otherwise, it is another."""

    number: int
    count: int
    rows: list[object]


Keep = Callable[[Shard, Callable[[], T]], T]
"""(which shard, what makes it) -> the shard, found or made."""

Progress = Callable[[int, int], None]
"""(units done, units in all)."""


def keep_nothing(shard: Shard, make: Callable[[], T]) -> T:
    """Make every shard anew."""
    return make()


def shards(batches: Sequence[list[int]], lengths: Sequence[int]) -> list[list[list[int]]]:
    """Put batches together until they hold some `TOKENS_PER_SHARD` tokens; no batch is cut.

    Examples
    --------
    >>> shards([[1, 3], [2], [0]], lengths=[3000, 4000, 5000, 3000])
    [[[1, 3]], [[2], [0]]]
    """
    cut: list[list[list[int]]] = []
    room = 0
    for batch in batches:
        tokens = sum(lengths[i] for i in batch)
        if not cut or tokens > room:
            cut.append([])
            room = TOKENS_PER_SHARD
        cut[-1].append(batch)
        room -= tokens
    return cut


class Told:
    """Progress over all shards, those that were found included; it never goes back."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total = progress or (lambda done, total: None), total
        self.done = self.before = 0
        self.progress(0, total)

    def within(self, done: int) -> None:
        """Tell how many units of the shard at hand are done."""
        self.done = max(self.done, self.before + done)
        self.progress(self.done, self.total)

    def shard(self, units: int) -> None:
        """Tell that the shard at hand, of so many units, is done, unless it was told already."""
        if self.done < self.before + units:
            self.within(units)
        self.before += units
