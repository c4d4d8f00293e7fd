"""The reverse-KL gradient at the logits and its shares: by hand, naive Python, autograd, and what float32 leaves."""

from __future__ import annotations

import math

import pytest
import torch

from opd_diag import metrics
from opd_diag.metrics.gradient import RESOLUTION

from .hard_logits import KINDS, logits_of, normalised

P, Q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]))
TOLERANCE = 1e-4
"""What the shares are promised to."""


def naive_gradient(first, second):
    """g(v) for all v, by the formula in plain Python."""
    pairs = list(zip(first, second, strict=True))
    kl = sum(math.exp(a) * (a - b) for a, b in pairs if a > -math.inf)
    return [math.exp(a) * (a - b - kl) if a > -math.inf else 0.0 for a, b in pairs]


def naive_shares(gradient, first, second, k):
    """Shared, student only, teacher only, other."""
    ids = range(len(first))
    s, t = (set(sorted(ids, key=lambda v, x=x: (-x[v], v))[:k]) for x in (first, second))
    total = math.fsum(g * g for g in gradient)
    sets = s & t, s - t, t - s, set(ids) - s - t
    return [math.fsum(gradient[v] ** 2 for v in of) / total if total else math.nan for of in sets]


def kept(student, teacher, k, dtype=torch.float32):
    """What scores hold of two (N, V) float64 distributions: ids, and log-probabilities rounded to `dtype`."""
    s, t = metrics.topk(student, k)[1], metrics.topk(teacher, k)[1]
    values = (student.gather(-1, s), teacher.gather(-1, s), student.gather(-1, t), teacher.gather(-1, t))
    return s, t, *(v.to(dtype) for v in values)


def shares_of(student, teacher, k, dtype=torch.float32):
    totals = metrics.centred_reverse_kl(student, teacher), metrics.gradient_squared_norm(student, teacher)
    return torch.stack(metrics.gradient_shares(*kept(student, teacher, k, dtype), *totals), dim=-1)


def exact_shares(student, teacher, k):
    """(N, 4) by the naive version, from the whole distributions in float64."""
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    return torch.tensor([naive_shares(naive_gradient(a, b), a, b, k) for a, b in rows], dtype=torch.float64)


def test_norm_by_hand():
    # Log-ratios (log 2, 0, -log 2), KL = .25 log 2: g = log 2 * (.5 * .75, .25 * -.25, .25 * -1.25);
    # squares (.140625 + .00390625 + .09765625) * log² 2 = .2421875 * .480453 = .116360.
    assert metrics.gradient_squared_norm(P, Q).item() == pytest.approx(0.2421875 * math.log(2) ** 2)


def test_centred_by_hand():
    # The student's most probable token is the first, its log-ratio log 2: KL - log 2 = -.75 log 2.
    assert metrics.centred_reverse_kl(P, Q).item() == pytest.approx(-0.75 * math.log(2))


def test_shares_by_hand():
    # Squares as above. k = 1: S = {0}, T = {2}: nothing shared, .140625, .09765625 and .00390625 of .2421875.
    expected = [0.0, 0.140625 / 0.2421875, 0.09765625 / 0.2421875, 0.00390625 / 0.2421875]
    assert shares_of(P, Q, 1).tolist() == pytest.approx(expected, abs=1e-7)
    # k = 2, ties by the lower id: S = {0, 1}, T = {2, 0}: 0 is shared, 1 the student's, 2 the teacher's.
    expected = [0.140625 / 0.2421875, 0.00390625 / 0.2421875, 0.09765625 / 0.2421875, 0.0]
    assert shares_of(P, Q, 2).tolist() == pytest.approx(expected, abs=1e-7)
    assert shares_of(P, Q, 3).tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-7)


@pytest.mark.parametrize("vocabulary", [2, 9, 128, 1000])
def test_equal_to_the_naive_versions(vocabulary, random_pair):
    student, teacher = random_pair(vocabulary, 20, seed=vocabulary, holes=0.2)
    gradients = [naive_gradient(a, b) for a, b in zip(student.tolist(), teacher.tolist(), strict=True)]
    norms = [math.fsum(g * g for g in gradient) for gradient in gradients]
    assert metrics.gradient_squared_norm(student, teacher).tolist() == pytest.approx(norms, rel=1e-9, abs=1e-12)
    best = student.argmax(-1).tolist()
    centred = [
        -gradient[v] / math.exp(row[v]) for gradient, row, v in zip(gradients, student.tolist(), best, strict=True)
    ]
    assert metrics.centred_reverse_kl(student, teacher).tolist() == pytest.approx(centred, rel=1e-9, abs=1e-12)
    for k in {1, min(2, vocabulary), min(16, vocabulary)}:
        found = shares_of(student, teacher, k, torch.float64)
        torch.testing.assert_close(found, exact_shares(student, teacher, k), rtol=0, atol=1e-9, equal_nan=True)
        defined = ~found.isnan().any(-1)
        assert defined.sum() > 10
        assert found[defined].sum(-1).tolist() == pytest.approx([1.0] * int(defined.sum()))


