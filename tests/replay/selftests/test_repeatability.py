"""Scoring twice."""

from __future__ import annotations

import math

import torch

from opd_diag.inference import score
from opd_diag.replay.selftests.repeatability import repeatability
from replay.selftests.broken import Noisy


def test_the_same_again(student, teacher, rollouts, scores):
    found = repeatability("student and teacher", scores, score(student, teacher, rollouts))
    assert (found.name, found.status, found.advice) == ("repeatability", "pass", "")
    assert found.value < found.threshold


def test_a_service_that_answers_otherwise_each_time_fails(student, teacher, rollouts):
    torch.manual_seed(0)
    noisy = Noisy.of(teacher, size=0.1)
    found = repeatability("pair", *(score(student, noisy, rollouts) for _ in range(2)))
    assert found.status == "fail"
    assert found.value > 1
    assert "deterministic" in found.advice


def test_models_that_do_not_differ_have_no_share(student, rollouts):
    found = repeatability("pair", *(score(student, student, rollouts[:4]) for _ in range(2)))
    assert found.status == "pass"
    assert math.isnan(found.value)
