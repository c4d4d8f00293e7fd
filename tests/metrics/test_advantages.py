"""Other readings of overlap-token advantage: each owner's formula written again, and what tells them apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_diag import metrics

from .conftest import random_pair as pair_of
from .kept_pairs import kept_of, rows

READINGS = (
    metrics.thunlp_overlap_token_advantage,
    metrics.verl_overlap_token_advantage,
    metrics.probe_overlap_token_advantage,
    metrics.cookbook_overlap_token_advantage,
)


@pytest.fixture(params=[(40, 6, 3.0), (12, 12, 3.0), (200, 32, 8.0), (9, 1, 3.0)], ids=str)
def kept(request, random_pair):
    vocabulary, k, scale = request.param
    return kept_of(*random_pair(vocabulary, 60, seed=vocabulary, scale=scale), k)


def thunlp(student_ids, teacher_ids, student, teacher):
    """Rewards of the student's top-k by softmax weights, then the mean over those the teacher has too."""
    total = math.log(sum(math.exp(x) for x in student))
    rewards = [-(s - t) * math.exp(s - total) for s, t in zip(student, teacher, strict=True)]
    inside = [r for v, r in zip(student_ids, rewards, strict=True) if v in teacher_ids]
    return sum(inside) / len(inside) if inside else math.nan


def verl(teacher_ids, student_ids, teacher, student):
    """Along the teacher's top-k, as verl goes; log-probabilities clamped at -10."""
    clamped = [(max(t, -10.0), max(s, -10.0)) for t, s in zip(teacher, student, strict=True)]
    terms = [-math.exp(t) * (t - s) for v, (t, s) in zip(teacher_ids, clamped, strict=True) if v in student_ids]
    return sum(terms) / len(terms) if terms else math.nan


def probe(student_ids, teacher_ids, student, teacher):
    inside = [
        (math.exp(s), math.exp(t)) for v, s, t in zip(student_ids, student, teacher, strict=True) if v in teacher_ids
    ]
    p_sum, q_sum = (max(sum(pair[i] for pair in inside), 1e-12) for i in (0, 1))
    logs = [(p / p_sum, math.log(max(q / q_sum, 1e-12)) - math.log(max(p / p_sum, 1e-12))) for p, q in inside]
    return sum(p * log for p, log in logs) if inside else math.nan


def cookbook(student_ids, teacher_ids, student, teacher):
    inside = [
        (math.exp(s), math.exp(t)) for v, s, t in zip(student_ids, student, teacher, strict=True) if v in teacher_ids
    ]
    sums = [sum(pair[i] for pair in inside) for i in (0, 1)]
    return sum(q / sums[1] - p / sums[0] for p, q in inside) / len(inside) if inside else math.nan


def test_conforms_to_thunlp(kept):
    expected = [thunlp(*row) for row in rows(*kept.of_shared)]
    found = metrics.thunlp_overlap_token_advantage(*kept.of_shared)
    assert found.tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert found.nan_to_num().abs().max() > 0.01


def test_pooled_as_thunlp_pools_when_weighed_by_shared_tokens(kept):
    shared = metrics.shared_tokens(kept.student_ids, kept.teacher_ids)
    rewards = -(kept.student - kept.teacher_at_student) * kept.student.softmax(-1)
    pooled = rewards[shared].mean()
    weights = shared.sum(-1).double()
    values = metrics.thunlp_overlap_token_advantage(*kept.of_shared).nan_to_num()
    assert ((weights * values).sum() / weights.sum()).item() == pytest.approx(pooled.item(), abs=1e-12)


def test_conforms_to_verl(kept):
    along_teacher = (kept.teacher_ids, kept.student_ids, kept.teacher, kept.student_at_teacher)
    expected = [verl(*row) for row in rows(*along_teacher)]
    found = metrics.verl_overlap_token_advantage(*kept.of_shared)
    assert found.tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert found.nan_to_num().abs().max() > 0.01


def test_conforms_to_the_probe(kept):
    expected = [probe(*row) for row in rows(*kept.of_shared)]
    found = metrics.probe_overlap_token_advantage(*kept.of_shared)
    assert found.tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert found.nan_to_num().abs().max() > 0.01 or kept.student.shape[-1] == 1


