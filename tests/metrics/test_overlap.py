"""What two top-k share: by hand, a naive version, and numpy's or scipy's set and entropy functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from opd_diag import metrics

# Student: 7 (.5), 3 (.2), 1 (.1), 4 (.05). Teacher: 3 (.6), 9 (.2), 7 (.1), 2 (.02). Shared: 7 and 3.
STUDENT_IDS, TEACHER_IDS = torch.tensor([7, 3, 1, 4]), torch.tensor([3, 9, 7, 2])
STUDENT = torch.tensor([0.5, 0.2, 0.1, 0.05], dtype=torch.float64).log()
TEACHER_AT_STUDENT = torch.tensor([0.1, 0.6, 0.01, 0.004], dtype=torch.float64).log()


def naive_shared(student_ids, teacher_ids):
    return [i for i, v in enumerate(student_ids) if v in set(teacher_ids)]


def naive_mass(student_ids, teacher_ids, logprobs):
    return sum(math.exp(logprobs[i]) for i in naive_shared(student_ids, teacher_ids))


def naive_advantage(student_ids, teacher_ids, student, teacher):
    shared = naive_shared(student_ids, teacher_ids)
    if not shared:
        return math.nan
    p, q = [math.exp(student[i]) for i in shared], [math.exp(teacher[i]) for i in shared]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    return sum(a * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True) if a > 0) / len(shared)


@pytest.fixture(params=[(40, 6), (12, 12), (200, 32), (9, 1)], ids=str)
def kept(request, random_pair):
    """Both ids and both log-probabilities at the student's ids, 50 states, of one vocabulary and k."""
    vocabulary, k = request.param
    student, teacher = random_pair(vocabulary, 50, seed=vocabulary)
    student_logprobs, student_ids = student.topk(k)
    return student_ids, teacher.topk(k).indices, student_logprobs, teacher.gather(-1, student_ids)


def rows(*tensors):
    return zip(*(t.tolist() for t in tensors), strict=True)


def test_by_hand():
    # I = {7, 3}: 2 of 4 tokens; student mass .5 + .2 = .7; teacher mass .1 + .6 = .7.
    assert metrics.shared_tokens(STUDENT_IDS, TEACHER_IDS).tolist() == [True, True, False, False]
    assert metrics.overlap_ratio(STUDENT_IDS, TEACHER_IDS).item() == 0.5
    assert metrics.student_overlap_mass(STUDENT_IDS, TEACHER_IDS, STUDENT).item() == pytest.approx(0.7)
    assert metrics.teacher_overlap_mass(STUDENT_IDS, TEACHER_IDS, TEACHER_AT_STUDENT).item() == pytest.approx(0.7)
    assert metrics.top1_agreement(STUDENT_IDS, TEACHER_IDS).item() == 0.0


def test_advantage_by_hand():
    # p̄ = (5/7, 2/7), q̄ = (1/7, 6/7): (5/7 log(1/5) + 2/7 log 3) / 2 = (-1.149598 + .313889) / 2 = -.417854.
    value = metrics.overlap_token_advantage(STUDENT_IDS, TEACHER_IDS, STUDENT, TEACHER_AT_STUDENT)
    assert value.item() == pytest.approx(-0.417854, abs=1e-6)


def test_advantage_of_the_paper_divides_by_shared_tokens_and_not_by_k():
    shared_only = metrics.overlap_token_advantage(
        STUDENT_IDS[:2], TEACHER_IDS[[0, 2]], STUDENT[:2], TEACHER_AT_STUDENT[:2]
    )
    whole = metrics.overlap_token_advantage(STUDENT_IDS, TEACHER_IDS, STUDENT, TEACHER_AT_STUDENT)
    assert shared_only.item() == pytest.approx(whole.item(), rel=1e-12)


def test_equal_to_the_naive_versions(kept):
    student_ids, teacher_ids, student, teacher = kept
    k = student_ids.shape[-1]
    ratio = metrics.overlap_ratio(student_ids, teacher_ids).tolist()
    assert ratio == pytest.approx([len(naive_shared(s, t)) / k for s, t in rows(student_ids, teacher_ids)])
    for function, logprobs in (
        (metrics.student_overlap_mass, student),
        (metrics.teacher_overlap_mass, teacher),
    ):
        expected = [naive_mass(*row) for row in rows(student_ids, teacher_ids, logprobs)]
        assert function(student_ids, teacher_ids, logprobs).tolist() == pytest.approx(expected, abs=1e-12)
        assert max(expected) > 0
    expected = [naive_advantage(*row) for row in rows(student_ids, teacher_ids, student, teacher)]
    found = metrics.overlap_token_advantage(student_ids, teacher_ids, student, teacher).tolist()
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    agreement = [float(s[0] == t[0]) for s, t in rows(student_ids, teacher_ids)]
    assert metrics.top1_agreement(student_ids, teacher_ids).tolist() == agreement
    assert 0 < sum(agreement) < len(agreement)


