"""Kendall's tau: against pairs counted by hand, a naive version, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opd_diag import stats


def naive_tau(order, values):
    """Concordant minus discordant pairs over the geometric mean of the untied pairs of each side."""
    concordant, untied_order, untied_values = 0, 0, 0
    for i in range(len(order)):
        for j in range(i):
            x, y = np.sign(order[i] - order[j]), np.sign(values[i] - values[j])
            concordant += x * y
            untied_order += x * x
            untied_values += y * y
    return concordant / math.sqrt(untied_order * untied_values)


def test_by_hand():
    # Pairs of (1, 3, 2): 1-3 up, 1-2 up, 3-2 down: (2 - 1) / 3.
    assert stats.kendall_tau([0, 20, 40], [1.0, 3.0, 2.0]) == pytest.approx(1 / 3)
    assert stats.kendall_tau([0, 20, 40], [5.0, 6.0, 6.5]) == pytest.approx(1.0)
    assert stats.kendall_tau([40, 20, 0], [5.0, 6.0, 6.5]) == pytest.approx(-1.0)


def test_equal_to_the_naive_version_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        order, values = rng.integers(0, 6, 12), rng.integers(0, 5, 12).astype(float)
        assert stats.kendall_tau(order, values) == pytest.approx(naive_tau(order, values), abs=1e-12)


def test_leaves_out_what_is_not_finite():
    values = [1.0, math.nan, 3.0, math.inf, 2.0]
    assert stats.kendall_tau(range(5), values) == pytest.approx(1 / 3)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [1.0, 2.0, math.nan], [2.0, 2.0, 2.0, 2.0]])
def test_undefined_is_nan(values):
    assert math.isnan(stats.kendall_tau(range(len(values)), values))


def test_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match=r"found \(2,\) and \(3,\)"):
        stats.kendall_tau([0, 1], [1.0, 2.0, 3.0])
