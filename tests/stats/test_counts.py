"""pass@k, McNemar's test and Fisher's against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from opd_diag.stats import (
    changed_items,
    clustered_mean_difference,
    mcnemar,
    net_share,
    paired_share_difference,
    pass_at_k,
    tas_at_k,
)


@given(n=st.integers(1, 9), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    (found,) = pass_at_k([c], [n], k)
    assert found == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_the_published_estimator():
    """Chen et al. (2021), appendix A: n = 200, c = 25, k = 100 and others, by the binomial coefficients themselves."""
    for n, c, k in [(200, 25, 1), (200, 25, 100), (200, 1, 10), (100, 99, 2), (1024, 3, 512)]:
        assert pass_at_k([c], [n], k)[0] == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), rel=1e-9)


def test_pass_at_k_has_no_bias():
    rng, p, n, k = np.random.default_rng(0), 0.2, 8, 4
    means = pass_at_k(rng.binomial(n, p, 40_000), np.full(40_000, n), k).mean()
    assert means == pytest.approx(1 - (1 - p) ** k, abs=0.005)


def test_pass_at_k_of_too_few_responses_is_undefined():
    assert np.isnan(pass_at_k([1, 2], [3, 4], 4)).tolist() == [True, False]


@pytest.mark.parametrize(("c", "n", "k"), [([1], [2], 0), ([3], [2], 1), ([-1], [2], 1)])
def test_pass_at_k_refuses(c, n, k):
    with pytest.raises(ValueError, match="must be"):
        pass_at_k(c, n, k)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_twice_the_tail_of_a_fair_coin(gained, lost):
    tosses = gained + lost
    tail = sum(math.comb(tosses, i) for i in range(min(gained, lost) + 1)) / 2**tosses
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail)) == pytest.approx(mcnemar(lost, gained))


def test_mcnemar_refuses_less_than_none():
    with pytest.raises(ValueError, match="at least 0, found -1 and 2"):
        mcnemar(-1, 2)


@pytest.mark.parametrize(("gained", "lost", "total"), [(0, 0, 12), (3, 0, 20), (5, 9, 40), (10, 0, 10), (1, 7, 8)])
def test_net_share_is_where_the_score_test_stops(gained, lost, total):
    """Each end is as far from what was seen as z allows, by the likeliest shares that differ by so much."""

    def distance(delta):
        def unlikelihood(q):  # shares q + delta gained, q lost, the rest as it was
            of = [(gained, q + delta), (lost, q), (total - gained - lost, 1 - delta - 2 * q)]
            return -sum(n * math.log(max(p, 1e-300)) for n, p in of if n)

        bounds = max(0.0, -delta), (1 - delta) / 2
        q = minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return (gained - lost - total * delta) / math.sqrt(total * (2 * q + delta - delta**2))

    low, high = net_share(gained, lost, total)
    assert distance(low) == pytest.approx(1.959964, abs=1e-3)
    assert high == pytest.approx(1.0) or distance(high) == pytest.approx(-1.959964, abs=1e-3)
    assert net_share(lost, gained, total) == pytest.approx((-high, -low))


def test_net_share_of_no_change_is_wilsons_of_none():
    for total in (1, 5, 64):
        assert net_share(0, 0, total) == pytest.approx((-3.841459 / (total + 3.841459), 3.841459 / (total + 3.841459)))


def test_net_share_covers_where_few_change():
    rng, covered = np.random.default_rng(2), 0
    for gained, lost, same in rng.multinomial(20, [0.02, 0.08, 0.9], 2000):
        low, high = net_share(int(gained), int(lost), int(gained + lost + same))
        covered += low <= -0.06 <= high
    assert covered >= 0.94 * 2000


@pytest.mark.parametrize(("gained", "lost", "total"), [(-1, 0, 4), (3, 2, 4), (0, 0, 0)])
def test_net_share_refuses(gained, lost, total):
    with pytest.raises(ValueError, match=rf"0 to all, found {gained} and {lost} of {total}\."):
        net_share(gained, lost, total)


def test_paired_share_difference_leaves_what_varies_and_what_has_no_interval():
    prompts = range(6)
    first, second = [0.0, 0.5, 1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 1.0, 0.0, 0.25, 1.0]
    found = clustered_mean_difference(first, prompts, second, prompts)
    assert paired_share_difference(found, first, second) is found
    few = clustered_mean_difference(first[:3], [0, 1, 2], first[:3], [0, 1, 2])
    assert paired_share_difference(few, first[:3], first[:3]) is few


def test_paired_share_difference_counts_changed_sides():
    first, second = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    plain = clustered_mean_difference(first, range(7), second, range(7))
    found = paired_share_difference(plain, first, second)
    assert (found.ci_low, found.ci_high) == net_share(2, 1, 7)
    assert found.interval(0.95)[0] <= found.ci_low + 1e-12


def test_changed_items_are_fishers_test_held_together():
    def fisher(a, n, b, m):
        """Sum of the probabilities of all tables with these margins that are no more probable than the one seen."""
        ways = {x: math.comb(n, x) * math.comb(m, a + b - x) for x in range(max(0, a + b - m), min(n, a + b) + 1)}
        return sum(w for w in ways.values() if w <= ways[a] * (1 + 1e-7)) / math.comb(n + m, a + b)

    rows = [(0, 8, 8, 8), (1, 8, 6, 8), (4, 8, 5, 8), (8, 8, 7, 8), (3, 4, 9, 10)]
    plain = sorted((fisher(*row), i) for i, row in enumerate(rows))
    expected, least = [0.0] * len(rows), 1.0
    for rank in range(len(rows), 0, -1):
        p, i = plain[rank - 1]
        least = min(least, p * len(rows) / rank)
        expected[i] = least
    assert changed_items(*zip(*rows, strict=True)) == pytest.approx(expected)


def test_changed_items_of_none():
    assert changed_items([], [], [], []).tolist() == []


def test_changed_items_keep_their_level_where_nothing_changes():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        p = rng.uniform(0.1, 0.9, 40)
        first, last = rng.binomial(8, p), rng.binomial(8, p)
        false += bool((changed_items(first, np.full(40, 8), last, np.full(40, 8)) < 0.05).any())
    assert false <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


class TestTeacherSelectionScore:
    def test_the_hand_example(self):
        assert tas_at_k([2], [8], [2.0], 3).tolist() == [0.6328125]

    def test_all_or_none_correct_tell_nothing_whatever_the_signal(self):
        assert tas_at_k([0, 8], [8, 8], [math.nan, 3.0], 3).tolist() == [0.0, 0.0]

    def test_it_is_the_slope_of_pass_at_k(self):
        """A small push of the log-odds by Δm moves 1 - (1 - p)^k by k p (1 - p)^k Δm."""
        p, k, push = 0.25, 3, 1e-6
        pushed = 1 / (1 + (1 - p) / p * math.exp(-push))
        slope = ((1 - p) ** k - (1 - pushed) ** k) / push
        assert tas_at_k([2], [8], [1.0], k)[0] == pytest.approx(slope, rel=1e-5)

    def test_no_try_is_refused(self):
        with pytest.raises(ValueError, match="k must be at least 1, found 0"):
            tas_at_k([1], [2], [1.0], 0)
