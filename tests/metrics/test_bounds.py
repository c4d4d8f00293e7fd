"""Bounds with a teacher that is known at some ids: by hand, all extreme points, solvers, and teachers in between."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from opd_diag import metrics
from opd_diag.metrics import unknown
from opd_diag.metrics.tail_mass import TailMass

from .hard_logits import KINDS, logits_of, normalised
from .told import NAMES, any_tail, extremes, log, low_high, measured, mildest, told


def exactly(message):
    return f"^{re.escape(message)}$"


def by_name(bounds):
    return {name: low_high(bounds, name) for name in NAMES}


def stacked(states):
    """One call for states of one shape."""
    return [torch.stack(part) for part in zip(*(state.arguments for state in states), strict=True)]


def assert_inside(bounds, truth, places=1e-9):
    for name, value in truth.items():
        low, high = low_high(bounds, name)
        assert low - places <= value <= high + places, (name, low, value, high)


def test_by_hand():
    # p = (.4, .3, .2, .1), q(0) = .5, q(1) = .25; ids 2 and 3 share r = .25, each at most c = .25.
    # Least: q = λ p, λ = .25 / .3, so (.1667, .0833) below c. Greatest: all of r at id 3, the one of smallest p.
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    ids, known = torch.tensor([0, 1]), torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    found = metrics.tail_bounds(p, ids, known, torch.tensor(0.25, dtype=torch.float64).log(), slack=0.0)
    forward = 0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.3)
    reverse = 0.4 * math.log(0.4 / 0.5) + 0.3 * math.log(0.3 / 0.25)
    assert low_high(found, "forward_kl") == pytest.approx(
        (forward + 0.25 * math.log(0.25 / 0.3), forward + 0.25 * math.log(0.25 / 0.1)), abs=1e-12
    )
    assert low_high(found, "reverse_kl") == (pytest.approx(reverse + 0.3 * math.log(0.3 / 0.25), abs=1e-12), math.inf)
    assert low_high(found, "common_mass") == pytest.approx((0.4 + 0.25 + 0.1, 0.4 + 0.25 + 0.25), abs=1e-12)
    # Entropy: all of r at one id (1.5 bits), or half of it at each (1.75 bits).
    bits = [x / math.log(2) for x in low_high(found, "teacher_entropy")]
    assert bits == pytest.approx([1.5, 1.75], abs=1e-12)
    low, high = low_high(found, "jensen_shannon")
    assert low == pytest.approx(metrics.jensen_shannon(p, log([0.5, 0.25, 1 / 6, 1 / 12])).item(), abs=1e-12)
    assert high == pytest.approx(metrics.jensen_shannon(p, log([0.5, 0.25, 0.0, 0.25])).item(), abs=1e-12)


def test_a_binding_cap_by_hand():
    # r = .5 on three ids of p = (.6, .1, .1), c = .25: λ p would give (.375, .0625, .0625), so .25 and twice .125.
    p = torch.tensor([0.2, 0.6, 0.1, 0.1], dtype=torch.float64).log()
    cap = torch.tensor(0.25, dtype=torch.float64).log()
    found = metrics.tail_bounds(p, torch.tensor([0]), torch.tensor([0.5], dtype=torch.float64).log(), cap, slack=0.0)
    forward = 0.5 * math.log(0.5 / 0.2)
    least = 0.25 * math.log(0.25 / 0.6) + 2 * 0.125 * math.log(0.125 / 0.1)
    assert low_high(found, "forward_kl") == pytest.approx((forward + least, forward + 0.5 * math.log(2.5)), abs=1e-12)
    assert low_high(found, "common_mass") == pytest.approx((0.2 + 0.2, 0.2 + 0.25 + 0.2), abs=1e-12)


@pytest.mark.parametrize(("vocabulary", "k", "extra"), [(5, 1, 0), (6, 2, 1), (7, 2, 0), (6, 5, 0), (4, 1, 2)])
def test_the_far_ends_are_those_of_all_extreme_points(vocabulary, k, extra):
    generator = np.random.default_rng(vocabulary * 10 + k)
    states = [told(generator, vocabulary, k, extra=extra) for _ in range(20)]
    found = metrics.tail_bounds(*stacked(states), slack=0.0)
    for name, pick in [("forward_kl", max), ("jensen_shannon", max), ("common_mass", min), ("teacher_entropy", min)]:
        expected = []
        for state in states:
            tails = extremes(len(state.unknown), state.mass, state.cap)
            expected.append(pick(measured(state.p, state.with_tail(tail))[name] for tail in tails))
        low, high = low_high(found, name)
        assert (high if pick is max else low) == pytest.approx(expected, abs=1e-9), name


def test_reverse_kl_is_finite_where_every_unknown_id_must_have_something():
    # Ids 1, 2, 3 share r = .7, each at most .25: none can have less than .2, and the worst is where p is largest.
    p, cap = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64).log(), log(np.array(0.25))
    known = log(np.array([0.3]))
    found = metrics.tail_bounds(p, torch.tensor([0]), known, cap, slack=0.0)
    worst = metrics.reverse_kl(p, log(np.array([0.3, 0.2, 0.25, 0.25]))).item()
    assert low_high(found, "reverse_kl")[1] == pytest.approx(worst, abs=1e-12)
    looser = metrics.tail_bounds(p, torch.tensor([0]), known, log(np.array(0.35)), slack=0.0)
    assert low_high(looser, "reverse_kl")[1] == math.inf
    # The last unknown id has what is left: both ends are the value.
    exact = metrics.tail_bounds(p, torch.tensor([0, 1, 2]), log(np.array([0.3, 0.25, 0.25])), cap, slack=0.0)
    value = metrics.reverse_kl(p, log(np.array([0.3, 0.25, 0.25, 0.2]))).item()
    assert low_high(exact, "reverse_kl") == pytest.approx((value, value), abs=1e-12)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_the_near_ends_are_what_a_solver_finds(name):
    generator = np.random.default_rng(3)
    for state in [told(generator, 6, k, spread=1.0) for k in (1, 2, 3)]:
        p = torch.from_numpy(state.p[state.unknown])

        def of_tail(q, state=state, name=name):
            return measured(state.p, state.with_tail(np.maximum(q, 1e-300)))[name]

        n = len(p)
        done = minimize(
            of_tail,
            np.full(n, state.mass / n),
            method="SLSQP",
            bounds=[(1e-12, state.cap)] * n,
            constraints={"type": "eq", "fun": lambda q, state=state: q.sum() - state.mass},
            options={"ftol": 1e-13, "maxiter": 300},
        )
        assert done.success
        low = low_high(metrics.tail_bounds(*state.arguments, slack=0.0), name)[0]
        assert low == pytest.approx(done.fun, abs=1e-6)
        assert low <= done.fun + 1e-9


@pytest.mark.parametrize(("vocabulary", "k", "extra"), [(30, 1, 0), (30, 4, 5), (300, 20, 2), (300, 64, 0)])
def test_both_ends_are_attained_by_a_teacher_that_would_have_told_the_same(vocabulary, k, extra):
    generator = np.random.default_rng(vocabulary + k)
    for state in [told(generator, vocabulary, k, extra=extra, spread=1.0) for _ in range(8)]:
        found = metrics.tail_bounds(*state.arguments, slack=0.0)
        p = state.p[state.unknown]
        near = measured(state.p, state.with_tail(mildest(p, state.mass, state.cap)))
        full = int(state.mass / state.cap)
        tail = np.zeros(len(p))
        tail[np.argsort(p)[:full]] = state.cap
        tail[np.argsort(p)[full]] = state.mass - full * state.cap
        far = measured(state.p, state.with_tail(tail))
        for name in ("forward_kl", "reverse_kl", "jensen_shannon"):
            assert low_high(found, name) == pytest.approx((near[name], far[name]), abs=1e-9), name
        assert low_high(found, "common_mass") == pytest.approx((far["common_mass"], near["common_mass"]), abs=1e-9)
        even = measured(state.p, state.with_tail(np.full(len(p), state.mass / len(p))))
        expected = far["teacher_entropy"], even["teacher_entropy"]
        assert low_high(found, "teacher_entropy") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_whoever_would_have_told_the_same_lies_inside(seed):
    generator = np.random.default_rng(seed)
    state = told(generator, int(generator.integers(3, 60)), int(generator.integers(1, 3)), spread=3.0)
    for slack in (0.0, 1e-5):
        found = metrics.tail_bounds(*state.arguments, slack=slack)
        assert_inside(found, measured(state.p, state.q))
        for _ in range(25):
            tail = any_tail(generator, len(state.unknown), state.mass, state.cap)
            assert_inside(found, measured(state.p, state.with_tail(tail)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 20])
def test_float32_values_of_hard_logits_lie_inside(kind, k):
    student, teacher = (normalised(x) for x in logits_of(kind, 8, 3000))
    logprobs, ids = teacher.topk(k)
    found = metrics.tail_bounds(student, ids, logprobs, logprobs[..., -1])
    pair = student.double(), teacher.double()
    truth = {name: getattr(metrics, name)(*pair) for name in NAMES[1:]} | {"teacher_entropy": metrics.entropy(pair[1])}
    for name, value in truth.items():
        of = getattr(found, name)
        assert of.low.dtype == of.high.dtype == torch.float64
        # Log-probabilities of float32 sum to 1 give or take 1e-6, which divergences of the known ids see too.
        assert (of.low <= value + 2e-6).all(), name
        assert (value <= of.high + 2e-6).all(), name


def test_with_slack_the_bounds_are_those_of_the_worst_mass():
    generator = np.random.default_rng(11)
    for state in [told(generator, 6, k, spread=1.0) for k in (1, 2, 3, 4) for _ in range(3)]:
        slack = 0.06
        found = by_name(metrics.tail_bounds(*state.arguments, slack=slack))
        p, n = state.p[state.unknown], len(state.unknown)
        least, greatest = dict.fromkeys(NAMES, math.inf), dict.fromkeys(NAMES, -math.inf)
        highest = min(state.mass + slack, n * state.cap)
        lowest = max(0.0, state.mass - slack)
        multiples = [x for x in np.arange(n + 1) * state.cap if lowest <= x <= highest]
        for mass in [*np.linspace(lowest, highest * (1 - 1e-12), 41), *multiples]:
            tails = list(extremes(n, mass, state.cap)) if mass > 0 else [np.zeros(n)]
            if mass < n * state.cap * (1 - 1e-9):
                tails.append(mildest(p, mass, state.cap))
            tails.append(np.full(n, mass / n))
            for tail in tails:
                for name, value in measured(state.p, state.with_tail(tail)).items():
                    least[name], greatest[name] = min(least[name], value), max(greatest[name], value)
        for name in NAMES:
            low, high = found[name]
            assert low <= least[name] + 1e-9, name
            assert low == pytest.approx(least[name], abs=2e-3), name
            assert high >= greatest[name] - 1e-9, name
            assert high == pytest.approx(greatest[name], abs=2e-3), name


def test_what_is_known_of_everything_is_exact():
    generator = np.random.default_rng(5)
    states = [told(generator, 12, 12) for _ in range(10)]
    found = metrics.tail_bounds(*stacked(states))
    for name in NAMES:
        expected = [measured(state.p, state.q)[name] for state in states]
        low, high = low_high(found, name)
        assert low == high
        assert low == pytest.approx(expected, abs=1e-12)


def test_neither_order_nor_unused_places_nor_leading_shape_matter():
    generator = np.random.default_rng(6)
    states = [told(generator, 40, 5, extra=3) for _ in range(6)]
    p, ids, known, cap = stacked(states)
    expected = by_name(metrics.tail_bounds(p, ids, known, cap))
    order = torch.from_numpy(generator.permutation(8))
    same = {name: tuple(pytest.approx(end, abs=1e-13) for end in ends) for name, ends in expected.items()}
    assert by_name(metrics.tail_bounds(p, ids[:, order], known[:, order], cap)) == same
    spare = torch.full((6, 2), -1), torch.full((6, 2), math.nan)
    padded = [torch.cat([extra, part], -1) for extra, part in zip(spare, (ids, known), strict=True)]
    assert by_name(metrics.tail_bounds(p, *padded, cap)) == same
    shaped = metrics.tail_bounds(p.view(2, 3, 40), ids.view(2, 3, 8), known.view(2, 3, 8), cap.view(2, 3))
    one = metrics.tail_bounds(p[4], ids[4], known[4], cap[4])
    for name, (low, high) in expected.items():
        assert getattr(shaped, name).low.flatten().tolist() == low
        assert getattr(shaped, name).high.flatten().tolist() == high
        assert low_high(one, name) == pytest.approx((low[4], high[4]), abs=1e-13)
    none = metrics.tail_bounds(p[:0], ids[:0], known[:0], cap[:0])
    assert none.forward_kl.low.shape == (0,)


def test_a_teacher_that_tells_nothing():
    # Only c = .5 is known: entropy from 1 bit to log 4, common mass from what the two smallest p force.
    p = log(np.array([0.4, 0.3, 0.2, 0.1]))
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    found = metrics.tail_bounds(p, *nothing, log(np.array(0.5)), slack=0.0)
    assert low_high(found, "teacher_entropy") == pytest.approx((math.log(2), math.log(4)), abs=1e-12)
    assert low_high(found, "common_mass") == pytest.approx((0.3, 1.0), abs=1e-12)
    assert low_high(found, "forward_kl")[0] == pytest.approx(0, abs=1e-12)


def test_what_the_student_excludes():
    # Id 3 is impossible for the student: the teacher may have all of r = .1 there, or nothing.
    p = log(np.array([0.5, 0.3, 0.2, 0.0]))
    known = torch.tensor([0, 1]), log(np.array([0.6, 0.3]))
    found = metrics.tail_bounds(p, *known, log(np.array(0.3)), slack=0.0)
    nowhere, there = (measured(np.exp(p.numpy()), np.array(q)) for q in ([0.6, 0.3, 0.1, 0.0], [0.6, 0.3, 0.0, 0.1]))
    low, high = low_high(found, "forward_kl")
    assert low == pytest.approx(nowhere["forward_kl"], abs=1e-12)
    assert high == math.inf
    assert low_high(found, "jensen_shannon")[1] == pytest.approx(there["jensen_shannon"], abs=1e-12)
    # With room for .05 at id 2 only, the rest must be where the student has nothing.
    forced = metrics.tail_bounds(p, *known, log(np.array(0.05)), slack=0.0)
    assert low_high(forced, "forward_kl")[1] == math.inf
    squeezed = metrics.tail_bounds(p, *known, log(np.array(0.07)), slack=0.0)
    assert low_high(squeezed, "forward_kl") == (math.inf, math.inf)
    # Where the teacher has nothing left, and excludes an id that the student may do.
    nothing_left = torch.tensor([0, 1, 2]), log(np.array([0.6, 0.4, 0.0]))
    certain = metrics.tail_bounds(p, *nothing_left, torch.tensor(-math.inf, dtype=torch.float64))
    assert low_high(certain, "reverse_kl") == (math.inf, math.inf)
    assert low_high(certain, "forward_kl") == pytest.approx((0.6 * math.log(1.2) + 0.4 * math.log(4 / 3),) * 2)


def hostile_pairs():
    """Logits with all that makes NaN: impossible ids, ids below what exp can hold, one id with everything."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(4, 20, 50, generator=generator, dtype=torch.float64)
    logits[1].masked_fill_(torch.rand(20, 50, generator=generator) < 0.6, -math.inf)
    logits[1, :, 0] = 0.0
    logits[2].masked_fill_(torch.rand(20, 50, generator=generator) < 0.6, -2000.0)
    logits[3, :, 7] += 300
    logprobs = logits.log_softmax(-1)
    return logprobs[:, None, :10].expand(4, 4, 10, 50), logprobs[None, :, 10:].expand(4, 4, 10, 50)


