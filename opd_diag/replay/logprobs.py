"""Sampled against replayed: what a model gave its tokens when they were drawn, and what scoring gives them now.

The first come token by token from a cache, or from the trainer's own program; the second from one pass over the whole
response. They agree to rounding if weights, prompt and temperature are the same, and only then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.scores import Scores

if TYPE_CHECKING:
    from opd_diag.replay.replay import ScoredSet

CLEAR_DIFFERENCE = 1e-2
"""Difference of one token, in nats, above which it is counted."""

FLOAT32_LIMIT = 1e-3
"""Mean difference, in nats, beyond which it is no rounding of float32: that makes some 1e-6, at most 1e-4."""

SIXTEEN_BIT_LIMIT = 0.05
"""The same where one side has 16 bits, or is the trainer's, whose precision is not known: rounding makes some 0.01."""


@dataclass(frozen=True)
class LogprobCheck:
    """How far one model's log-probabilities of its own tokens are from the replayed ones."""

    model: str
    """As tables and messages call it."""
    origin: str
    """``sampled`` now or ``recorded`` then; both, if it is some of either."""
    n_tokens: int
    """Tokens that could be compared."""
    mean_abs_difference: float
    """In nats."""
    max_abs_difference: float
    """In nats."""
    share_above: float
    """Part of the tokens that differ by more than `CLEAR_DIFFERENCE`."""
    limit: float
    """Of the mean, in nats."""

    @property
    def within(self) -> bool:
        """Whether the difference can be rounding."""
        return self.mean_abs_difference <= self.limit

    @property
    def note(self) -> str | None:
        """What a reader must know; None where all is well."""
        if self.within:
            return None
        return (
            f"The log-probabilities that {self.model} gave its own tokens ({self.origin}) differ from the replayed "
            f"ones by {self.mean_abs_difference:.2g} nats on average over {self.n_tokens} tokens; rounding makes less "
            f"than {self.limit:g}. Other weights, another prompt template or temperature, or other numerics wrote "
            "these responses than are scored here: find out which before you believe a number."
        )


def logprob_checks(scored: Iterable[ScoredSet]) -> tuple[LogprobCheck, ...]:
    """Compare, for each checkpoint on its own responses and for the teacher on its own, what can be compared."""
    checks: dict[str, LogprobCheck | None] = {}
    for part in scored:
        if part.states == "teacher":
            name = str(part.scores.provenance["teacher"]["name"])
            if "teacher" not in checks:
                checks["teacher"] = compared(name, part.rollouts, part.scores, who="teacher")
        elif part.states == "on-policy":
            label = part.checkpoint.label
            checks[f"student {label}"] = compared(label, part.rollouts, part.scores, who="student")
    teacher = checks.pop("teacher", None)
    return tuple(check for check in (*checks.values(), teacher) if check is not None)


def compared(
    model: str, rollouts: Sequence[Rollout], scores: Scores, *, who: Literal["student", "teacher"]
) -> LogprobCheck | None:
    """Compare what a model gave its own tokens with what scoring gives them.

    Parameters
    ----------
    model
        How messages call it.
    rollouts
        Its own responses; those without log-probabilities, or sampled at another temperature than is scored, are left
        out.
    scores
        Of these rollouts.
    who
        Which of the two models wrote them.

    Returns
    -------
    LogprobCheck, or None
        None where nothing can be compared.
    """
    temperature = scores.provenance[f"{who}_temperature"]
    usable = [r.sampled_logprobs is not None and _temperature(r.provenance) == temperature for r in rollouts]
    rows = np.flatnonzero(~scores.terminal & np.array(usable, dtype=bool)[scores.rollout])
    places = zip(scores.rollout[rows].tolist(), scores.position[rows].tolist(), strict=True)
    then = np.array([(rollouts[r].sampled_logprobs or ())[p] for r, p in places], dtype=np.float64)
    known = np.isfinite(then)
    if not known.any():
        return None
    now = getattr(scores, f"{who}_sampled_logprobs")[rows][known].astype(np.float64)
    difference = np.abs(now - then[known])
    origins = sorted({r.provenance.origin for r, is_usable in zip(rollouts, usable, strict=True) if is_usable})
    rough = origins != ["sampled"] or scores.provenance["dtype"] != "float32"
    return LogprobCheck(
        model=model,
        origin=" and ".join(origins),
        n_tokens=len(difference),
        mean_abs_difference=float(difference.mean()),
        max_abs_difference=float(difference.max()),
        share_above=float((difference > CLEAR_DIFFERENCE).mean()),
        limit=SIXTEEN_BIT_LIMIT if rough else FLOAT32_LIMIT,
    )


def as_json(check: LogprobCheck) -> dict[str, object]:
    """Give the fields as JSON has them; a token that has become impossible is no number, and null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in vars(check).items()}


def _temperature(source: Provenance) -> float:
    """Give the temperature of the recorded log-probabilities: greedy sampling records those at 1."""
    return source.temperature or 1.0
