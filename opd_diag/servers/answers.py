"""What is asked of a server and what it answers: arrays, whatever the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALL = -1
"""As `Question.top`: the whole vocabulary, where the server shows it."""


@dataclass(frozen=True, eq=False)
class Question:
    """The rows wanted of one sequence. Row j is the distribution that predicts token ``start + j``.

    Raises
    ------
    ValueError
        `start`, `top` or the shape of `at` is none of what is said below.
    """

    ids: tuple[int, ...]
    """The n tokens of the sequence, prompt and response; n ≥ 1."""
    start: int
    """The first token whose row is wanted, 1 ≤ start ≤ n."""
    top: int
    """K, the most probable ids of a row, at least 1; :data:`ALL` where the server ``sees_all``."""
    after: bool = False
    """Whether the row behind the last token is wanted too: the terminal state of a truncated response."""
    at: Ints | None = None
    """(rows, m) ids whose log-probabilities are wanted at each row, -1 for none; where the server has ``exact_ids``."""

    def __post_init__(self) -> None:
        if not 1 <= self.start <= len(self.ids):
            raise ValueError(f"start must lie in 1 to {len(self.ids)}, the number of ids, got {self.start}")
        if self.top < 1 and self.top != ALL:
            raise ValueError(f"top must be at least 1, or {ALL} for all, got {self.top}")
        if self.at is not None and (self.at.ndim != 2 or len(self.at) != self.rows or not self.at.size):
            raise ValueError(f"at must have the shape ({self.rows}, m), got {self.at.shape}")

    @property
    def rows(self) -> int:
        """How many rows are wanted, ``n - start + after``."""
        return len(self.ids) - self.start + self.after

    @property
    def sent(self) -> tuple[int, ...]:
        """The ids that are sent to the server.

        A row needs a token that it predicts. For the row behind the last one that is the last token once more: what it
        is has no influence on the row, and any token of the sequence is one that the server knows.
        """
        return (*self.ids, self.ids[-1]) if self.after else tuple(self.ids)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a server answered, checked. Row j is the distribution that predicts token ``start + j``."""

    sampled_logprobs: Floats
    """(n - start,) log-probabilities of the sequence's own tokens, in [-inf, 0]."""
    topk_ids: Ints
    """(rows, K) most probable ids, best first, of equally probable ones the lower id first."""
    topk_logprobs: Floats
    """(rows, K) their log-probabilities, falling, in [-inf, 0]."""
    at_logprobs: Floats | None
    """(rows, m) log-probabilities at the ids asked, NaN where -1 was; None where none were asked."""
    received_bytes: int
    """Bytes of the answer's body, after the transport's compression if any."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """One response that a server sampled."""

    ids: tuple[int, ...]
    """Its tokens, with the stop token where it stopped."""
    logprobs: Floats | None
    """(tokens,) their log-probabilities at temperature 1, in [-inf, 0]; None where the server scales them."""
    stop_reason: Literal["stop", "length"]


def whole(ids: Sequence[int]) -> tuple[int, ...]:
    """Give ids as plain integers, as JSON has them."""
    return tuple(int(one) for one in ids)
