"""Places are kept busy, by a rule that hangs on what was drawn alone; what was grown is checked."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from models import tiny_model, wrapped

from opd_diag.errors import ModelError
from opd_diag.inference import growing, wrap_model
from opd_diag.inference.growing import Row, Rules, check_grown, grow
from opd_diag.inference.places import Leaving
from opd_diag.records.prompt import Prompt
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt

RULES = Rules(Sampling(), (2, 7, 11), None)


def rows(n_prompts, rollouts, limit=20, longest=12):
    made = []
    for i in range(n_prompts):
        ids = tuple(torch.randint(12, 100, (max(1, longest - i),)).tolist())
        prompt = EncodedPrompt(i, Prompt("", f"p{i}", answer=None, group=None), ids, ids)
        made += [Row(prompt, ids, r, np.random.default_rng([i, r]).random(limit)) for r in range(rollouts)]
    return made


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture
def model():
    return wrapped(seed=1)


@pytest.fixture
def busy(monkeypatch):
    """How many rows drew a token, step by step."""
    counts = []
    draw = growing.draw

    def spy(logits, *others):
        counts.append(len(logits))
        return draw(logits, *others)

    monkeypatch.setattr(growing, "draw", spy)
    return counts


def grown(model, made, places, rules=RULES):
    told = list(grow(model, made, rules, places))
    assert told[-1] == len(made)
    assert told == sorted(told)
    assert all(row.finished for row in made)
    return [tuple(row.ids) for row in made]


def test_places_are_kept_busy_until_nobody_waits(monkeypatch, model, busy):
    """Two rows at a time may join eight places: never are more than one empty while somebody waits."""
    left = []
    joining = growing._joining

    def spy(waiting, *others, **how):
        joined = joining(waiting, *others, **how)
        left.append(len(waiting))
        return joined

    monkeypatch.setattr(growing, "_joining", spy)
    made = rows(20, 4, limit=40)
    lengths = [len(ids) for ids in grown(model, made, 8)]
    assert len(set(lengths)) > 10
    assert sum(busy) == sum(lengths)
    assert max(busy) == 8
    while_waiting = [n for n, waiting in zip(busy, left, strict=True) if waiting]
    assert len(while_waiting) > 20
    assert min(while_waiting) >= 7


def test_with_as_many_places_as_rows_nobody_waits(model, busy):
    made = rows(5, 4)
    grown(model, made, 128)
    assert busy[0] == 20
    assert busy == sorted(busy, reverse=True)


@pytest.mark.parametrize("places", [1, 2, 3, 7, 16])
def test_who_grows_beside_whom_does_not_matter(model, places):
    few, many = rows(9, 3), rows(9, 3)
    for a, b in zip(few, many, strict=True):
        a.prompt, a.seen = b.prompt, b.seen
    assert grown(model, few, places) == grown(model, many, 128)


def test_the_same_again(model):
    first, second = rows(9, 3), rows(9, 3)
    for a, b in zip(first, second, strict=True):
        b.prompt, b.seen = a.prompt, a.seen
    assert grown(model, first, 5) == grown(model, second, 5)
    assert [row.logprobs for row in first] == [row.logprobs for row in second]


def test_a_cache_that_takes_no_more_is_emptied_first(monkeypatch, busy):
    begins = []
    join = Leaving.join

    def spy(cache, prompts, copies):
        begins.append((len(busy), sum(copies)))
        return join(cache, prompts, copies)

    monkeypatch.setattr(Leaving, "join", spy)
    made = rows(6, 2)
    lengths = [len(ids) for ids in grown(wrapped("gemma2", seed=1), made, 4)]
    assert [n for _, n in begins] == [4, 4, 4]
    assert [step for step, _ in begins] == [0, max(lengths[:4]), max(lengths[:4]) + max(lengths[4:8])]


def test_a_prompt_waits_for_places_for_all_of_its_rows():
    made = rows(3, 4)
    waiting = deque(growing._groups(made, 4))
    assert [len(group) for group in waiting] == [4, 4, 4]
    assert growing._joining(waiting, 3, 16, alone=False, takes_more=True) == []
    assert growing._joining(waiting, 9, 16, alone=False, takes_more=False) == []
    assert growing._joining(waiting, 9, 16, alone=False, takes_more=True) == made[:8]
    assert growing._joining(waiting, 4, 64, alone=False, takes_more=True) == [], "too few to read a prompt for"
    assert growing._joining(waiting, 4, 16, alone=True, takes_more=False) == made[8:]


def test_many_rows_to_one_prompt_are_parted():
    made = rows(2, 10)
    assert [len(group) for group in growing._groups(made, 4)] == [4, 4, 2, 4, 4, 2]


@pytest.mark.parametrize("stays", [[], [True], [False], [True, False, True, False, True], [False, False, True, True]])
def test_gaps_are_filled_from_behind(stays):
    places = growing._closed_up(stays)
    assert sorted(places) == [i for i, stay in enumerate(stays) if stay]
    assert all(old == place or old >= len(places) for place, old in enumerate(places))


class TestCheck:
    def test_passes_on_what_was_grown(self, model):
        made = rows(6, 2)
        grown(model, made, 4)
        check_grown(model, made, RULES)

    def test_both_ends_are_looked_at(self, model):
        """The first tokens of the row that joined last, and the last ones of the longest."""
        for pick, place in ((lambda made: made[-1], 0), (lambda made: max(made, key=lambda r: len(r.ids)), -1)):
            made = rows(6, 2, limit=50)
            grown(model, made, 4)
            pick(made).logprobs[place] -= 0.1
            with pytest.raises(ModelError, match="token by token"):
                check_grown(model, made, RULES)

    def test_a_cache_that_is_not_what_it_seems(self):
        """Rows that joined late read what another left in their place."""
        hf = tiny_model(seed=1)
        model = wrap_model(hf, name="m", stop_ids=(2, 7, 11))
        hf.model.register_forward_pre_hook(_see_what_was_left, with_kwargs=True)
        made = rows(12, 2)
        grown(model, made, 4)
        with pytest.raises(ModelError, match=r"cannot be sampled from here: sample with the tool that trained it"):
            check_grown(model, made, RULES)


def _see_what_was_left(module, args, kwargs):
    if kwargs.get("attention_mask") is not None:
        kwargs = kwargs | {"attention_mask": torch.ones_like(kwargs["attention_mask"])}
    return args, kwargs