@pytest.mark.parametrize("slack", [0.0, 1e-5])
@pytest.mark.parametrize("k", [1, 7, 49, 50])
def test_never_nan_and_in_range(k, slack):
    student, teacher = hostile_pairs()
    known, ids = teacher.topk(k)
    for cap in (known[..., -1], *(torch.full(ids.shape[:-1], x, dtype=torch.float64) for x in (-math.inf, -30.0, 0.0))):
        found = metrics.tail_bounds(student, ids, known, cap, slack=slack)
        for name in NAMES:
            of = getattr(found, name)
            assert (of.low >= 0).all(), name
            assert (of.low <= of.high).all(), name
        assert (found.jensen_shannon.high <= math.log(2)).all()
        assert (found.common_mass.high <= 1).all()
        assert found.teacher_entropy.high.isfinite().all()


@pytest.mark.parametrize("slack", [0.0, 1e-5])
@pytest.mark.parametrize("k", [1, 7, 49, 50])
def test_hostile_pairs_lie_inside(k, slack):
    pair = hostile_pairs()
    truth = {name: getattr(metrics, name)(*pair) for name in NAMES[1:]}
    truth["teacher_entropy"] = metrics.entropy(pair[1])
    assert not any(value.isnan().any() for value in truth.values())
    known, ids = pair[1].topk(k)
    found = metrics.tail_bounds(pair[0], ids, known, known[..., -1], slack=slack)
    for name, value in truth.items():
        of = getattr(found, name)
        assert (of.low <= value + 1e-9 * value.clamp(min=1)).all(), name
        assert (value <= of.high + 1e-9 * of.high.clamp(min=1)).all(), name


