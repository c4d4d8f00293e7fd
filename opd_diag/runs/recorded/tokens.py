"""Sequences of ids made into prompt and response, by the mask of what the student generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded


def with_ids(
    recorded: Recorded,
    ids: Sequence[int],
    generated: Sequence[bool],
    logprobs: Sequence[float] | None = None,
    start: int | None = None,
) -> Recorded | None:
    """Give `recorded` with prompt, response and what goes with them; None where nothing was generated after a prompt.

    What follows the last generated token is no state and has no say in one: it is cut off.

    Parameters
    ----------
    recorded
        All else that is known of it.
    ids
        Prompt and response, without padding.
    generated
        One for each id: whether the student generated it.
    logprobs
        One for each id: log-probability when it was sampled, in nats; what stands at other tokens is not used. All
        zero means that none were recorded.
    start
        Where the response starts; default: at the first generated id.

    Raises
    ------
    RolloutsError
        The lists differ in length.

    Examples
    --------
    >>> blank = Recorded("here", 1, 0, "ids")
    >>> made = with_ids(blank, [5, 6, 7, 8, 9], [False, True, False, True, False], [0, -1, 0, -2, 0])
    >>> made.prompt_ids, made.response_ids, made.generated, made.sampled_logprobs
    ((5,), (6, 7, 8), (True, False, True), (-1.0, nan, -2.0))
    """
    for name, values in (("the mask of generated tokens", generated), ("log-probabilities", logprobs)):
        if values is not None and len(values) != len(ids):
            raise RolloutsError(
                f"{recorded.place}: {len(ids)} token ids, but {len(values)} entries of {name}. Mend it or leave the "
                "file out."
            )
    own = [i for i, flag in enumerate(generated) if flag]
    start = own[0] if start is None and own else start
    if not own or not start or own[-1] < start:
        return None
    end = own[-1] + 1
    flags = tuple(map(bool, generated[start:end]))
    return replace(
        recorded,
        exactness="ids",
        prompt_ids=tuple(ids[:start]),
        response_ids=tuple(ids[start:end]),
        generated=None if all(flags) else flags,
        sampled_logprobs=_of_generated(logprobs[start:end], flags) if logprobs is not None else None,
    )


def _of_generated(logprobs: Sequence[float], generated: Sequence[bool]) -> tuple[float, ...] | None:
    """Keep what stands at generated tokens, NaN elsewhere; None where zeros fill a column that nobody wrote."""
    own = tuple(float(p) if flag else math.nan for p, flag in zip(logprobs, generated, strict=True))
    return own if any(p and not math.isnan(p) for p in own) else None
