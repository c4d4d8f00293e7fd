"""A model that is loaded once, and only when someone asks for it."""

from __future__ import annotations

import pytest

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.settings import Settings
from opd_diag.replay import lazy
from opd_diag.runs import fingerprint
from opd_diag.tokenization import load_tokenizer


@pytest.fixture
def model(tiny_run):
    checkpoint = Checkpoint("step 20", 20, tiny_run.checkpoint(20), "full")
    tokenizer = load_tokenizer(str(tiny_run.student), trust_remote_code=False)
    return lazy.LazyModel(checkpoint, Settings(dtype="bfloat16"), "twenty", tokenizer)


def test_its_key_is_known_without_loading_it(model, monkeypatch):
    monkeypatch.setattr(lazy, "load_model", lambda *args, **options: pytest.fail("loaded"))
    assert model.key == fingerprint(model.checkpoint)


def test_it_is_loaded_once_as_the_settings_say(model, monkeypatch):
    loaded = []
    load = lazy.load_model
    monkeypatch.setattr(lazy, "load_model", lambda *args, **options: loaded.append(options) or load(*args, **options))
    assert model.model is model.model
    assert len(loaded) == 1
    assert (model.model.name, model.model.label, model.model.step) == ("twenty", "step 20", 20)
    assert str(model.model.dtype) == "torch.bfloat16"
    assert set(model.tokenizer.stop_ids) <= set(model.model.stop_ids)


def test_a_checked_head_is_remembered(model):
    assert not model.checked
    check = model.checked_on((5, 6, 7))
    assert model.checked
    assert (check.model, check.n_states) == ("twenty", 3)


def test_heads_are_checked_on_the_longest_response():
    def rollout(prompt, response):
        source = Provenance("sampled", "step 20", "", 20, 1.0, 1.0, 0)
        return Rollout(0, 0, "p", None, prompt, prompt, response, "stop", source)

    rollouts = [rollout((1, 2, 3, 4), (5,)), rollout((1,), (6, 7)), rollout((2,), (8, 9))]
    assert lazy.longest_ids(rollouts) == (1, 6, 7)