def test_conforms_to_the_cookbook(kept):
    expected = [cookbook(*row) for row in rows(*kept.of_shared)]
    assert metrics.cookbook_overlap_token_advantage(*kept.of_shared).tolist() == pytest.approx(
        expected, abs=1e-6, nan_ok=True
    )


@given(seed=st.integers(0, 2000), scale=st.floats(0.1, 20), k=st.integers(1, 30))
def test_the_cookbooks_is_0_whatever_the_models(seed, scale, k):
    kept = kept_of(*pair_of(30, 5, seed=seed, scale=scale), k)
    found = metrics.cookbook_overlap_token_advantage(*kept.of_shared)
    assert found.nan_to_num().abs().max() < 1e-12


@given(seed=st.integers(0, 2000), k=st.integers(1, 20))
def test_the_probes_is_the_papers_times_the_shared_tokens(seed, k):
    kept = kept_of(*pair_of(20, 5, seed=seed), k)
    shared = metrics.shared_tokens(kept.student_ids, kept.teacher_ids).sum(-1)
    paper = metrics.overlap_token_advantage(*kept.of_shared)
    torch.testing.assert_close(metrics.probe_overlap_token_advantage(*kept.of_shared), paper * shared, equal_nan=True)


def test_a_temperature_sets_them_apart():
    """Nearly the same number under noise, another one where the student is too flat."""
    generator = torch.Generator().manual_seed(0)
    teacher = 2.5 * torch.randn(500, 400, generator=generator, dtype=torch.float64)
    flat = kept_of((0.7 * teacher).log_softmax(-1), teacher.log_softmax(-1), 16)
    paper, thunlp_value, verl_value = (
        f(*flat.of_shared).mean().item()
        for f in (
            metrics.overlap_token_advantage,
            metrics.thunlp_overlap_token_advantage,
            metrics.verl_overlap_token_advantage,
        )
    )
    assert verl_value < paper < thunlp_value
    assert verl_value < 1.3 * paper


def test_by_hand():
    # Shared: 7 (p .5, q .1) and 3 (p .2, q .6); the student's third is 1 (.1).
    ids, others = torch.tensor([7, 3, 1]), torch.tensor([3, 9, 7])
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.2, 0.1], [0.1, 0.6, 0.01]))
    logs = math.log(0.1 / 0.5), math.log(0.6 / 0.2)
    found = [reading(ids, others, p, q).item() for reading in READINGS]
    thunlp_value = (0.5 / 0.8 * logs[0] + 0.2 / 0.8 * logs[1]) / 2
    verl_value = -(0.1 * logs[0] + 0.6 * logs[1]) / 2
    probe_value = 5 / 7 * math.log(1 / 5) + 2 / 7 * math.log(3)
    assert found == pytest.approx([thunlp_value, verl_value, probe_value, 0.0], abs=1e-12)


@pytest.mark.parametrize("reading", READINGS)
def test_nothing_shared_equal_models_and_shapes(reading, random_pair):
    ids, logprobs = torch.tensor([1, 2]), torch.tensor([0.5, 0.25]).log()
    assert math.isnan(reading(ids, ids + 2, logprobs, logprobs).item())
    student = random_pair(30, 2, 3)[0]
    kept = kept_of(student, student, 5)
    assert reading(*kept.of_shared).shape == (2, 3)
    assert reading(*kept.of_shared).abs().max() < 1e-12
    with pytest.raises(ValueError, match="one shape"):
        reading(ids, ids[:1], logprobs, logprobs)
    for wrong in (logprobs[:1], logprobs.expand(3, 2)):
        for arguments in ((wrong, logprobs), (logprobs, wrong)):
            with pytest.raises(ValueError, match=r"ids' shape \(2,\), found"):
                reading(ids, ids, *arguments)


def test_tokens_without_probability():
    ids = torch.tensor([0, 1])
    student, teacher = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log()
    assert metrics.thunlp_overlap_token_advantage(ids, ids, student, teacher).item() == pytest.approx(math.log(0.5) / 2)
    assert metrics.probe_overlap_token_advantage(ids, ids, student, teacher).item() == pytest.approx(math.log(0.5))
    assert metrics.probe_overlap_token_advantage(ids, ids, teacher, student).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * (math.log(1e-12) - math.log(0.5)), abs=1e-4
    )