def test_many_ids_at_the_cap_are_bounded_in_groups(monkeypatch):
    # Some 3000 ids at the cap: groups are valid, and wider than one id by one by little.
    generator = np.random.default_rng(9)
    p = generator.dirichlet(np.exp(2 * generator.standard_normal(6000)))
    q = generator.dirichlet(np.full(6000, 3.0))
    known = np.argsort(-q)[:50]
    arguments = log(p), torch.tensor(known), log(q[known]), log(np.array(q[known].min()))
    grouped = by_name(metrics.tail_bounds(*arguments, slack=0.0))
    monkeypatch.setattr(unknown, "GROUPS", 10**6)
    exact = by_name(metrics.tail_bounds(*arguments, slack=0.0))
    assert 1 / q[known].min() > 4 * 512
    for name in NAMES:
        (low, high), (least, greatest) = grouped[name], exact[name]
        assert least - 1e-4 < low <= least + 1e-12, name
        assert greatest - 1e-12 <= high < greatest + 1e-4 or greatest == math.inf, name
    assert grouped["jensen_shannon"] != exact["jensen_shannon"]


@pytest.mark.parametrize("law", ["REVERSE_KL", "FORWARD_KL", "JENSEN_SHANNON", "NEGATIVE_COMMON_MASS"])
def test_groups_never_cut_anything_off(monkeypatch, law):
    # 37 of 40 unknown ids at the cap, in three groups, where p varies a lot.
    generator = np.random.default_rng(10)
    p = torch.from_numpy(generator.dirichlet(np.full(40, 0.5), 50)).log()
    order = unknown.Unknown(unknown.ascending(p), unknown.ascending(torch.full((50, 1), math.inf).double()))
    law, ones = getattr(unknown, law), torch.ones(50, 1, dtype=torch.float64)
    for cap in (1 / 37.5, 1 / 39.5):
        tail = TailMass(ones, ones, cap * ones, order.n)
        ends = []
        for groups in (512, 3):
            monkeypatch.setattr(unknown, "GROUPS", groups)
            ends.append((unknown.least(law, order, tail), unknown.greatest(law, order, tail)))
        (least, greatest), (low, high) = ends
        assert (low <= least + 1e-12).all()
        assert (high >= greatest - 1e-12).all()
        assert (low < least - 1e-6).any()
        assert ((high > greatest + 1e-6) | greatest.isinf()).any()


