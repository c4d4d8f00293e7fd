"""Scores put together from shards, each made alone and in any order, are those of one scoring."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from models import RAGGED, random_rollouts, wrapped

from opd_diag.inference import Scoring, packing, score, shards
from opd_diag.records.scores import TENSOR_FIELDS


@pytest.fixture
def scoring(monkeypatch):
    monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", 40)
    monkeypatch.setattr(shards, "TOKENS_PER_SHARD", 50)
    return Scoring(wrapped("qwen3", name="student", seed=1), wrapped("qwen3", name="teacher", seed=2), 1.0, 1.0)


@pytest.fixture
def rollouts():
    drawn = [replace(r, teacher_prompt_ids=(3, *r.prompt_ids)) for r in random_rollouts(RAGGED)]
    return [replace(drawn[0], stop_reason="length"), *drawn[1:]]


def test_shards_in_any_order_and_as_sets_of_their_own(scoring, rollouts):
    outline = pickle.loads(pickle.dumps(scoring.outline(rollouts, "start").of(()))).of(rollouts)
    cut = outline.cut
    numbers = [*reversed(range(len(cut.parts)))]
    assert len(numbers) > 2
    found = outline.together((number, scoring.shard(cut.alone(number), 0)) for number in numbers)
    expected = score(scoring.student, scoring.teacher, rollouts, states="start")
    for name in TENSOR_FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.grid, found.provenance) == (expected.grid, expected.provenance)
    assert len(TENSOR_FIELDS) == len(fields(expected)) - 5


def test_a_shard_alone_has_its_batches(scoring, rollouts):
    cut = scoring.outline(rollouts, "start").cut
    for number in range(len(cut.parts)):
        alone = cut.alone(number)
        assert alone.inside(0) == cut.inside(number)
        assert alone.tokens(0) == cut.tokens(number)
        assert len(alone.parts) == 1
    assert sum(sum(cut.tokens(number)) for number in range(len(cut.parts))) == sum(cut.lengths)


def test_progress_of_a_shard_is_in_its_tokens(scoring, rollouts):
    cut = scoring.outline(rollouts, "start").cut
    told = []
    scoring.shard(cut, 0, tell=told.append)
    assert told == [sum(cut.tokens(0)[: n + 1]) for n in range(len(cut.parts[0]))]
