"""Long work in shards: cut between batches, the same numbers whatever was found, progress over all of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from models import random_rollouts, word_tokenizer, wrapped

from opd_diag.inference import cut, sample_rollouts, sampling, score, shards
from opd_diag.inference.batches import length_sorted_batches
from opd_diag.inference.shards import Shard, Told, keep_nothing
from opd_diag.records.arrays import load_arrays, save_arrays
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.sampling import Sampling
from opd_diag.records.scores import TENSOR_FIELDS
from opd_diag.tokenization import EncodedPrompt

LENGTHS = ((1, 7), (12, 20), (5, 1), (30, 3), (3, 30), (9, 9), (4, 4), (8, 2))
TOKENIZER = word_tokenizer()


@pytest.fixture
def several(monkeypatch):
    """Batches of at most 40 tokens, shards of some 50, and of three responses."""
    monkeypatch.setitem(cut.TOKENS_PER_PACK, "cpu", 40)
    monkeypatch.setattr(shards, "TOKENS_PER_SHARD", 50)
    monkeypatch.setattr(sampling, "ROWS_PER_SHARD", 4)


class Kept:
    """Shards in memory; says which were made."""

    def __init__(self, save=lambda shard: shard):
        self.found, self.made, self.counts, self.rows, self.save = {}, [], set(), [], save

    def __call__(self, shard, make):
        self.counts.add(shard.count)
        self.rows.append(json.dumps(shard.rows))
        if shard.number not in self.found:
            self.made.append(shard.number)
            self.found[shard.number] = self.save(make())
        return self.found[shard.number]


@pytest.mark.parametrize("seed", range(20))
def test_no_batch_is_cut_and_none_is_lost(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 4000, size=30).tolist()
    batches = length_sorted_batches(lengths, 1024)
    cut = shards.shards(batches, lengths)
    assert list(itertools.chain(*cut)) == batches
    sizes = [[sum(lengths[i] for i in batch) for batch in shard] for shard in cut]
    for shard, following in itertools.pairwise(sizes):
        assert sum(shard) <= shards.TOKENS_PER_SHARD or len(shard) == 1
        assert sum(shard) + following[0] > shards.TOKENS_PER_SHARD, "as few as can be"
    assert len(cut) > 4


def test_a_small_set_is_one_shard():
    lengths = [100] * 16
    assert len(shards.shards(length_sorted_batches(lengths, 1024), lengths)) == 1
    assert shards.shards([], []) == []


@pytest.fixture(scope="module")
def models():
    return wrapped("llama", name="step 20", label="step 20", step=20, seed=1), wrapped("qwen3", name="t", seed=2)


def same(first, second):
    for name in TENSOR_FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert first.provenance == second.provenance


def through_file(tmp_path):
    def save(arrays):
        save_arrays(tmp_path / "shard.safetensors", arrays)
        return load_arrays(tmp_path / "shard.safetensors")

    return save


def test_scores_are_the_same_whatever_was_found(several, models, tmp_path):
    rollouts = random_rollouts(LENGTHS)
    whole = score(*models, rollouts)
    kept = Kept(through_file(tmp_path))
    same(score(*models, rollouts, keep=kept), whole)
    [count] = kept.counts
    assert count > 3
    assert kept.made == list(range(count))
    assert len({*kept.rows}) == count
    for lost in range(count):
        kept.made.clear()
        del kept.found[lost]
        same(score(*models, rollouts, keep=kept), whole)
        assert kept.made == [lost]


def test_scores_do_not_depend_on_how_shards_are_cut(several, models, monkeypatch):
    """To the bit: batches are the same, and numbers depend on batches alone."""
    rollouts = random_rollouts(LENGTHS)
    small = score(*models, rollouts)
    monkeypatch.setattr(shards, "TOKENS_PER_SHARD", 10_000)
    kept = Kept()
    same(score(*models, rollouts, keep=kept), small)
    assert kept.counts == {1}


def test_a_shard_without_a_state(several, models, tmp_path):
    """Responses of no token, longer than the others in all: a shard of their own, with nothing in it."""
    rollouts = random_rollouts(((48, 0), (5, 9), (30, 3)))
    kept = Kept(through_file(tmp_path))
    scores = score(*models, rollouts, keep=kept)
    assert kept.found[0] == {}
    assert set(scores.rollout) == {1, 2}


def test_scoring_tells_progress_over_found_and_made(several, models):
    rollouts = random_rollouts(LENGTHS)
    kept, told = Kept(), []
    score(*models, rollouts, keep=kept)
    for lost in (1, 2):
        del kept.found[lost]
    score(*models, rollouts, keep=kept, progress=lambda *ends: told.append(ends))
    total = sum(p + r for p, r in LENGTHS)
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def prompts():
    return [EncodedPrompt(i, Prompt("", f"id{i}", None, None), (5,) * (1 + i % 3), (5,)) for i in range(5)]


def test_samples_are_the_same_whatever_was_found(several, models, tmp_path):
    def through_lines(rollouts):
        save_rollouts(tmp_path / "shard.jsonl", rollouts)
        return load_rollouts(tmp_path / "shard.jsonl")

    how = {"sampling": Sampling(rollouts_per_prompt=3, max_new_tokens=12)}
    whole = sample_rollouts(models[0], TOKENIZER, prompts(), **how)
    kept, told = Kept(through_lines), []
    assert sample_rollouts(models[0], TOKENIZER, prompts(), **how, keep=kept) == whole
    assert kept.made == [0, 1, 2, 3, 4]
    for lost in range(5):
        kept.made.clear()
        told.clear()
        del kept.found[lost]
        again = sample_rollouts(
            models[0], TOKENIZER, prompts(), **how, keep=kept, progress=lambda *ends: told.append(ends)
        )
        assert again == whole
        assert kept.made == [lost]
        assert (told[0], told[-1]) == ((0, 15), (15, 15))
        assert told == sorted(told)


def test_keeping_nothing_makes_everything():
    assert [keep_nothing(Shard(n, 3, []), lambda n=n: n * 2) for n in range(3)] == [0, 2, 4]


def test_progress_never_goes_back():
    told = []
    progress = Told(lambda *ends: told.append(ends), 10)
    progress.within(3)
    progress.within(2)
    progress.shard(4)
    progress.shard(4)
    progress.within(2)
    progress.shard(2)
    assert told == [(0, 10), (3, 10), (3, 10), (4, 10), (8, 10), (10, 10)]
    Told(None, 3).shard(3)
