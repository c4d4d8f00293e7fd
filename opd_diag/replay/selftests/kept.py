"""Arithmetic on what scores keep of a state: the most probable ids of one model, and tokens near the sampled one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.replay.selftests.limits import LOWEST_LOGPROB

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Who = Literal["student", "teacher"]

NO_TOKEN = -1
"""Stands where a response has no token."""


@dataclass(frozen=True)
class Kept:
    """One model at N states that are not terminal."""

    ids: Ints
    """(N, K) its most probable ids."""
    logprobs: Floats
    """(N, K) its log-probabilities of them, none below `LOWEST_LOGPROB`."""
    sampled: Floats
    """(N,) its log-probability of the sampled token, exact."""
    entropy: Floats
    """(N,) its entropy over the whole vocabulary."""
    rows: Ints
    """(N,) row of the rollout."""
    positions: Ints
    """(N,) index of the token within the response."""
    prompts: Ints
    """(N,) prompt of the rollout: the cluster."""
    vocabulary: int

    @classmethod
    def of(cls, scores: Scores, rollouts: Sequence[Rollout], who: Who) -> Kept:
        """Read one side of scores."""
        at = np.flatnonzero(~np.asarray(scores.terminal))

        def field(name: str) -> npt.NDArray[Any]:
            values: npt.NDArray[Any] = np.asarray(getattr(scores, name))[at]
            return values

        rows = field("rollout").astype(np.int64)
        return cls(
            ids=field(f"{who}_topk_ids").astype(np.int64),
            logprobs=np.maximum(field(f"{who}_topk_logprobs").astype(np.float64), LOWEST_LOGPROB),
            sampled=field(f"{who}_sampled_logprobs").astype(np.float64),
            entropy=field(f"{who}_entropy").astype(np.float64),
            rows=rows,
            positions=field("position").astype(np.int64),
            prompts=np.array([r.prompt_index for r in rollouts], dtype=np.int64)[rows],
            vocabulary=int(scores.provenance["common_vocabulary"]),
        )

    @property
    def floor(self) -> Floats:
        """(N,) log-probability of the last kept id: no id that is not kept has a higher one."""
        lowest: Floats = self.logprobs[:, -1]
        return lowest

    @property
    def rest(self) -> Floats:
        """(N,) probability of all that is not kept, in [0, 1]."""
        rest: Floats = np.clip(1 - np.exp(self.logprobs).sum(1), 0, 1)
        return rest

    def clipped(self, tokens: Ints) -> Floats:
        """Give the log-probability of one token a state, no lower than that of the last kept one.

        It is known for any token, whether it was sampled there or not; NaN for `NO_TOKEN`.
        """
        hit = self.ids == tokens[:, None]
        found = np.where(hit.any(1), np.where(hit, self.logprobs, 0.0).sum(1), self.floor)
        return np.where(tokens == NO_TOKEN, np.nan, found)

    def clipped_mean(self, tokens: Ints) -> Floats:
        """Give, at each state, the mean of :meth:`clipped` over all `tokens`, whichever state they belong to."""
        size = int(max(self.ids.max(initial=0), tokens.max(initial=0))) + 1
        share = np.bincount(tokens, minlength=size) / max(1, len(tokens))
        mean: Floats = self.floor + (share[self.ids] * (self.logprobs - self.floor[:, None])).sum(1)
        return mean

    def at_temperature(self, relative: float) -> Floats:
        """Give the sampled tokens' log-probability where logits are divided by `relative`.

        What is not kept is taken to be spread evenly over the ids that are not: of no weight where `relative` is below
        1, or where little is left.
        """
        return np.maximum(self.sampled, LOWEST_LOGPROB) / relative - self._normalisers(relative)[1]

    def doubt_at_temperature(self, relative: float) -> Floats:
        """(N,) nats by which :meth:`at_temperature` may be too low, as what is not kept may be in few ids."""
        none, even = self._normalisers(relative)
        doubt: Floats = even - none
        return doubt

    def _normalisers(self, relative: float) -> tuple[Floats, Floats]:
        """Give the log of the sum over the kept ids alone, and with the rest spread evenly."""
        others = max(1, self.vocabulary - self.ids.shape[1])
        rest = np.log(np.maximum(self.rest, 1e-30) / others) / relative + np.log(others)
        none: Floats = np.logaddexp.reduce(self.logprobs / relative, axis=1)
        return none, np.logaddexp(none, rest)

    def surprise_variance(self) -> Floats:
        """(N,) variance of -log p(y) where y is drawn from p.

        Of what is not kept the mean of -log p follows from the entropy; its spread is taken to be 1 nat.
        """
        p, rest = np.exp(self.logprobs), np.maximum(self.rest, 1e-30)
        mean = np.maximum(self.entropy + (p * self.logprobs).sum(1), 0.0) / rest
        second = (p * self.logprobs**2).sum(1) + np.where(self.rest > 1e-6, rest * (mean**2 + 1), 0.0)
        return np.maximum(second - self.entropy**2, 0.0)

    def surprise_moments(self, s: float) -> Floats:
        """(N,) log of the mean of p(y)^-s where y is drawn from p, for s in (0, 1).

        Of what is not kept the mean of -log p follows from the entropy; it is taken to lie within 2 nats of it, and to
        be no more than where it is spread evenly: the highest that can be, and what is taken where little is left.
        """
        others, rest = max(1, self.vocabulary - self.ids.shape[1]), np.maximum(self.rest, 1e-30)
        highest = np.log(others / rest)
        mean = np.maximum(self.entropy + (np.exp(self.logprobs) * self.logprobs).sum(1), 0.0) / rest
        surprise = np.where(self.rest > 1e-6, np.minimum(s * mean + 2 * s**2, s * highest), s * highest)
        moments: Floats = np.log(np.exp(self.logprobs * (1 - s)).sum(1) + self.rest * np.exp(surprise))
        return moments


def tokens_near(kept: Kept, rollouts: Sequence[Rollout], offset: int) -> Ints:
    """Give the token `offset` places after the sampled one in the same response; `NO_TOKEN` where there is none."""
    lengths = np.array([len(r.response_ids) for r in rollouts], dtype=np.int64)
    starts = np.cumsum([0, *lengths[:-1]])
    everything = np.array([i for r in rollouts for i in r.response_ids], dtype=np.int64)
    where = kept.positions + offset
    inside = (where >= 0) & (where < lengths[kept.rows])
    index = np.where(inside, starts[kept.rows] + where, 0)
    return np.where(inside, everything[index], NO_TOKEN)
