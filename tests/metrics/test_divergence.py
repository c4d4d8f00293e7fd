"""Divergences over the whole vocabulary: by hand, naive Python, scipy, and fp32 against fp64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cityblock, jensenshannon
from scipy.special import rel_entr
from scipy.stats import entropy as scipy_entropy

from opd_diag import metrics

from .hard_logits import KINDS, logits_of, normalised

P, Q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]))
PAIRWISE = (
    metrics.reverse_kl,
    metrics.forward_kl,
    metrics.jensen_shannon,
    metrics.common_mass,
)


def naive_kl(first, second):
    total = 0.0
    for a, b in zip(first, second, strict=True):
        if a > -math.inf:
            total += math.inf if b == -math.inf else math.exp(a) * (a - b)
    return total


def naive_jensen_shannon(first, second):
    mixture = [(math.exp(a) + math.exp(b)) / 2 for a, b in zip(first, second, strict=True)]
    mixture = [math.log(m) if m else -math.inf for m in mixture]
    return (naive_kl(first, mixture) + naive_kl(second, mixture)) / 2


def naive_common_mass(first, second):
    return sum(min(math.exp(a), math.exp(b)) for a, b in zip(first, second, strict=True))


def rows(*tensors):
    return list(zip(*(t.tolist() for t in tensors), strict=True))


@pytest.fixture(params=[2, 9, 127, 128, 1000], ids="V={}".format)
def pair(request, random_pair):
    return random_pair(request.param, 20, seed=request.param, holes=0.2)


def test_by_hand():
    # Reverse: .5 log 2 + .25 log 1 + .25 log ½ = .25 log 2. Forward: the same by symmetry. m = (.375, .25, .375).
    assert metrics.reverse_kl(P, Q).item() == pytest.approx(0.25 * math.log(2))
    assert metrics.forward_kl(P, Q).item() == pytest.approx(0.25 * math.log(2))
    expected = 0.5 * math.log(0.5 / 0.375) + 0.25 * math.log(0.25 / 0.375)
    assert metrics.jensen_shannon(P, Q).item() == pytest.approx(expected)
    assert metrics.common_mass(P, Q).item() == pytest.approx(0.75)


def test_directions_by_hand():
    # p = (.5, .5), q = (.25, .75): reverse .5 log 2 + .5 log(2/3) = .143841; forward .25 log ½ + .75 log 1.5 = .130812.
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert metrics.reverse_kl(p, q).item() == pytest.approx(0.143841, abs=1e-6)
    assert metrics.forward_kl(p, q).item() == pytest.approx(0.130812, abs=1e-6)


def test_sampled_by_hand():
    # p = .5 and q = .25 at the sampled token: log .5 - log .25 = log 2; the other way round -log 2.
    assert metrics.sampled_reverse_kl(P[0], Q[0]).item() == pytest.approx(math.log(2))
    assert metrics.sampled_reverse_kl(Q[0], P[0]).item() == pytest.approx(-math.log(2))


def test_equal_to_the_naive_versions(pair):
    student, teacher = pair
    for function, naive in (
        (metrics.reverse_kl, naive_kl),
        (metrics.forward_kl, lambda p, q: naive_kl(q, p)),
        (metrics.jensen_shannon, naive_jensen_shannon),
        (metrics.common_mass, naive_common_mass),
    ):
        expected = [naive(p, q) for p, q in rows(student, teacher)]
        assert function(student, teacher).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert max(expected) > 1e-3
    expected = [p - q for p, q in rows(student[:, 0], teacher[:, 0])]
    assert metrics.sampled_reverse_kl(student[:, 0], teacher[:, 0]).tolist() == expected


def test_equal_to_scipy(pair):
    student, teacher = pair
    p, q = student.exp().numpy(), teacher.exp().numpy()
    assert metrics.reverse_kl(student, teacher).numpy() == pytest.approx(rel_entr(p, q).sum(-1), rel=1e-9)
    assert metrics.reverse_kl(student, teacher).numpy() == pytest.approx(scipy_entropy(p, q, axis=-1), rel=1e-9)
    assert metrics.forward_kl(student, teacher).numpy() == pytest.approx(scipy_entropy(q, p, axis=-1), rel=1e-9)
    distance = jensenshannon(p, q, axis=-1)
    assert metrics.jensen_shannon(student, teacher).numpy() == pytest.approx(distance**2, rel=1e-9)
    variation = [cityblock(a, b) / 2 for a, b in zip(p, q, strict=True)]
    assert metrics.common_mass(student, teacher).numpy() == pytest.approx(1 - np.array(variation), rel=1e-9)


def test_sampled_has_the_reverse_kl_as_its_mean(random_pair):
    student, teacher = random_pair(30, 5)
    weighted = (student.exp() * metrics.sampled_reverse_kl(student, teacher)).sum(-1).numpy()
    assert weighted == pytest.approx(scipy_entropy(student.exp().numpy(), teacher.exp().numpy(), axis=-1))


class TestTailSampled:
    def estimates(self, student, teacher, k):
        """At every token that may be drawn, (rows, V)."""
        top, v = teacher.topk(k).indices, student.shape[-1]
        known = [of.gather(-1, top).unsqueeze(1).expand(-1, v, -1) for of in (teacher, student)]
        ids = torch.arange(v).expand(len(student), -1)
        return metrics.tail_sampled_reverse_kl(top.unsqueeze(1).expand(-1, v, -1), *known, ids, student, teacher)

    def test_by_hand(self):
        # p = (.5, .3, .2), q = (.2, .7, .1), T = {1}: .3 log(.3 / .7), and log 2.5 or log 2 where 0 or 2 is drawn
        p, q = torch.tensor([[0.5, 0.3, 0.2]]).double().log(), torch.tensor([[0.2, 0.7, 0.1]]).double().log()
        of_top = 0.3 * math.log(0.3 / 0.7)
        expected = [of_top + math.log(2.5), of_top, of_top + math.log(2)]
        assert self.estimates(p, q, 1)[0].tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("k", [1, 5, 29, 30])
    def test_its_mean_over_what_the_student_draws_is_the_reverse_kl_whatever_k(self, random_pair, k):
        student, teacher = random_pair(30, 5)
        mean = (student.exp() * self.estimates(student, teacher, k)).sum(-1).numpy()
        expected = scipy_entropy(student.exp().numpy(), teacher.exp().numpy(), axis=-1)
        assert mean == pytest.approx(expected, rel=1e-9)

    def test_it_varies_less_the_more_is_known_and_less_than_one_sample(self, random_pair):
        student, teacher = random_pair(30, 5)
        weights = student.exp()

        def variance(values):
            mean = (weights * values).sum(-1, keepdim=True)
            return (weights * (values - mean) ** 2).sum(-1)

        found = [variance(self.estimates(student, teacher, k)).mean().item() for k in (4, 12, 24, 30)]
        assert found == sorted(found, reverse=True)
        assert found[-1] < 1e-20
        assert found[1] < variance(metrics.sampled_reverse_kl(student, teacher)).mean()

    def test_without_a_draw_there_is_none_and_what_the_teacher_excludes_is_infinite(self):
        top, ids, known = torch.tensor([[0]]).expand(2, 1), torch.tensor([-1, 2]), torch.full((2, 1), 0.5).log()
        theirs, drawn = torch.tensor([math.nan, -math.inf]), torch.tensor([math.nan, -1.0])
        found = metrics.tail_sampled_reverse_kl(top, known, known, ids, drawn, theirs)
        assert math.isnan(found[0])
        assert found[1] == math.inf


def test_what_one_side_excludes():
    p, q = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([1.0, 0.0, 0.0]).log()
    assert metrics.reverse_kl(p, q).item() == math.inf
    assert metrics.forward_kl(p, q).item() == pytest.approx(math.log(2))
    # m = (.75, .25): ½ (.5 log(2/3) + .5 log 2) + ½ log(4/3).
    expected = 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2)) + 0.5 * math.log(4 / 3)
    assert metrics.jensen_shannon(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert metrics.common_mass(p, q).item() == pytest.approx(0.5)


def test_disjoint_supports():
    p, q = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log()
    assert metrics.jensen_shannon(p, q).item() == pytest.approx(math.log(2))
    assert metrics.common_mass(p, q).item() == 0.0
    assert metrics.reverse_kl(p, q).item() == metrics.forward_kl(p, q).item() == math.inf


@pytest.mark.parametrize("function", PAIRWISE, ids=lambda f: f.__name__)
def test_identical_models_are_exactly_aligned(function, random_pair):
    student, _ = random_pair(2000, 30, dtype=torch.float32, holes=0.1)
    aligned = 1.0 if function is metrics.common_mass else 0.0
    assert function(student, student.clone()).tolist() == pytest.approx([aligned] * 30, abs=2e-6)
    if aligned == 0.0 and function is not metrics.jensen_shannon:
        assert function(student, student.clone()).tolist() == [0.0] * 30


@pytest.mark.parametrize("function", PAIRWISE, ids=lambda f: f.__name__)
def test_any_leading_shape_and_arguments_untouched(function, random_pair):
    student, teacher = random_pair(33, 2, 3)
    before = student.clone(), teacher.clone()
    shaped = function(student, teacher)
    assert shaped.shape == (2, 3)
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])
    torch.testing.assert_close(shaped.flatten(), function(student.flatten(0, 1), teacher.flatten(0, 1)))
    torch.testing.assert_close(shaped[1, 2], function(student[1, 2], teacher[1, 2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", PAIRWISE, ids=lambda f: f.__name__)
def test_fp32_at_a_large_vocabulary_is_exact_to_1e5_nats_and_never_negative(kind, function):
    first, second = logits_of(kind, 16, 152_000)
    student, teacher = normalised(first), normalised(second)
    found = function(student, teacher).double()
    same_input = function(student.double(), teacher.double())
    exact = function(first.double().log_softmax(-1), second.double().log_softmax(-1))
    scale = max(1.0, exact.max().item())
    assert (found - same_input).abs().max().item() <= 5e-6 * scale
    assert (found - exact).abs().max().item() <= 1e-5 * scale
    assert found.min().item() >= 0
    if kind in ("ordinary", "wide"):
        assert found.max().item() > 1e-5


@pytest.mark.parametrize("function", [metrics.reverse_kl, metrics.forward_kl, metrics.jensen_shannon])
def test_never_negative_where_both_models_are_nearly_equal(function):
    generator = torch.Generator().manual_seed(3)
    for size in (1e-7, 1e-6, 1e-5):
        logits = 3 * torch.randn(64, 8_000, generator=generator)
        other = logits + size * torch.randn(64, 8_000, generator=generator)
        assert function(normalised(logits), normalised(other)).min().item() >= 0
