"""verl's top-k loss: its own formula written again, its clamps one by one."""

from __future__ import annotations

import math

import pytest
import torch

from opd_diag import metrics

from .kept_pairs import kept_of, rows


def verl(student, teacher):
    """Sum before and after the clamps of the loss, and whether a log-probability was clamped, of one state."""
    clamped = [(max(s, -10.0), max(t, -10.0)) for s, t in zip(student, teacher, strict=True)]
    total = sum(math.exp(t) * (t - s) for s, t in clamped)
    return total, min(max(total, 0.0), 10.0), any(x < -10.0 for x in (*student, *teacher))


@pytest.fixture(params=[(40, 6, 3.0), (12, 12, 3.0), (200, 32, 8.0), (9, 1, 3.0)], ids=str)
def kept(request, random_pair):
    vocabulary, k, scale = request.param
    return kept_of(*random_pair(vocabulary, 80, seed=vocabulary, scale=scale), k)


def test_conforms_to_the_owners_formula(kept):
    expected = [verl(*row) for row in rows(*kept.on_teacher)]
    found = metrics.verl_topk_forward_kl(*kept.on_teacher).tolist()
    assert found == pytest.approx([loss for _, loss, _ in expected], abs=1e-6)
    assert max(found) > 0.1
    negative = [float(total < 0) for total, _, _ in expected]
    assert metrics.verl_negative(*kept.on_teacher).tolist() == negative
    acting = [float(low or not 0 <= total <= 10) for total, _, low in expected]
    assert metrics.verl_clamped(*kept.on_teacher).tolist() == acting


def test_some_of_these_states_are_negative_and_some_are_clamped(random_pair):
    few = kept_of(*random_pair(9, 80, seed=9), 1).on_teacher
    assert 0 < metrics.verl_negative(*few).mean() < 1
    assert torch.equal(metrics.verl_clamped(*few), metrics.verl_negative(*few))
    wide = kept_of(*random_pair(200, 80, seed=200, scale=8.0), 32).on_teacher
    assert metrics.verl_clamped(*wide).mean() > metrics.verl_negative(*wide).mean()


def test_by_hand():
    # q = (.6, .3), p = (.3, .3): .6 log 2 + 0 = .415888.
    student, teacher = torch.tensor([0.3, 0.3]).log(), torch.tensor([0.6, 0.3]).log()
    assert metrics.verl_topk_forward_kl(student, teacher).item() == pytest.approx(0.415888, abs=1e-6)
    # The other way round it is negative and set to 0.
    assert metrics.verl_topk_forward_kl(teacher, student).item() == 0.0
    assert metrics.verl_negative(teacher, student).item() == 1.0
    assert metrics.verl_clamped(student, teacher).item() == 0.0


def test_each_clamp():
    low = torch.tensor([-30.0, 0.0])
    loss = metrics.verl_topk_forward_kl(low, torch.tensor([0.0, -30.0]))
    assert loss.item() == pytest.approx(10 + math.exp(-10) * -10, abs=1e-5)  # log p at -10, log q at -10
    assert metrics.verl_clamped(low, torch.tensor([0.0, -1.0])).item() == 1.0
    assert metrics.verl_clamped(torch.tensor([-1.0, -1.0]), torch.tensor([0.0, -10.5])).item() == 1.0
    assert metrics.verl_topk_forward_kl(torch.full((4,), -30.0), torch.full((4,), 0.0)).item() == 10.0
    assert metrics.verl_topk_forward_kl(torch.tensor([-math.inf]), torch.tensor([0.0])).item() == 10.0


def test_equal_models(random_pair):
    student = random_pair(300, 40, dtype=torch.float32)[0]
    pair = kept_of(student, student, 16).on_teacher
    assert metrics.verl_topk_forward_kl(*pair).tolist() == [0.0] * 40
    assert metrics.verl_negative(*pair).tolist() == [0.0] * 40
    assert metrics.verl_clamped(*pair).tolist() == (pair[0].amin(-1) < -10).float().tolist()
