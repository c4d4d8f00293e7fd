"""State sets cut into shards, and hidden states of shards as the scoring made them, to the bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import RAGGED, random_rollouts, wrapped

from opd_diag.inference import Cut, hidden_as_scored, packing, score, shards
from opd_diag.inference.cut import hidden_at_states, positions_of
from opd_diag.inference.model import Model


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", 40)
    monkeypatch.setattr(shards, "TOKENS_PER_SHARD", 50)


@pytest.fixture
def pair():
    return wrapped("qwen3", name="student", seed=1), wrapped("qwen3", name="teacher", seed=2)


@pytest.fixture
def rollouts():
    return [replace(r, teacher_prompt_ids=(3, *r.prompt_ids)) for r in random_rollouts(RAGGED)]


class Kept:
    """Keeps shards in memory, by number."""

    def __init__(self):
        self.shards = {}

    def __call__(self, shard, make):
        if shard.number not in self.shards:
            self.shards[shard.number] = make()
        return self.shards[shard.number]


@pytest.mark.usefixtures("small")
def test_every_rollout_lies_in_one_shard_and_places_are_all_its_states(pair, rollouts):
    cut = Cut.of(*pair, rollouts)
    assert len(cut.parts) > 1
    assert sorted(i for part in cut.parts for batch in part for i in batch) == list(range(len(rollouts)))
    places = [place for number in range(len(cut.parts)) for place in cut.places(number)]
    assert sorted(places) == [(i, p) for i, r in enumerate(rollouts) for p in positions_of(r)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("as_teacher", [False, True])
def test_places_are_what_the_scoring_kept_and_gone_shards_are_made_again(pair, rollouts, as_teacher):
    keeps = Kept(), Kept()
    score(*pair, rollouts, keep_student=keeps[0], keep_teacher=keeps[1])
    cut, keep, model = Cut.of(*pair, rollouts), keeps[as_teacher], pair[as_teacher]
    assert set(keep.shards) == set(range(len(cut.parts)))
    wanted = [(4, 29), (0, 0), (3, 2), (1, 11)]
    found = hidden_as_scored(model, cut, wanted, keep, as_teacher=as_teacher)
    expected = {
        place: state
        for number in keep.shards
        for place, state in zip(cut.places(number), keep.shards[number].source.float(), strict=True)
    }
    assert torch.equal(found, torch.stack([expected[place] for place in wanted]))
    assert torch.equal(hidden_as_scored(model, cut, wanted, Kept(), as_teacher=as_teacher), found)
    alone = torch.stack(
        [hidden_at_states(model, [rollouts[row]], as_teacher=as_teacher)[position] for row, position in wanted]
    )
    torch.testing.assert_close(found, alone.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("small")
def test_found_states_of_both_change_no_number_and_run_no_body(pair, rollouts, monkeypatch):
    keeps = Kept(), Kept()
    first = score(*pair, rollouts, keep_student=keeps[0], keep_teacher=keeps[1])
    plain = score(*pair, rollouts)

    def never(self, *_, **__):
        raise AssertionError(f"{self.name} ran")

    monkeypatch.setattr(Model, "hidden", never)
    again = score(*pair, rollouts, keep_student=keeps[0], keep_teacher=keeps[1])
    for found in (first, again):
        assert (found.reverse_kl == plain.reverse_kl).all()
        assert (found.student_topk_ids == plain.student_topk_ids).all()
        assert (found.teacher_entropy == plain.teacher_entropy).all()