def test_all_four_kinds_of_token_matter(random_pair):
    """The comparison above would be worth nothing if one share were always 0."""
    shares = exact_shares(*random_pair(1000, 20, seed=1000, scale=1.0), 16)
    assert (shares.max(0).values > 0.02).all()
    assert (shares.max(0).values - shares.min(0).values > 0.02).all()


def test_gradient_is_what_autograd_gives(random_pair):
    student, teacher = random_pair(50, 8, seed=5, scale=1.5)
    logits = (student + 3.0).requires_grad_()
    kl = torch.nn.functional.kl_div(teacher, logits.log_softmax(-1), reduction="sum", log_target=True)
    (gradient,) = torch.autograd.grad(kl, logits)
    torch.testing.assert_close(metrics.gradient_squared_norm(student, teacher), gradient.square().sum(-1))
    rows = zip(gradient.tolist(), student.tolist(), teacher.tolist(), strict=True)
    expected = torch.tensor([naive_shares(g, a, b, 4) for g, a, b in rows], dtype=torch.float64)
    torch.testing.assert_close(shares_of(student, teacher, 4), expected, rtol=0, atol=1e-6)


def test_relabelling_and_k(random_pair):
    student, teacher = random_pair(300, 12, seed=2, scale=1.0)
    new_id = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    moved = [torch.empty_like(x).index_copy_(-1, new_id, x) for x in (student, teacher)]
    torch.testing.assert_close(shares_of(*moved, 8), shares_of(student, teacher, 8))
    others = torch.stack([shares_of(student, teacher, k)[:, 3] for k in (1, 4, 16, 64, 300)])
    assert (others.diff(dim=0) <= 1e-9).all(), "a larger k leaves less to the others"
    assert others[0].min() > 0.01
    assert others[-1].abs().max() < 1e-6


