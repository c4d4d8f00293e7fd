"""Rows that join, grow, leave and move: each sees its own tokens and nothing else."""

from __future__ import annotations

import pytest
import torch
from models import FAMILIES, tiny_model, wrapped

from opd_diag.inference import places, wrap_model
from opd_diag.inference.places import SPARE, Leaving, Places, open_places

MERGED = ("llama", "qwen3", "gpt2", "phi", "granite", "cohere", "qwen3_moe")
"""Families whose cache is keys and values of all tokens and nothing else."""


def ids(n, seed=0):
    return tuple(torch.randint(3, 100, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


class Watched:
    """Rows in a cache, each held against one pass over all its tokens whenever something happened."""

    def __init__(self, model, cache):
        self.model, self.cache, self.rows = model, cache, []

    def join(self, prompts, copies):
        hidden = self.cache.join(prompts, copies)
        assert len(hidden) == len(prompts)
        for prompt, found in zip(prompts, hidden, strict=True):
            self.check(list(prompt), found)
        self.rows += [list(p) for p, n in zip(prompts, copies, strict=True) for _ in range(n)]

    def advance(self, seed):
        new = ids(len(self.rows), seed)
        for row, found, token in zip(self.rows, self.cache.advance(new), new, strict=True):
            row.append(token)
            self.check(row, found)

    def keep(self, stay):
        self.cache.keep(stay)
        self.rows = [self.rows[i] for i in stay]

    def check(self, row, found):
        with torch.inference_mode():
            torch.testing.assert_close(found, self.model.hidden(torch.tensor([row]))[0, -1], atol=1e-4, rtol=1e-4)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_which_caches_take_more_rows(family):
    assert isinstance(open_places(wrapped(family), 4, 50), Places if family in MERGED else Leaving)
    assert open_places(wrapped(family), 4, 50).takes_more is (family in MERGED)


@pytest.mark.parametrize("family", MERGED)
def test_rows_join_those_that_grow_whatever_their_lengths(family):
    """Shorter ones, longer ones than any that grows, and in places that were left."""
    model = wrapped(family)
    watched = Watched(model, open_places(model, 8, 60))
    watched.join([ids(9), ids(3, 1)], [2, 3])
    for seed in range(4):
        watched.advance(seed)
    watched.keep([0, 4, 2])
    watched.advance(5)
    watched.join([ids(30, 2), ids(1, 3)], [1, 4])  # longer than all of the others, and shorter
    for seed in range(6, 9):
        watched.advance(seed)
    watched.keep([0, 1, 7, 6, 4])  # without the longest
    watched.advance(10)
    watched.keep([])
    watched.join([ids(5, 4)], [2])
    watched.advance(11)
    assert [len(row) for row in watched.rows] == [6, 6]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_columns_that_nobody_uses_any_more_are_used_again(monkeypatch, family):
    """One row after the other beside one that leaves late, far beyond the columns that there are."""
    monkeypatch.setattr(places, "SPARE", 3)
    model = wrapped(family)
    cache = open_places(model, 3, 32)
    watched = Watched(model, cache)
    for n in range(6):  # 78 columns in all
        watched.join([ids(4 + n % 3, n)], [3 - len(watched.rows)])
        for seed in range(13):
            watched.advance(seed)
        watched.keep([2])
        if n % 2:
            watched.keep([])
    assert cache.layers[0].stored[0].shape[2] == 35
    assert cache.layers[0].end <= 35


def test_nothing_unwritten_is_read(monkeypatch):
    """Memory that holds what is no number, as fresh memory may: masked or not, it must not be multiplied."""
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    model = wrapped()
    watched = Watched(model, open_places(model, 6, 40))
    watched.join([ids(4), ids(2, 1)], [1, 1])
    watched.advance(0)
    watched.join([ids(20, 2), ids(3, 3)], [1, 2])
    watched.advance(1)
    watched.keep([3, 1, 2])
    watched.advance(2)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_leave_any_cache(family):
    model = wrapped(family)
    watched = Watched(model, Leaving(model))
    watched.join([ids(9), ids(3, 1)], [2, 2])
    watched.advance(0)
    watched.keep([0, 3, 2])
    watched.advance(1)
    watched.keep([2])
    for seed in range(2, 10):
        watched.advance(seed)
    watched.keep([])
    watched.rows.clear()
    watched.join([ids(2, 4)], [3])
    watched.advance(11)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_prompt_is_forwarded_once_for_all_its_copies(family):
    model = wrapped(family)
    cache = open_places(model, 50, 60)
    cache.join([ids(9), ids(9, 1)], [20, 30])
    assert model.forwarded.tokens == 18
    cache.advance(ids(50))
    assert model.forwarded.tokens == 68


def test_long_prompts_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(places, "PREFILLED_TOKENS", 12)
    seen = []
    model = wrapped()
    model.hf.model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    watched = Watched(model, open_places(model, 9, 40))
    cache = watched.cache
    hidden = cache.join([ids(20), ids(6, 1), ids(5, 2), ids(2, 3)], [1, 2, 1, 1])
    assert seen == [(1, 20), (2, 6), (1, 2)]
    assert cache.lengths == [20, 6, 6, 5, 2]
    assert len(hidden) == 4
    watched.rows = [list(p) for p in (ids(20), ids(6, 1), ids(6, 1), ids(5, 2), ids(2, 3))]
    watched.advance(0)


def test_nothing_is_copied_but_what_moves():
    """The memory of the keys stays where it is while rows grow, leave and join."""
    model = wrapped()
    cache = open_places(model, 6, 40)
    cache.join([ids(4), ids(2, 1)], [3, 2])
    memory = [stored.data_ptr() for layer in cache.layers for stored in layer.stored]
    for _ in range(SPARE + 30):
        cache.advance(ids(len(cache.lengths)))
        if max(cache.lengths) == 40:
            cache.keep([0])
            cache.keep([])
            cache.join([ids(3)], [5])
    assert [stored.data_ptr() for layer in cache.layers for stored in layer.stored] == memory


def test_a_body_in_sixteen_bits():
    model = wrap_model(tiny_model().bfloat16(), name="half")
    cache = open_places(model, 4, 30)
    cache.join([ids(4)], [2])
    assert cache.advance(ids(2)).dtype == torch.bfloat16
    assert cache.layers[0].stored[0].dtype == torch.bfloat16
