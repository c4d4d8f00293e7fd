"""One metric as a curve, over checkpoints or over positions, with all that is needed to judge its course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.tables.bands import DRAWS, SEED
from opd_diag.tables.catalogue import BY_NAME
from opd_diag.tables.depth import binned
from opd_diag.tables.rows import Sample, rows_of


@dataclass(frozen=True)
class Curve:
    """Means of one metric at several places, and their errors."""

    places: tuple[object, ...]
    """Labels of checkpoints in their order, or first positions of bins."""
    estimates: tuple[stats.Estimate, ...]
    samples: tuple[Sample, ...] = field(repr=False)

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """(C,) the means."""
        return np.array([e.value for e in self.estimates])

    @cached_property
    def draws(self) -> npt.NDArray[np.float64]:
        """(B, C) means in every resampling; the same prompts weigh the same in every curve."""
        prompts = [p for _, p, _ in self.samples]
        resampling = stats.Resampling(np.concatenate(prompts or [np.zeros(0, dtype=int)]), draws=DRAWS, seed=SEED)
        means = [resampling.means(v, p, w)[:, 0] for v, p, w in self.samples]
        return np.stack(means, axis=1) if means else np.zeros((DRAWS, 0))

    def drift(self, last: int) -> stats.Estimate:
        """How far the line through the last so many places rises over them, taken as equally far apart."""
        return stats.clustered_contrasts(self.samples[-last:], stats.plateau_weights(range(last)).tolist())[0]

    def plateau(self, last: int, delta: float) -> stats.Equivalence:
        """Judge whether its last so many places stay level (:func:`opd_diag.stats.plateau`)."""
        return stats.plateau(range(last), self.values[-last:], self.drift(last), delta)

    def level_since(self, delta: float) -> int | None:
        """Find since which place it stands still within `delta`, up to its end; None where that is not established.

        The last three places are asked first, then the last four, and so on until a part does not stay level: as each
        is asked only after all shorter ones, all answers together err 5 times in 100. A part stays level where its
        drift is equivalent to 0 and its means lie within `delta` of each other.
        """
        found = None
        for last in range(3, len(self.places) + 1):
            level = np.ptp(self.values[-last:]) < delta and self.plateau(last, delta).outcome == "equivalent"
            if not level:
                break
            found = len(self.places) - last
        return found

    def change_point(self, delta: float = 0.0, *, shared_effects: bool) -> stats.ChangePoint:
        """Find where it changes its level (:func:`opd_diag.stats.change_point`); places without interval are left out.

        `shared_effects` for curves over checkpoints, not for those over positions.
        """
        known = np.array([not np.isnan(e.ci_low) for e in self.estimates], dtype=bool)
        prompts = min((e.n_clusters for e, of in zip(self.estimates, known, strict=True) if of), default=0)
        values = np.where(known, self.values, np.nan)
        return stats.change_point(values, self.draws, prompts, delta=delta, shared_effects=shared_effects)


def curve_of(states: pd.DataFrame, metric: str, state_set: str) -> Curve:
    """Give a metric of the catalogue over the checkpoints.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`: all checkpoints, in their order.
    metric, state_set
        Which metric, on which states; checkpoints that were not scored there are left out.
    """
    parts = {label: rows_of(states, label, state_set) for label in dict.fromkeys(states["label"])}
    return _curve({label: part for label, part in parts.items() if len(part)}, metric)


def depth_curve_of(
    states: pd.DataFrame, metric: str, state_set: str, label: str, edges: Sequence[int] | None = None
) -> Curve:
    """Give a metric of one checkpoint over bins of positions, the same bins as the depth table has.

    Its places are the first positions of the bins.
    """
    bins, numbers = binned(states, edges)
    chosen = rows_of(states.assign(depth=numbers), label, state_set)
    places = sorted(set(chosen["depth"]) - {-1})
    return _curve({int(bins[i]): chosen[chosen["depth"] == i] for i in places}, metric)


def _curve(parts: dict[object, pd.DataFrame], metric: str) -> Curve:
    weight = BY_NAME[metric].weight
    samples = []
    for part in parts.values():
        values = part[[metric]].to_numpy(float)
        counted = np.ones_like(values) if weight is None else part[[weight]].to_numpy(float)
        samples.append((values, part["prompt_index"].to_numpy(), counted))
    estimates = [stats.clustered_means(v, p, weights=w)[0] for v, p, w in samples]
    return Curve(tuple(parts), tuple(estimates), tuple(samples))