def planted(certain, teacher_at_best, seed=0, states=40, vocabulary=2000, distance=1.0):
    """(N, V) float64 pairs: the student is sure of a token but for 1 - `certain`, the teacher gives it a set share."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(states, vocabulary, generator=generator, dtype=torch.float64)
    others = logits + distance * torch.randn(states, vocabulary, generator=generator, dtype=torch.float64)
    pair = []
    for values, share in ((logits, certain), (others, teacher_at_best)):
        rest = values.clone()
        rest[:, 5] = -math.inf
        made = rest.log_softmax(-1) + math.log1p(-share)
        made[:, 5] = math.log(share)
        pair.append(made)
    return pair


CERTAIN = [1 - x for x in (1e-2, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)]


@pytest.mark.parametrize("teacher_at_best", ["alike", 0.99, 0.5, 1e-3, 1e-9])
@pytest.mark.parametrize("certain", CERTAIN)
def test_float32_fields_keep_peaked_states_exact(certain, teacher_at_best):
    """What is stored of float64 truth gives the shares to 1e-4, however sure the student is."""
    share = 1 - 3 * (1 - certain) if teacher_at_best == "alike" else teacher_at_best
    student, teacher = planted(certain, share)
    for k in (1, 16, 32):
        found, expected = shares_of(student, teacher, k), exact_shares(student, teacher, k)
        assert not found.isnan().any()
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE / 10)


def test_the_reverse_kl_alone_would_not_do():
    """Subtracting stored numbers where the student is sure and the teacher is not leaves nothing of the gradient."""
    student, teacher = planted(1 - 1e-9, 0.5)
    fields = kept(student, teacher, 16)
    difference = metrics.reverse_kl(student, teacher) - (fields[2].double() - fields[3].double())[:, 0]
    norm = metrics.gradient_squared_norm(student, teacher)
    poor = torch.stack(metrics.gradient_shares(*fields, difference, norm), dim=-1)
    assert (poor - exact_shares(student, teacher, 16)).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("distance", [1.0, 0.1, 0.03, 0.01, 3e-3])
def test_defined_states_are_exact_however_near_the_models(scale, distance):
    generator = torch.Generator().manual_seed(1)
    first = scale * torch.randn(60, 800, generator=generator, dtype=torch.float64)
    second = first + distance * torch.randn(60, 800, generator=generator, dtype=torch.float64)
    student, teacher = first.log_softmax(-1), second.log_softmax(-1)
    found, expected = shares_of(student, teacher, 16), exact_shares(student, teacher, 16)
    defined = ~found.isnan().any(-1)
    torch.testing.assert_close(found[defined], expected[defined], rtol=0, atol=TOLERANCE)
    if distance >= 0.1:
        assert defined.all()
    if distance < RESOLUTION / 2:
        assert defined.float().mean() < 0.5


def test_nothing_to_split_is_undefined(random_pair):
    student, _ = random_pair(500, 30)
    assert shares_of(student, student.clone(), 16).isnan().all()
    generator = torch.Generator().manual_seed(3)
    noisy = [(student + 1e-5 * torch.randn(30, 500, generator=generator)).log_softmax(-1) for _ in range(2)]
    assert metrics.gradient_squared_norm(*noisy).min() > 0
    assert shares_of(*noisy, 16).isnan().all(), "rounding must not pass for a gradient"


def test_undefined_does_not_depend_on_how_sure_the_student_is():
    for certain in CERTAIN:
        near = planted(certain, 1 - 1.001 * (1 - certain), distance=RESOLUTION / 20)
        assert shares_of(*near, 16).isnan().all()
        apart = planted(certain, 1 - 1.1 * (1 - certain), distance=10 * RESOLUTION)
        assert not shares_of(*apart, 16).isnan().any()


def test_what_one_side_excludes():
    p, q = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([1.0, 0.0, 0.0]).log()
    assert math.isnan(metrics.gradient_squared_norm(p, q).item())
    assert metrics.gradient_squared_norm(q, p).item() == 0.0
    assert metrics.centred_reverse_kl(p, q).item() == math.inf
    for k in (1, 2, 3):
        assert shares_of(p, q, k).isnan().all(), "an infinite KL has no gradient"
        assert shares_of(q, p, k).isnan().all(), "a certain student has none"
    impossible = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    assert shares_of(*impossible, 1).isnan().all(), "p is proportional to q where it is not 0"
    moved = torch.tensor([0.6, 0.4, 0.0]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    assert shares_of(*moved, 1).tolist() == pytest.approx([0.0, 0.5, 0.0, 0.5], abs=1e-6)


def test_any_leading_shape_and_arguments_untouched(random_pair):
    student, teacher = random_pair(33, 2, 3)
    before = student.clone(), teacher.clone()
    for function in (metrics.gradient_squared_norm, metrics.centred_reverse_kl, lambda p, q: shares_of(p, q, 4)):
        shaped = function(student, teacher)
        assert shaped.shape[:2] == (2, 3)
        assert shaped.dtype == torch.float64
        torch.testing.assert_close(shaped[1, 2], function(student[1, 2], teacher[1, 2]))
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


def test_shapes_must_agree(random_pair):
    student, teacher = random_pair(20, 3)
    fields, totals = kept(student, teacher, 4), (torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"found \(3, 2\) and \(3, 4\)"):
        metrics.gradient_shares(fields[0][:, :2], *fields[1:], *totals)
    given = (*fields, *totals)
    for place in range(2, 8):
        with pytest.raises(ValueError, match=r"ids' shape \(3,.*\), found \(1,"):
            metrics.gradient_shares(*given[:place], given[place][:1], *given[place + 1 :])


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_at_a_large_vocabulary(kind):
    first, second = logits_of(kind, 8, 152_000)
    student, teacher = normalised(first), normalised(second)
    for function in (metrics.gradient_squared_norm, metrics.centred_reverse_kl):
        found = function(student, teacher)
        same_input = function(student.double(), teacher.double())
        exact = function(first.double().log_softmax(-1), second.double().log_softmax(-1))
        scale = max(1.0, exact.abs().max().item())
        assert (found - same_input).abs().max().item() <= 5e-6 * scale
        assert (found - exact).abs().max().item() <= 1e-5 * scale
    assert metrics.gradient_squared_norm(student, teacher).min().item() >= 0


@pytest.mark.parametrize("peak", [15, 20, 25])
def test_norm_keeps_its_digits_where_the_student_is_certain_of_what_the_teacher_excludes(peak):
    """Without centring, 3 % of the value are lost at a peak of 20 and all of it at 25."""
    first, second = logits_of("ordinary", 16, 50_000)
    first[:, 5] += peak
    second[:, 9] += peak
    student, teacher = normalised(first), normalised(second)
    for function in (metrics.gradient_squared_norm, metrics.centred_reverse_kl):
        found, exact = function(student, teacher), function(student.double(), teacher.double())
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)
        assert exact.abs().min().item() > 0
