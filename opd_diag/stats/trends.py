"""Whether a number rises or falls over the checkpoints of a run."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def kendall_tau(order: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Kendall's rank correlation (tau-b) of `values` with `order`: 1 if every later value is higher, -1 if lower.

    Parameters
    ----------
    order
        (C,) what puts the values in order, for example the step.
    values
        (C,) one number a checkpoint; NaN and infinite ones are left out.

    Returns
    -------
    float
        In [-1, 1]; NaN with fewer than three finite points, or where either side is constant.

    Raises
    ------
    ValueError
        The lengths differ.

    Notes
    -----
    Caution: it describes this run's curve and tests nothing. Checkpoints of one run share its seed, prompts and data
    order, so they are no independent draws: a p-value or an interval from the points alone would be several times too
    sure, and none is given. Nor does it tell how large the change is: a rise of 0.001 per step scores 1 like any other.

    References
    ----------
    Kendall (1945), The treatment of ties in ranking problems.

    Examples
    --------
    >>> round(kendall_tau([0, 20, 40, 60], [0.1, 0.3, 0.2, 0.4]), 4)
    0.6667
    """
    x, y = np.asarray(order, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"Every value needs its place: expected two shapes (C,), found {x.shape} and {y.shape}.")
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.sum() < 3:
        return math.nan
    from scipy.stats import kendalltau  # scipy.stats takes half a second to import; only this function needs it

    return float(kendalltau(x[finite], y[finite]).statistic)