def test_the_more_is_known_the_less_may_be():
    generator = np.random.default_rng(4)
    p, teacher = (log(generator.dirichlet(np.full(80, shape), 10)) for shape in (1.0, 0.5))
    logprobs, ids = teacher.topk(80)
    extra = torch.from_numpy(generator.integers(0, 80, (10, 4)))
    ks = [1, 2, 3, 5, 8, 16, 40, 79, 80]
    found = metrics.nested_bounds(p, ids, logprobs, extra, teacher.gather(-1, extra), ks)
    assert list(found) == ks
    for name in NAMES:
        for fewer, more in itertools.pairwise(ks):
            narrow, wide = getattr(found[more], name), getattr(found[fewer], name)
            assert (narrow.low >= wide.low - 1e-12).all(), name
            assert (narrow.high <= wide.high + 1e-12).all(), name
        last, first = getattr(found[80], name), getattr(found[1], name)
        assert torch.equal(last.low, last.high)
        assert (first.high - first.low > 0.01).all(), name


def test_nested_bounds_are_those_of_each_k():
    generator = np.random.default_rng(8)
    for dtype, places in ((torch.float64, 1e-12), (torch.float32, 1e-7)):
        p, teacher = (log(generator.dirichlet(np.ones(30), (2, 3))).to(dtype) for _ in range(2))
        logprobs, ids = teacher.topk(12)
        # Ids of the top-12 of any rank, others, one of them twice, places that are not used.
        extra = torch.from_numpy(generator.integers(-1, 30, (2, 3, 7)))
        extra[..., 0], extra[..., 1], extra[..., 2], extra[..., 6] = ids[..., 0], ids[..., 9], -1, extra[..., 5]
        of_extra = teacher.gather(-1, extra.clamp(min=0))
        found = metrics.nested_bounds(p, ids, logprobs, extra, of_extra, [1, 3, 10, 12])
        for k, bounds in found.items():
            for at in np.ndindex(2, 3):
                known = sorted({*ids[at][:k].tolist(), *extra[at].tolist()} - {-1})
                alone = metrics.tail_bounds(p[at], torch.tensor(known), teacher[at][known], logprobs[at][k - 1])
                for name in NAMES:
                    mine = getattr(bounds, name)
                    theirs = low_high(alone, name)
                    assert (mine.low[at].item(), mine.high[at].item()) == pytest.approx(theirs, abs=places), name


