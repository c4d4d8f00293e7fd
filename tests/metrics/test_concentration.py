"""The concentration curve: by hand, naive Python, and numpy's set functions at every k."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opd_diag import metrics
from opd_diag.metrics import Kept


def kept_of(student, teacher, size):
    student_logprobs, student_ids = metrics.topk(student, size)
    teacher_logprobs, teacher_ids = metrics.topk(teacher, size)
    return Kept(student_ids, student_logprobs, teacher.gather(-1, student_ids), teacher_ids, teacher_logprobs)


def naive_point(student, teacher, k):
    """Five numbers at one k from two whole distributions, as lists of log-probabilities."""
    tops = [set(sorted(range(len(x)), key=lambda i: (-x[i], i))[:k]) for x in (student, teacher)]
    shared = tops[0] & tops[1]
    return (
        len(shared),
        sum(math.exp(student[v]) for v in shared),
        sum(math.exp(teacher[v]) for v in shared),
        sum(math.exp(student[v]) for v in tops[0]),
        sum(math.exp(teacher[v]) for v in tops[1]),
    )


def test_by_hand():
    # Student 7 (.5), 3 (.2), 1 (.1); teacher 3 (.6), 9 (.2), 7 (.1); q(1) = .01.
    # k = 1: {7} and {3} share nothing. k = 2: {7, 3} and {3, 9} share 3. k = 3: 7 and 3 are shared.
    kept = Kept(
        torch.tensor([7, 3, 1]),
        torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64).log(),
        torch.tensor([0.1, 0.6, 0.01], dtype=torch.float64).log(),
        torch.tensor([3, 9, 7]),
        torch.tensor([0.6, 0.2, 0.1], dtype=torch.float64).log(),
    )
    curve = metrics.concentration(kept, [1, 2, 3])
    assert curve.shared.tolist() == [0, 1, 2]
    assert curve.student_shared_mass.tolist() == pytest.approx([0, 0.2, 0.7])
    assert curve.teacher_shared_mass.tolist() == pytest.approx([0, 0.6, 0.7])
    assert curve.student_mass.tolist() == pytest.approx([0.5, 0.7, 0.8])
    assert curve.teacher_mass.tolist() == pytest.approx([0.6, 0.8, 0.9])


@pytest.mark.parametrize(
    ("vocabulary", "grid"),
    [(300, (1, 2, 4, 8, 16, 32, 64, 128)), (128, (1, 128)), (20, tuple(range(1, 21))), (3, (1, 2, 3)), (9, (5,))],
)
def test_equal_to_the_naive_version_and_to_numpy(vocabulary, grid, random_pair):
    student, teacher = random_pair(vocabulary, 12, seed=vocabulary, holes=0.1)
    curve = metrics.concentration(kept_of(student, teacher, grid[-1]), grid)
    for n, (p, q) in enumerate(zip(student.tolist(), teacher.tolist(), strict=True)):
        found = [tuple(field[n, g].item() for field in curve) for g in range(len(grid))]
        for point, k in zip(found, grid, strict=True):
            assert point == pytest.approx(naive_point(p, q, k), abs=1e-12)
    p, q = student.numpy(), teacher.numpy()
    for n in range(12):
        mine, theirs = np.argsort(-p[n], kind="stable"), np.argsort(-q[n], kind="stable")
        for g, k in enumerate(grid):
            common = np.intersect1d(mine[:k], theirs[:k])
            assert curve.shared[n, g].item() == len(common)
            assert curve.student_shared_mass[n, g].item() == pytest.approx(np.exp(p[n, common]).sum(), abs=1e-12)
            assert curve.teacher_shared_mass[n, g].item() == pytest.approx(np.exp(q[n, common]).sum(), abs=1e-12)


def test_equal_to_the_metrics_at_each_k(random_pair):
    student, teacher = random_pair(80, 2, 5, dtype=torch.float32)
    grid = (1, 3, 10, 32)
    kept = kept_of(student, teacher, 32)
    curve = metrics.concentration(kept, grid)
    for g, k in enumerate(grid):
        ids = kept.student_ids[..., :k], kept.teacher_ids[..., :k]
        torch.testing.assert_close(curve.shared[..., g] / k, metrics.overlap_ratio(*ids))
        student_mass = metrics.student_overlap_mass(*ids, kept.student_logprobs[..., :k])
        teacher_mass = metrics.teacher_overlap_mass(*ids, kept.teacher_at_student_logprobs[..., :k])
        torch.testing.assert_close(curve.student_shared_mass[..., g], student_mass)
        torch.testing.assert_close(curve.teacher_shared_mass[..., g], teacher_mass)


def test_no_mass_falls_and_none_leaves_0_to_1(random_pair):
    student, teacher = random_pair(300, 200, scale=6.0, dtype=torch.float32)
    curve = metrics.concentration(kept_of(student, teacher, 128), range(1, 129))
    for field in curve:
        assert (field.diff(dim=-1) >= 0).all()
        assert field.min().item() >= 0
    for field in curve[1:]:
        assert field.max().item() <= 1
    assert (curve.student_shared_mass <= curve.student_mass + 1e-6).all()
    assert (curve.shared <= torch.arange(1, 129)).all()
    assert curve.shared[:, -1].min().item() > 32


def test_identical_and_disjoint_models(random_pair):
    student, _ = random_pair(40, 6)
    same = metrics.concentration(kept_of(student, student, 8), (1, 4, 8))
    assert same.shared.tolist() == [[1, 4, 8]] * 6
    torch.testing.assert_close(same.student_shared_mass, same.teacher_mass)
    kept = kept_of(student, student, 8)
    disjoint = metrics.concentration(kept._replace(teacher_ids=kept.teacher_ids + 100), (1, 4, 8))
    assert disjoint.shared.tolist() == [[0, 0, 0]] * 6
    assert disjoint.student_shared_mass.max().item() == disjoint.teacher_shared_mass.max().item() == 0
    assert torch.equal(disjoint.student_mass, same.student_mass)


def test_one_state_without_a_leading_shape(random_pair):
    student, teacher = random_pair(40, 1)
    alone = metrics.concentration(kept_of(student[0], teacher[0], 8), (1, 8))
    together = metrics.concentration(kept_of(student, teacher, 8), (1, 8))
    for one, many in zip(alone, together, strict=True):
        assert one.shape == (2,)
        assert torch.equal(one, many[0])


def test_refuses_a_grid_beyond_the_kept_tokens(random_pair):
    student, teacher = random_pair(40, 1)
    with pytest.raises(ValueError, match="ends at k = 16, but only 8 tokens are kept"):
        metrics.concentration(kept_of(student, teacher, 8), (1, 16))
