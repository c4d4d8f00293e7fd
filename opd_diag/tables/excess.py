"""A metric by depth on a checkpoint's own responses over a control, and the place where it breaks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from opd_diag import stats
from opd_diag.tables.cohort import cohorts, depth_edges
from opd_diag.tables.curves import Curve, depth_curve_of
from opd_diag.tables.rows import estimate_columns, rollout_ids

CURVE_BINS = 32
"""Most bins of a curve that is searched for a break."""

EXCESS_COLUMNS = [
    "step", "label", "metric", "control", "depth_low", "depth_high", "value", "ci_low", "ci_high",
    "own", "than", "n_prompts", "n_rollouts", "n_control_rollouts",
]  # fmt: skip

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Break:
    """Where an excess rises to another level, as positions."""

    position: int
    """First position after it."""
    low: int
    """95 % interval of the position, both ends within."""
    high: int
    jump: float
    """Excess after less before, in units of the metric."""
    p_value: float
    """Of no change at all."""


@dataclass(frozen=True)
class Excess:
    """How far a metric at a checkpoint's own states lies above a control, by depth.

    On prompts that both have, the same rollouts at every depth on either side.
    """

    step: int | None
    label: str
    metric: str
    control: str
    """``teacher``: the teacher's own responses, scored by the same checkpoint. Else the label of another checkpoint,
    whose own responses they are."""
    edges: tuple[tuple[int, int], ...]
    """First position of each bin, and the first after it."""
    own: Curve
    than: Curve
    n_prompts: int
    n_rollouts: tuple[int, int]
    """Rollouts of the checkpoint's, and of the control's."""

    @property
    def values(self) -> Floats:
        """(P,) own less control."""
        return self.own.values - self.than.values

    @cached_property
    def draws(self) -> Floats:
        """(B, P) the same in every resampling of prompts."""
        return self.own.draws - self.than.draws

    def breaks(self, delta: float, level: float = 0.05) -> Break | None:
        """Find the place from which it is higher by more than `delta`; None where none is established."""
        if len(self.edges) < 3:
            return None
        found = stats.change_point(self.values, self.draws, self.n_prompts, delta=delta)
        if found.location is None or found.jump <= 0 or found.p_value > level:
            return None
        assert found.location_low is not None
        assert found.location_high is not None
        low = self.edges[found.location_low - 1][0] + 1  # the change may lie within the bin before
        high = self.edges[found.location_high][1] - 1  # or within the one that it was put before
        return Break(self.edges[found.location][0], low, high, found.jump, found.p_value)

    def own_rise(self, position: int) -> stats.Estimate:
        """Tell how much the metric itself is higher from a position on than before."""
        return _rise(self.own.values, self.own.draws, self._bins_before(position), self.n_prompts)

    def largest_rise(self) -> tuple[int, stats.Estimate] | None:
        """Give, of all places but the outermost eighths, the one where a rise is least excluded, and the rise.

        None where there are too few bins. A rise of δ at any of these places is excluded (one-sided, 5 %) where it is
        here: of many places, each is asked and all must say no.
        """
        bins = len(self.edges)
        edge = max(2, math.ceil(bins / 8))
        rises = [(at, _rise(self.values, self.draws, at, self.n_prompts)) for at in range(edge, bins - edge + 1)]
        known = [(self.edges[at][0], rise) for at, rise in rises if not math.isnan(rise.ci_low)]
        return max(known, key=lambda of: of[1].interval(0.9)[1], default=None)

    def table(self) -> pd.DataFrame:
        """Give it bin by bin."""
        rows = []
        for i, (low, high) in enumerate(self.edges):
            mine, theirs = self.own.samples[i], self.than.samples[i]
            estimate = stats.clustered_mean_difference(theirs[0][:, 0], theirs[1], mine[0][:, 0], mine[1])
            levels = {"own": self.own.values[i], "than": self.than.values[i]}
            rows.append({"depth_low": low, "depth_high": high} | levels | estimate_columns(estimate))
        about = {"step": self.step, "label": self.label, "metric": self.metric, "control": self.control}
        counts = {"n_rollouts": self.n_rollouts[0], "n_control_rollouts": self.n_rollouts[1]}
        return pd.DataFrame(rows).assign(**about, **counts)[EXCESS_COLUMNS].astype({"step": "Int64"})

    def _bins_before(self, position: int) -> int:
        return sum(low < position for low, _ in self.edges)


def excess_of(
    states: pd.DataFrame, metric: str, label: str, length: int, *, than: tuple[str, str], control: str = "teacher"
) -> Excess | None:
    """Hold a checkpoint's own states against a control, on the cohorts of a length.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`.
    metric
        Name in the catalogue; one without weights.
    label
        The checkpoint.
    length
        Of the cohorts.
    than
        Label and state set of the control.
    control
        What the table calls it.

    Returns
    -------
    Excess or None
        None where either side has no rollout so long, or they share no prompt.
    """
    parts = [cohorts(rows[rows["states"] == of], length) for rows, of in _sides(states, label, than)]
    shared = set(parts[0]["prompt_index"]) & set(parts[1]["prompt_index"])
    parts = [part[part["prompt_index"].isin(shared)] for part in parts]
    if not shared:
        return None
    edges = depth_edges(length, CURVE_BINS)
    curves = [
        depth_curve_of(part, metric, str(part["states"].iloc[0]), str(part["label"].iloc[0]), edges) for part in parts
    ]
    places = [place for place in curves[0].places if place in set(curves[1].places)]
    step = parts[0]["step"].iloc[0]
    return Excess(
        step=None if pd.isna(step) else int(step),
        label=label,
        metric=metric,
        control=control,
        edges=tuple((low, high) for low, high in itertools.pairwise(edges) if low in set(places)),
        own=_at(curves[0], places),
        than=_at(curves[1], places),
        n_prompts=len(shared),
        n_rollouts=(_count(parts[0]), _count(parts[1])),
    )


def _sides(states: pd.DataFrame, label: str, than: tuple[str, str]) -> list[tuple[pd.DataFrame, str]]:
    return [(states[states["label"] == label], "on-policy"), (states[states["label"] == than[0]], than[1])]


def _count(rollouts: pd.DataFrame) -> int:
    return len(np.unique(rollout_ids(rollouts)))


def _at(curve: Curve, places: Sequence[object]) -> Curve:
    kept = [i for i, place in enumerate(curve.places) if place in set(places)]
    return Curve(tuple(places), tuple(curve.estimates[i] for i in kept), tuple(curve.samples[i] for i in kept))


def _rise(values: Floats, draws: Floats, bins_before: int, prompts: int) -> stats.Estimate:
    """Tell how much the mean of the later bins is above that of the earlier ones; every bin counts the same."""
    nan = math.nan
    weights = np.where(np.arange(len(values)) < bins_before, -1 / bins_before, 1 / (len(values) - bins_before))
    value = float(values @ weights)
    if prompts < stats.MIN_CLUSTERS:
        return stats.Estimate(value, nan, nan, nan, prompts, prompts, 0)
    # means vary more than resampled means do, by (G + 1)/(G - 1)
    error = float((draws @ weights).std()) * math.sqrt((prompts + 1) / (prompts - 1))
    half = error * float(stdtrit(prompts - 1, 0.975))
    return stats.Estimate(
        value, value - half, value + half, error, prompts, prompts, 0, degrees_of_freedom=float(prompts - 1)
    )
