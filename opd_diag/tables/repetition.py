"""Whether a response repeats itself: how far its text compresses, and how much of it is one block over and over."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from opd_diag.records.rollout import Rollout

REPETITION = ("compression_ratio", "cycle_ratio", "repetition_rate")
"""What is known of the repetition of a response; averaged over rollouts."""

REPETITION_COLUMNS = ("compression_ratio", "cycle_ratio", "cycle_start", "is_repeating")
"""Columns of the rollout table."""

TAIL = 10_000
"""Characters at the end of a response that are compressed, as arXiv 2604.08527 does."""

LEAST_BYTES = 256
"""A text of fewer bytes has no compression ratio: zlib's own 8 bytes would be a good part of what is left."""

REPEATS = 3
"""Copies of a block that make a cycle: what stands twice may be a check of the result."""

LEAST_TOKENS = 20
"""Tokens that a cycle has at least: the zeros of a large number, or a row of a table, are none."""

CYCLE_LIMIT = 0.5
"""A response of which so much lies in a cycle repeats itself. Ours."""

COMPRESSION_LIMIT = 10.0
"""A response that compresses so far repeats itself (arXiv 2604.08527)."""


class Cycle(NamedTuple):
    """One block over and over, up to the end of a response."""

    period: int
    """Tokens of the block; 0 where there is no cycle."""
    length: int
    """Tokens of the tail that repeats, the first copy included; the last copy need not be whole."""


def tail_cycle(ids: Sequence[int], *, repeats: int = REPEATS, least: int = LEAST_TOKENS) -> Cycle:
    """Find the longest end of a sequence that is one block at least `repeats` times over.

    Formula: the longest suffix x_s … x_T with x_i = x_(i+p) throughout, of all p of which it holds `repeats` copies or
    more and `least` tokens; the smallest such p where several give the same suffix. With z the Z-function of the
    reversed sequence, the suffix of period p has p + z[p] tokens; so all are found in one pass.

    Parameters
    ----------
    ids
        T token ids.
    repeats
        Whole copies that the suffix has at least, 2 or more.
    least
        Tokens that it has at least.

    Returns
    -------
    Cycle
        (0, 0) where there is none.

    Notes
    -----
    Caution: exact, so a loop that counts, or that changes one word, is none; and one that the response leaves again is
    no end of it.

    References
    ----------
    Gusfield (1997), Algorithms on strings, trees, and sequences, section 1.4 (the Z-function).

    Examples
    --------
    >>> tail_cycle([9, 4, 1, 2, 1, 2, 1, 2, 1], least=4)
    Cycle(period=2, length=7)
    """
    if repeats < 2:
        raise ValueError(f"A cycle needs at least 2 copies, found repeats {repeats}.")
    back = list(reversed(ids))
    size, best = len(back), Cycle(0, 0)
    z = [0] * (size // repeats + 1)
    left = right = 0
    for period in range(1, len(z)):
        same = min(z[period - left], right - period) if period < right else 0
        while period + same < size and back[same] == back[period + same]:
            same += 1
        if period + same > right:
            left, right = period, period + same
        z[period] = same
        length = period + same
        if length >= repeats * period and length >= max(least, best.length + 1):
            best = Cycle(period, length)
    return best


def compression_ratio(text: str) -> float:
    """Bytes of a text divided by its bytes after zlib, of its last `TAIL` characters.

    Formula: |x| / |zlib(x)|, x the UTF-8 bytes of the last 10,000 characters, zlib at its default level.

    Returns
    -------
    float
        At least about 1; NaN for fewer than `LEAST_BYTES` bytes.

    Notes
    -----
    Caution: a longer text has a higher ratio, as there is more to refer back to: the English of this project's
    documents has 1.4 at 256 bytes and 2.2 at 10,000 characters. Random digits have 2.

    References
    ----------
    arXiv 2604.08527 (StableOPD), whose RepRate is the share of responses above 10.

    Examples
    --------
    >>> round(compression_ratio("wait, no. " * 200)), compression_ratio("wait, no.")
    (59, nan)
    """
    raw = text[-TAIL:].encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw)) if len(raw) >= LEAST_BYTES else math.nan


def repetition_of(rollout: Rollout) -> dict[str, Any]:
    """Tell how much of one response repeats.

    `cycle_ratio` is the share of the student's own tokens, the stop token apart, in :func:`tail_cycle`, and
    `cycle_start` the position where that begins (missing without a cycle). In fewer than `LEAST_TOKENS` tokens no cycle
    can be seen: 0 if the response ended by itself, undefined if it was cut or that is unknown. `compression_ratio` is
    undefined for a short text, for none, and where part of the text is not the student's. `is_repeating`: `cycle_ratio`
    is `CYCLE_LIMIT` or more, or `compression_ratio` above `COMPRESSION_LIMIT`; missing where neither is defined.
    """
    ended = rollout.stop_reason == "stop"
    places = [i for i in rollout.state_positions if not (ended and i == len(rollout.response_ids) - 1)]
    cycle = tail_cycle([rollout.response_ids[i] for i in places])
    told = len(places) >= LEAST_TOKENS or (ended and len(places) > 0)
    share = cycle.length / len(places) if told else math.nan
    all_own = rollout.generated is None or all(rollout.generated)
    ratio = compression_ratio(rollout.response_text) if all_own else math.nan
    repeats = share >= CYCLE_LIMIT or ratio > COMPRESSION_LIMIT
    return {
        "compression_ratio": ratio,
        "cycle_ratio": share,
        "cycle_start": places[-cycle.length] if cycle.length else pd.NA,
        "is_repeating": pd.NA if math.isnan(share) and math.isnan(ratio) else repeats,
    }


def repetition_columns(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Give the columns `REPETITION_COLUMNS` of some rollouts, one row each."""
    table = pd.DataFrame([repetition_of(rollout) for rollout in rollouts], columns=list(REPETITION_COLUMNS))
    typed = table.astype(
        {"compression_ratio": "float64", "cycle_ratio": "float64", "cycle_start": "Int64", "is_repeating": "boolean"}
    )
    return {name: typed[name] for name in REPETITION_COLUMNS}