def test_refusals():
    p, ids, known, cap = torch.zeros(2, 5), torch.tensor([[0, 1], [2, 3]]), torch.zeros(2, 2), torch.zeros(2)
    for arguments, message in [
        ((p, ids, known[:, :1], cap), "Log-probabilities must have the ids' shape (2, 2), found (2, 1)."),
        ((p[:1], ids, known, cap), "States must have the shape (1,) everywhere, found (2,)."),
        ((p, ids, known, cap[:1]), "States must have the shape (2,) everywhere, found (1,)."),
        ((p, ids + 2, known, cap), "Ids must be 0 to 4, or -1 where there is none, found 5."),
        ((p, ids - 2, known, cap), "Ids must be 0 to 4, or -1 where there is none, found -2."),
        ((p, ids // 2, known, cap), "Ids of a state must be distinct, found 0 twice."),
    ]:
        with pytest.raises(ValueError, match=exactly(message)):
            metrics.tail_bounds(*arguments)
    for ks, found in (([1, 3], 3), ([0], 0)):
        message = f"k must be 1 to the 2 most probable tokens that are given, found {found}."
        with pytest.raises(ValueError, match=exactly(message)):
            metrics.nested_bounds(p, ids, known, ids, known, ks)
    with pytest.raises(ValueError, match=exactly("States must have the shape (2,) everywhere, found (1,).")):
        metrics.nested_bounds(p, ids, known, ids[:1], known[:1], [1])
