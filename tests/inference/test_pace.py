"""What is timed, and how it is scaled; no clock is asked."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from models import tiny_model

from opd_diag.inference import pace
from opd_diag.inference.size import size_of_config

CPU = torch.device("cpu")


def size(family="llama", **changes):
    return size_of_config(tiny_model(family, **changes).config)


def measured(student, teacher=None, places=4, seen=10):
    return pace.measured_pace(student, teacher or student, dtype=torch.float32, device=CPU, places=places, seen=seen)


@pytest.fixture
def one_second_each(monkeypatch):
    """Everything that is timed takes a second."""

    def seconds(call, device):
        call()
        return 1.0

    monkeypatch.setattr(pace, "_seconds", seconds)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3_moe", "lfm2"])
def test_every_figure_is_a_number(family):
    found = measured(size(family))
    for field in fields(found):
        value = getattr(found, field.name)
        assert math.isfinite(value), field.name
        assert value >= 0, field.name
    assert found.student_token > 0
    assert 900 < found.state_bytes < 1500


def test_layers_are_scaled(one_second_each, monkeypatch):
    monkeypatch.setattr(pace, "LAYER_BYTES", 1)
    one, five = measured(size(num_hidden_layers=1)), measured(size(num_hidden_layers=5))
    assert five.student_token == pytest.approx(5 * one.student_token)
    monkeypatch.setattr(pace, "LAYER_BYTES", 2**30)
    assert measured(size(num_hidden_layers=5)).student_token == pytest.approx(one.student_token)


def test_the_vocabulary_is_scaled(one_second_each, monkeypatch):
    monkeypatch.setattr(pace, "_body_seconds", lambda like: 0.0)
    monkeypatch.setattr(pace, "HEAD_BYTES", 1)
    small, large = measured(size(vocabulary=256)), measured(size(vocabulary=1024))
    assert large.state == pytest.approx(4 * small.state)


def test_two_shapes_are_timed_apart(monkeypatch):
    timed = []
    monkeypatch.setattr(pace, "_body_seconds", lambda like: timed.append(like.size.width) or 1.0 * like.size.width)
    found = measured(size(hidden_size=32), size(hidden_size=64))
    assert timed == [32, 64]
    assert found.teacher_token == 2 * found.student_token
    measured(size(), size())
    assert timed == [32, 64, 32], "one shape is timed once"


def test_a_context_too_short_for_what_is_timed(one_second_each):
    found = measured(size(max_position_embeddings=16), seen=500)
    assert math.isfinite(found.student_drawn)


def test_the_random_numbers_of_others_stay():
    about = size()
    before = torch.random.get_rng_state()
    measured(about)
    assert torch.equal(torch.random.get_rng_state(), before)
