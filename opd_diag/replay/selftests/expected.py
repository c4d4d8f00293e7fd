"""What a model expects of its own tokens: drawn from p, their surprise -log p is its entropy, but for chance.

The chance is known too: given the states, the surprise of a token has the mean H and a variance that follows from p.
So a sum over tokens has a z-score without any assumption, and, where one rare token makes the sum, a bound on how
often chance makes as much (Chernoff's): a response that is not the model's own (other weights,
another prompt, another temperature) gives itself away even where nobody recorded log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opd_diag.records.selftest import SelfTest
from opd_diag.replay.selftests.kept import Kept
from opd_diag.replay.selftests.limits import (
    EXPECTED_CHANCE,
    EXPECTED_DIFFERENCE,
    EXPECTED_SHARE,
    EXPECTED_Z,
    LOWEST_LOGPROB,
)

EXPONENTS = (0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""At which the bound on chance is tried: any of them gives one, and the least is taken. The small ones are for sums of
many tokens, the large ones for few rare ones."""


@dataclass(frozen=True)
class Surprise:
    """How far tokens are from what their model expected."""

    n: int
    """Tokens whose model is known in full."""
    entropy: float
    """Mean of H, in nats."""
    excess: float
    """Mean of -log p(y) - H, in nats: 0 but for chance. Negative where the sampling was sharper than p."""
    z: float
    """`excess` in standard errors."""
    variance: float = math.nan
    """Of the sum of the surprises, by the models' own distributions."""
    moments: tuple[float, ...] = ()
    """Sum over the tokens of log E[p(y)^-s] for each of `EXPONENTS`; empty where it is not known."""
    is_partly_known: bool = False
    """Whether there were tokens, but of a model whose server returned a part of its distributions."""

    @property
    def chance(self) -> float:
        """At most so often are tokens of the model's own as surprising; 0 where that is not known."""
        total = self.n * (self.excess + self.entropy)
        return min(
            (math.exp(min(0.0, m - s * total)) for s, m in zip(EXPONENTS, self.moments, strict=False)), default=0.0
        )

    @property
    def limit(self) -> float:
        """Of |`excess`|, in nats."""
        return max(EXPECTED_DIFFERENCE, EXPECTED_SHARE * self.entropy)

    @property
    def expected(self) -> bool:
        """Whether it can be chance, or is too little to matter."""
        rare = self.z > 0 and self.chance > EXPECTED_CHANCE
        return EXPECTED_Z[0] <= self.z <= EXPECTED_Z[1] or rare or abs(self.excess) <= self.limit


def surprise_of(kept: Kept, chosen: np.ndarray) -> Surprise:
    """Measure the tokens at the chosen states.

    Parameters
    ----------
    kept
        The writer's side of the scores of its own responses, at the temperature that they were sampled at.
    chosen
        (N,) which states.
    """
    given, chosen = bool(chosen.any()), chosen & ~np.isnan(kept.entropy)
    n = int(chosen.sum())
    if not n:
        return Surprise(0, math.nan, math.nan, math.nan, is_partly_known=given)
    excess = (-np.maximum(kept.sampled, LOWEST_LOGPROB) - kept.entropy)[chosen]
    variance = float(kept.surprise_variance()[chosen].sum())
    moments = tuple(float(kept.surprise_moments(s)[chosen].sum()) for s in EXPONENTS)
    z = _z(excess.sum(), variance)
    return Surprise(n, float(kept.entropy[chosen].mean()), float(excess.mean()), z, variance, moments)


def together(surprises: Sequence[Surprise]) -> Surprise:
    """Put the tokens of several models together: each is held against what its own model expects."""
    measured = [s for s in surprises if s.n]
    n, variance = sum(s.n for s in measured), sum(s.variance for s in measured)
    if not n:
        return Surprise(0, math.nan, math.nan, math.nan)
    entropy, excess = (sum(s.n * getattr(s, name) for s in measured) for name in ("entropy", "excess"))
    moments = tuple(map(sum, zip(*(s.moments for s in measured), strict=False)))
    return Surprise(n, entropy / n, excess / n, _z(excess, variance), variance, moments)


def _z(excess: float, variance: float) -> float:
    if variance > 0:
        return float(excess) / math.sqrt(variance)
    return math.inf if abs(excess) > 0 else 0.0


def judged_surprise(name: str, model: str, surprise: Surprise, *, what: str, advice: str) -> SelfTest:
    """Write it as a self-test; `what` says of which tokens."""
    if surprise.n == 0:
        why = f"There are no {what} that were freely drawn."
        if surprise.is_partly_known:
            why = f"How far the {what} should surprise it takes whole distributions, of which a part came back."
        return SelfTest(name, model, "unknown", math.nan, math.nan, why, "")
    side = "more" if surprise.excess > 0 else "less"
    return SelfTest(
        name=name,
        model=model,
        status="pass" if surprise.expected else "fail",
        value=surprise.excess,
        threshold=surprise.limit,
        evidence=f"The {surprise.n} {what} surprise it {abs(surprise.excess):.2g} nats {side} than it expects "
        f"(entropy {surprise.entropy:.2g} nats; {abs(surprise.z):.1f} standard errors).",
        advice="" if surprise.expected else advice,
    )
