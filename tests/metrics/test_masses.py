"""Mass on small sets of tokens: by hand, a naive version, and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_diag import metrics

from .conftest import random_pair as pair_of
from .kept_pairs import kept_of, rows

# Student: 7 (.5), 3 (.2), 1 (.1). Teacher: 3 (.6), 9 (.2), 7 (.1). Shared: 7 and 3.
STUDENT_IDS, TEACHER_IDS = torch.tensor([7, 3, 1]), torch.tensor([3, 9, 7])
STUDENT = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64).log()
TEACHER = torch.tensor([0.6, 0.2, 0.1], dtype=torch.float64).log()
TEACHER_AT_STUDENT = torch.tensor([0.1, 0.6, 0.01], dtype=torch.float64).log()


@pytest.fixture(params=[(40, 6), (12, 12), (200, 32), (9, 1)], ids=str)
def kept(request, random_pair):
    vocabulary, k = request.param
    return kept_of(*random_pair(vocabulary, 50, seed=vocabulary), k)


def test_by_hand():
    assert metrics.topk_mass(STUDENT).item() == pytest.approx(0.8)
    assert metrics.topk_mass(TEACHER).item() == pytest.approx(0.9)
    assert metrics.overlap_mass_ratio(STUDENT_IDS, TEACHER_IDS, STUDENT).item() == pytest.approx(0.7 / 0.8)
    assert metrics.overlap_mass_ratio(TEACHER_IDS, STUDENT_IDS, TEACHER).item() == pytest.approx(0.7 / 0.9)
    assert metrics.teachable_mass(TEACHER_AT_STUDENT).item() == pytest.approx(0.71)


def test_equal_to_the_naive_versions(kept):
    found = metrics.overlap_mass_ratio(kept.student_ids, kept.teacher_ids, kept.student).tolist()
    expected = []
    for ids, others, logprobs in rows(kept.student_ids, kept.teacher_ids, kept.student):
        mass = {v: math.exp(x) for v, x in zip(ids, logprobs, strict=True)}
        expected.append(sum(p for v, p in mass.items() if v in others) / sum(mass.values()))
    assert found == pytest.approx(expected, abs=1e-12)
    own = [sum(math.exp(x) for x in row) for row in kept.teacher.tolist()]
    assert metrics.topk_mass(kept.teacher).tolist() == pytest.approx(own, abs=1e-12)


def test_equal_to_numpy(kept):
    found = metrics.overlap_mass_ratio(kept.teacher_ids, kept.student_ids, kept.teacher).numpy()
    states = zip(kept.teacher_ids.numpy(), kept.student_ids.numpy(), kept.teacher.numpy(), strict=True)
    ratio = [np.exp(row[np.isin(ids, others)]).sum() / np.exp(row).sum() for ids, others, row in states]
    assert found == pytest.approx(np.array(ratio), abs=1e-12)
    teachable = np.exp(kept.teacher_at_student.numpy()).sum(-1)
    assert metrics.teachable_mass(kept.teacher_at_student).numpy() == pytest.approx(teachable, abs=1e-12)


def test_overlap_mass_is_its_ratio_of_the_own_mass(kept):
    mass = metrics.student_overlap_mass(*kept.of_shared[:3])
    ratio = metrics.overlap_mass_ratio(*kept.of_shared[:3])
    torch.testing.assert_close(mass, ratio * metrics.topk_mass(kept.student))
    assert (mass <= metrics.topk_mass(kept.student) + 1e-12).all()


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 20))
def test_shared_and_own_mass_never_fall_as_k_grows(seed, scale):
    kept = kept_of(*pair_of(40, 4, seed=seed, scale=scale), 40)
    masses = {"student": [], "teacher": [], "own": [], "teachable": []}
    for k in range(1, 41):
        student, teacher, on_student, at_student = (t[..., :k] for t in kept.of_shared)
        masses["student"].append(metrics.student_overlap_mass(student, teacher, on_student))
        masses["teacher"].append(metrics.teacher_overlap_mass(student, teacher, at_student))
        masses["own"].append(metrics.topk_mass(on_student))
        masses["teachable"].append(metrics.teachable_mass(at_student))
    for name, found in masses.items():
        assert (torch.stack(found).diff(dim=0) >= -1e-12).all(), name
        assert found[-1].tolist() == pytest.approx([1.0] * 4), name


def test_nothing_shared_and_everything():
    ids, others, logprobs = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([0.5, 0.25]).log()
    assert metrics.overlap_mass_ratio(ids, others, logprobs).item() == 0.0
    assert metrics.overlap_mass_ratio(ids, ids.flip(0), logprobs).item() == 1.0


def test_refuses_shapes_that_differ():
    ids = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"one shape, found \(2, 3\) and \(2, 2\)"):
        metrics.overlap_mass_ratio(ids, ids[:, :2], torch.zeros(2, 3))
    for wrong in (torch.zeros(3), torch.zeros(1, 3), torch.zeros(4, 2, 3)):
        with pytest.raises(ValueError, match=r"ids' shape \(2, 3\), found"):
            metrics.overlap_mass_ratio(ids, ids, wrong)
