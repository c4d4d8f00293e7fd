"""What a teacher can have at ids of which it told nothing: by hand, by linear programs, and what is exact."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from opd_diag import metrics
from opd_diag.metrics.tail_mass import tail_mass
from opd_diag.metrics.teacher_bounds import bounds_of_entropy

from .told import log, told


def ends(bounds):
    return bounds.low.tolist(), bounds.high.tolist()


def refused(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def program(state, ids, sign, slack):
    """Least (sign 1) or greatest (-1) mass at ids, over all teachers that would have told the same."""
    unknown = state.unknown
    wanted = np.isin(unknown, ids).astype(float)
    done = linprog(
        sign * wanted,
        A_ub=np.array([np.ones(len(unknown)), -np.ones(len(unknown))]),
        b_ub=[state.mass + slack, slack - state.mass],
        bounds=(0, state.cap),
    )
    assert done.success
    return sign * done.fun + state.q[np.intersect1d(ids, state.known)].sum()


@pytest.mark.parametrize("slack", [0.0, 0.03])
def test_a_mass_is_what_a_linear_program_finds(slack):
    generator = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        vocabulary = int(generator.integers(3, 12))
        state = told(generator, vocabulary, int(generator.integers(1, vocabulary)), extra=1, spread=1.0)
        ids = generator.permutation(vocabulary)[: int(generator.integers(1, vocabulary + 1))]
        if len(state.unknown) == 0:
            continue
        _, *known = state.arguments
        found = metrics.teacher_mass_bounds(*known, torch.tensor(ids), vocabulary, slack=slack)
        expected = [program(state, ids, sign, slack) for sign in (1, -1)]
        assert ends(found) == pytest.approx(np.clip(expected, 0, 1).tolist(), abs=1e-9)
        unknown = np.isin(ids, state.unknown).sum()
        seen.add("all" if unknown == len(state.unknown) else "none" if unknown == 0 else "some")
    assert seen == {"all", "some", "none"}


def test_a_mass_by_hand():
    # Known .5 and .2, r = .3 on ids 2, 3 and 4, each at most .15: at least .3 - 2 × .15 = 0 at one, and at most .15;
    # at two of them at least .15, at three exactly .3.
    known = torch.tensor([0, 1]), log([0.5, 0.2]), log(0.15)
    for ids, expected in [([2], (0, 0.15)), ([2, 3], (0.15, 0.3)), ([4, 2, 3], (0.3, 0.3)), ([0, 4], (0.5, 0.65))]:
        found = metrics.teacher_mass_bounds(*known, torch.tensor(ids), 5, slack=0.0)
        assert ends(found) == pytest.approx(expected, abs=1e-12)
        assert ends(metrics.teacher_mass_bounds(*known, torch.tensor([*ids, -1, -1]), 5, slack=0.0)) == ends(found)
    assert ends(metrics.teacher_mass_bounds(*known, torch.zeros(0), 5)) == (0, 0)
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0), log(0.3)
    assert ends(metrics.teacher_mass_bounds(*nothing, torch.tensor([1]), 4, slack=0.0)) == pytest.approx((0.1, 0.3))


def test_a_mass_of_each_state():
    known_ids = torch.tensor([[3, 1, -1], [0, 4, 2]])
    known = torch.tensor([[0.5, 0.25, math.nan], [0.5, 0.25, 0.125]]).log()
    cap = torch.tensor([0.25, 0.125]).log()
    found = metrics.teacher_mass_bounds(known_ids, known, cap, torch.tensor([[3, 0], [4, 3]]), 6, slack=0.0)
    assert found.low.dtype == found.high.dtype == torch.float64
    assert ends(found) == (pytest.approx([0.5, 0.25]), pytest.approx([0.75, 0.375]))
    for_all = metrics.teacher_mass_bounds(known_ids, known, cap, torch.tensor([4]), 6, slack=0.0)
    assert ends(for_all) == (pytest.approx([0, 0.25]), pytest.approx([0.25, 0.25]))


def test_a_mass_is_exact_where_all_ids_are_known_and_gets_no_wider_with_more():
    generator = np.random.default_rng(2)
    teacher = log(generator.dirichlet(np.full(40, 0.4), 20))
    logprobs, order = teacher.topk(40)
    ids = torch.tensor([1, 5, 6, 30])
    value = teacher[:, ids].exp().sum(-1)
    low, high = torch.zeros(20), torch.ones(20)
    for k in range(1, 41):
        found = metrics.teacher_mass_bounds(order[:, :k], logprobs[:, :k], logprobs[:, k - 1], ids, 40)
        assert (found.low >= low - 1e-12).all()
        assert (found.high <= high + 1e-12).all()
        assert (found.low <= value + 1e-12).all()
        assert (value <= found.high + 1e-12).all()
        low, high = found.low, found.high
    assert torch.equal(low, high)
    assert low.tolist() == pytest.approx(value.tolist(), abs=1e-12)


def test_what_is_known_comes_back_to_the_bit_and_nan_elsewhere():
    known_ids = torch.tensor([[3, 1, -1, -1], [0, 4, 2, -1]])
    known = torch.tensor([[0.5, 0.4, 0.3, 0.0], [0.5, 0.25, 0.0, 0.3]], dtype=torch.float64).log()
    found = metrics.known_at(known_ids, known, torch.tensor([[1, 2, -1, 3, 3], [2, -1, 0, 9, 1]]))
    of = [
        [known[0, 1], math.nan, math.nan, known[0, 0], known[0, 0]],
        [-math.inf, math.nan, known[1, 0], math.nan, math.nan],
    ]
    np.testing.assert_array_equal(found, np.array(of))
    assert found.dtype == torch.float64


def test_nothing_is_known_of_no_ids_and_no_ids_are_wanted():
    nothing = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0)
    assert metrics.known_at(*nothing, torch.tensor([[0, 1], [2, -1]])).isnan().all()
    some = torch.tensor([[3, 1]]), torch.zeros(1, 2)
    assert metrics.known_at(*some, torch.zeros(1, 0, dtype=torch.int64)).shape == (1, 0)


def test_the_least_entropy_may_be_at_a_whole_number_of_caps():
    # c = .5 and .4 to .6 at three ids: .5 at one of them is less uncertain than .4, as x log x is least at 1/e.
    tail = tail_mass(torch.tensor([0]), log([0.5]), log(0.5), 4, 0.1)
    low, high = ends(bounds_of_entropy(log([0.5]), tail))
    assert low == pytest.approx(math.log(2), abs=1e-12)
    assert high == pytest.approx(0.5 * math.log(2) + 0.6 * math.log(3 / 0.6), abs=1e-12)


def test_the_greatest_entropy_may_lie_between_the_ends_of_the_mass():
    # One unknown id with .3 to .5: -x log x is greatest at 1/e.
    tail = tail_mass(torch.tensor([0]), log([0.6]), log(0.5), 2, 0.1)
    low, high = ends(bounds_of_entropy(log([0.6]), tail))
    assert high == pytest.approx(-0.6 * math.log(0.6) + 1 / math.e, abs=1e-12)
    assert low == pytest.approx(-0.6 * math.log(0.6) + 0.5 * math.log(2), abs=1e-9)


def test_refusals():
    ids, known, cap, asked = torch.tensor([[0, 1], [2, 3]]), torch.zeros(2, 2), torch.zeros(2), torch.tensor([[0], [1]])
    with refused("Log-probabilities must have the ids' shape (2, 2), found (2, 1)."):
        metrics.teacher_mass_bounds(ids, known[:, :1], cap, asked, 4)
    with refused("States must have the shape (2,) everywhere, found (1,)."):
        metrics.teacher_mass_bounds(ids, known, cap[:1], asked, 4)
    with refused("States must have the shape (2,) everywhere, found (1,)."):
        metrics.teacher_mass_bounds(ids, known, cap, asked[:1], 4)
    with refused("Ids of a state must be distinct, found 1 twice."):
        metrics.teacher_mass_bounds(torch.ones_like(ids), known, cap, asked, 4)
    with refused("Ids must be 0 to 2, or -1 where there is none, found 3."):
        metrics.teacher_mass_bounds(ids, known, cap, asked, 3)
    with refused("Ids must be 0 to 3, or -1 where there is none, found 4."):
        metrics.teacher_mass_bounds(ids, known, cap, asked + 3, 4)
    with refused("Ids of a state must be distinct, found 2 twice."):
        metrics.teacher_mass_bounds(ids, known, cap, torch.tensor([2, 2]), 4)
