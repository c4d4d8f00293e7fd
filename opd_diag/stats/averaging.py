"""Whether several ways to average the same numbers lead to different conclusions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from opd_diag.stats.contrasts import Column, Sample, columns_of
from opd_diag.stats.estimate import Estimate

ALPHA = 0.05

ROUNDING = 1e-9
"""Difference of two contrasts, in units of their errors, that rounding alone may make: that of equal averages."""


@dataclass(frozen=True)
class Ways:
    """One contrast, averaged in several ways over the same clusters."""

    estimates: tuple[Estimate, ...]
    """One a way."""
    differences: tuple[Estimate, ...]
    """One a pair of ways, second less first, paired by cluster; in the order of `itertools.combinations`."""

    @property
    def conclusions_differ(self) -> bool | None:
        """Whether they lead to different conclusions; None where there is not an interval of each.

        True where two ways establish opposite directions, or one establishes a direction, another none, and the
        difference of the two is itself established.
        """
        if any(math.isnan(e.ci_low) for e in (*self.estimates, *self.differences)):
            return None
        signs = [(e.ci_low > 0) - (e.ci_high < 0) for e in self.estimates]
        pairs = itertools.combinations(range(len(signs)), 2)
        return any(
            signs[a] * signs[b] < 0 or (signs[a] != signs[b] and self._apart(a, b, difference))
            for (a, b), difference in zip(pairs, self.differences, strict=True)
        )

    def _apart(self, a: int, b: int, difference: Estimate) -> bool:
        least = ROUNDING * max(self.estimates[a].standard_error, self.estimates[b].standard_error)
        low, high = difference.interval(1 - ALPHA / len(self.differences))
        return abs(difference.value) > least and (low > 0 or high < 0)


def contrasts_in_ways(ways: Sequence[Sequence[Sample]], weights: Sequence[float]) -> list[Ways]:
    """Do :func:`~opd_diag.stats.clustered_contrasts` for several ways to average, and hold the ways against each other.

    Formula: with θ_a = Σ_s w_s x̄_as the contrast of way a and d_ag the influence of cluster g on it, θ_b - θ_a has the
    influences d_bg - d_ag, and the interval that follows as for any contrast (CR2, t), a cluster's share being the mean
    of its shares of both. So what a prompt adds to both ways cancels.

    Parameters
    ----------
    ways
        At least two; each gives the same samples, averaged otherwise: tokens, means of rollouts, means of prompts.
    weights
        One number a sample, as there.

    Returns
    -------
    list of Ways
        One a column.

    Raises
    ------
    ValueError
        As there.

    Notes
    -----
    That one way is significant and another is not is no difference between them: at low power it happens by chance
    alone. Here their difference must be established as well, at 5 % over all pairs of ways together (Bonferroni).
    Directions are held against 0, and not against the least change that counts.

    References
    ----------
    Gelman and Stern (2006), The difference between "significant" and "not significant" is not itself statistically
    significant, The American Statistician 60(4).

    Examples
    --------
    >>> prompts, before = range(6), [[0.0]] * 6
    >>> up, down = [[1.0], [1.2], [0.9], [1.1], [0.8], [1.3]], [[-1.0], [-1.2], [-0.9], [-1.1], [-0.8], [-1.3]]
    >>> ways = [[(before, prompts), (after, prompts)] for after in (up, up, down)]
    >>> [contrasts_in_ways([ways[0], other], (-1.0, 1.0))[0].conclusions_differ for other in ways[1:]]
    [False, True]
    """
    if len(ways) < 2 or any(len(way) != len(weights) or not way for way in ways):
        found = ", ".join(str(len(way)) for way in ways)
        raise ValueError(f"Two ways at least, each with {len(weights)} samples, one a weight; found {found or 'none'}.")
    return [_ways(column, len(ways), list(weights)) for column in columns_of([s for way in ways for s in way], 0.95)]


def _ways(column: Column, n: int, weights: list[float]) -> Ways:
    places = [range(way * len(weights), (way + 1) * len(weights)) for way in range(n)]
    less = [-weight for weight in weights]
    pairs = ([*places[a], *places[b]] for a, b in itertools.combinations(range(n), 2))
    return Ways(
        tuple(column.contrast(of, weights, 0.95) for of in places),
        tuple(column.contrast(of, [*less, *weights], 0.95) for of in pairs),
    )
