"""A model against itself: nothing, unless it does not give the same numbers twice."""

from __future__ import annotations

import torch
from models import random_rollouts, wrapped

from opd_diag.replay.selftests.self_teacher import self_teacher
from replay.selftests.broken import Noisy


def test_a_healthy_model_has_none(student, rollouts):
    found = self_teacher(student, rollouts)
    assert (found.name, found.model, found.status, found.advice) == ("self_teacher", "step 0", "pass", "")
    assert abs(found.value) < 1e-9
    assert found.evidence.startswith("As its own teacher, step 0 has reverse KL 0.0e+00 nats, overlap ratio 1 and ")


def test_every_family_and_sixteen_bits():
    few = random_rollouts([(4, 9), (6, 12), (4, 5)])
    for family in ("llama", "gpt2", "lfm2"):
        assert self_teacher(wrapped(family), few).status == "pass", family
    half = wrapped("llama")
    half.hf.bfloat16()
    assert self_teacher(half, few).status == "pass"


def test_a_teacher_that_sees_another_prompt_is_not_held_against_it(student, rollouts):
    from dataclasses import replace

    other = [replace(r, teacher_prompt_ids=r.prompt_ids[3:]) for r in rollouts[:4]]
    assert self_teacher(student, other).status == "pass"


def test_noise_that_is_left_on_fails(student, rollouts):
    torch.manual_seed(0)
    found = self_teacher(Noisy.of(student), rollouts)
    assert found.status == "fail"
    assert found.value > 20 * found.threshold
    assert "dropout" in found.advice