def test_equal_to_numpy_and_scipy(kept):
    tensors = [t.numpy() for t in kept]
    ratio = metrics.overlap_ratio(*kept[:2]).numpy()
    shared = metrics.shared_tokens(*kept[:2]).numpy()
    masses = (
        metrics.student_overlap_mass(*kept[:3]).numpy(),
        metrics.teacher_overlap_mass(kept[0], kept[1], kept[3]).numpy(),
    )
    advantage = metrics.overlap_token_advantage(*kept).numpy()
    for n, (student_ids, teacher_ids, student, teacher) in enumerate(zip(*tensors, strict=True)):
        common, at, _ = np.intersect1d(student_ids, teacher_ids, assume_unique=True, return_indices=True)
        assert sorted(at) == np.flatnonzero(shared[n]).tolist()
        assert ratio[n] == pytest.approx(len(common) / len(student_ids))
        p, q = np.exp(student[at]), np.exp(teacher[at])
        assert masses[0][n] == pytest.approx(p.sum(), abs=1e-12)
        assert masses[1][n] == pytest.approx(q.sum(), abs=1e-12)
        expected = -rel_entr(p / p.sum(), q / q.sum()).sum() / len(common) if len(common) else math.nan
        assert advantage[n] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert metrics.top1_agreement(*kept[:2]).numpy().tolist() == (tensors[0][:, 0] == tensors[1][:, 0]).tolist()


def test_disjoint_sets():
    ids, others = torch.tensor([1, 2]), torch.tensor([3, 4])
    logprobs = torch.tensor([0.5, 0.25]).log()
    assert metrics.overlap_ratio(ids, others).item() == 0.0
    assert metrics.student_overlap_mass(ids, others, logprobs).item() == 0.0
    assert metrics.teacher_overlap_mass(ids, others, logprobs).item() == 0.0
    assert math.isnan(metrics.overlap_token_advantage(ids, others, logprobs, logprobs).item())


def test_one_shared_token_has_advantage_0_whatever_the_models():
    student, teacher = torch.tensor([0.9, 0.05]).log(), torch.tensor([0.001, 0.9]).log()
    assert metrics.overlap_token_advantage(torch.tensor([1, 2]), torch.tensor([1, 3]), student, teacher).item() == 0.0


def test_shared_tokens_without_probability():
    # Student (.5, .5, 0), teacher (.25, .75, 0) or (1, 0, 0), all three ids shared: 0 log 0 = 0 adds nothing.
    ids = torch.tensor([0, 1, 2])
    student = torch.tensor([0.5, 0.5, 0.0]).log()
    finite = metrics.overlap_token_advantage(ids, ids, student, torch.tensor([0.25, 0.75, 0.0]).log())
    assert finite.item() == pytest.approx((0.5 * math.log(0.5) + 0.5 * math.log(1.5)) / 3, abs=1e-6)
    infinite = metrics.overlap_token_advantage(ids, ids, student, torch.tensor([1.0, 0.0, 0.0]).log())
    assert infinite.item() == -math.inf
    assert metrics.student_overlap_mass(ids, ids, student).item() == pytest.approx(1.0)


def test_k_equal_to_the_vocabulary_shares_everything(random_pair):
    student, teacher = random_pair(17, 30)
    (student_logprobs, student_ids), teacher_ids = student.topk(17), teacher.topk(17).indices
    teacher_at = teacher.gather(-1, student_ids)
    assert metrics.overlap_ratio(student_ids, teacher_ids).tolist() == [1.0] * 30
    assert metrics.student_overlap_mass(student_ids, teacher_ids, student_logprobs).tolist() == pytest.approx([1] * 30)
    advantage = metrics.overlap_token_advantage(student_ids, teacher_ids, student_logprobs, teacher_at)
    torch.testing.assert_close(advantage, -metrics.reverse_kl(student, teacher) / 17)


def test_identical_models_have_advantage_exactly_0(random_pair):
    student, _ = random_pair(300, 40, dtype=torch.float32)
    logprobs, ids = student.topk(32)
    assert metrics.overlap_token_advantage(ids, ids, logprobs, logprobs).tolist() == [0.0] * 40


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_any_leading_shape_and_integer_dtype(dtype, random_pair):
    student, teacher = random_pair(30, 2, 3, 4)
    (logprobs, ids), others = student.topk(5), teacher.topk(5).indices
    at = teacher.gather(-1, ids)
    flat = [t.flatten(0, 2) for t in (ids.to(dtype), others.to(dtype), logprobs, at)]
    for function, arguments in (
        (metrics.overlap_ratio, 2),
        (metrics.student_overlap_mass, 3),
        (metrics.overlap_token_advantage, 4),
        (metrics.top1_agreement, 2),
    ):
        shaped = function(*(ids.to(dtype), others.to(dtype), logprobs, at)[:arguments])
        assert shaped.shape == (2, 3, 4)
        torch.testing.assert_close(shaped.flatten(), function(*flat[:arguments]), equal_nan=True)
        alone = function(*(t[0] for t in flat[:arguments]))
        assert alone.shape == ()


def test_shared_tokens_without_probability_have_no_advantage():
    ids, some, none = torch.tensor([0, 1]), torch.tensor([0.5, 0.25]).log(), torch.zeros(2).log()
    for given in ((none, some), (some, none)):
        assert metrics.overlap_token_advantage(ids, ids, *given).isnan()


def test_refuses_shapes_that_differ():
    ids, logprobs = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"one shape, found \(2, 3\) and \(2, 2\)"):
        metrics.overlap_ratio(ids, ids[:, :2])
    with pytest.raises(ValueError, match=r"ids' shape \(2, 3\), found \(2, 2\)"):
        metrics.student_overlap_mass(ids, ids, logprobs[:, :2])
    with pytest.raises(ValueError, match=r"ids' shape \(2, 3\), found \(2, 1\)"):
        metrics.teacher_overlap_mass(ids, ids, logprobs[:, :1])
    for wrong in ((logprobs[:1], logprobs), (logprobs, logprobs.expand(4, 2, 3))):
        with pytest.raises(ValueError, match=r"ids' shape \(2, 3\), found"):
            metrics.overlap_token_advantage(ids, ids, *wrong)
