"""A model that is put in memory once, and only when someone asks for it; several may take turns in one place."""

from __future__ import annotations

import pytest
import tiny_run as tiny
import torch

from opd_diag.errors import CheckpointError
from opd_diag.inference import load_model, swapping
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.settings import Settings
from opd_diag.replay import lazy
from opd_diag.runs import fingerprint
from opd_diag.tokenization import load_tokenizer

IDS = torch.tensor([[5, 6, 7, 8]])


def of_step(run, step, resident=None, **settings):
    checkpoint = Checkpoint(f"step {step}", step, run.checkpoint(step), "full")
    tokenizer = load_tokenizer(str(run.student), trust_remote_code=False)
    return lazy.LazyModel(checkpoint, Settings(**settings), f"number {step}", tokenizer, resident or lazy.Resident())


@pytest.fixture
def loaded(monkeypatch):
    """Options of each call that loads a model in the ordinary way."""
    calls = []
    monkeypatch.setattr(
        swapping, "load_model", lambda found, **options: calls.append(options) or load_model(found, **options)
    )
    return calls


def test_its_key_is_known_without_loading_it(tiny_run, loaded):
    model = of_step(tiny_run, 20)
    assert model.key == fingerprint(model.checkpoint)
    assert not loaded


def test_it_is_loaded_once_as_the_settings_say(tiny_run, loaded):
    model = of_step(tiny_run, 20, dtype="bfloat16", trust_remote_code=True, allow_pickle=True)
    assert model.model is model.model
    assert len(loaded) == 1
    assert loaded[0]["trust_remote_code"] is loaded[0]["allow_pickle"] is True
    assert (model.model.name, model.model.label, model.model.step) == ("number 20", "step 20", 20)
    assert model.model.key == model.key
    assert str(model.model.dtype) == "torch.bfloat16"
    assert set(model.tokenizer.stop_ids) <= set(model.model.stop_ids)


@torch.no_grad()
def test_models_that_share_a_place_never_give_each_others_numbers(tiny_run, loaded):
    place = lazy.Resident()
    models = [of_step(tiny_run, step, place) for step in (10, 20, 30)]
    truth = [load_model(m.checkpoint).hf(IDS).logits for m in models]
    for i in (0, 1, 0, 2, 2, 1, 0):
        found = models[i].model
        assert (found.label, found.key) == (models[i].checkpoint.label, models[i].key)
        assert torch.equal(found.hf(IDS).logits, truth[i])
    assert len(loaded) == 1
    assert not torch.equal(truth[0], truth[1])


def test_a_model_with_a_place_of_its_own_stays(tiny_run):
    place = lazy.Resident()
    teacher, student = of_step(tiny_run, 30), of_step(tiny_run, 10, place)
    kept = teacher.model
    assert student.model.hf is not kept.hf
    assert of_step(tiny_run, 20, place).model.hf is student.resident._held.hf
    assert teacher.model is kept


def test_a_file_that_is_touched_is_the_same(own_run):
    model = of_step(own_run, 20)
    key = model.key
    (own_run.checkpoint(20) / "model.safetensors").touch()
    assert model.model.key == key == model.key


@pytest.mark.parametrize("loaded_before", [True, False])
def test_other_weights_than_those_of_the_key_are_refused(own_run, loaded_before):
    """Parts that are stored under the key would be of two models."""
    place = lazy.Resident()
    model, other = of_step(own_run, 20, place), of_step(own_run, 10, place)
    assert len(model.key) == 64
    if loaded_before:
        assert model.model.label == "step 20"
    tiny.change_weights(own_run.checkpoint(20), lambda name, tensor: tensor + 1)
    assert other.model.label == "step 10"
    with pytest.raises(CheckpointError) as caught:
        model.model  # noqa: B018
    assert str(caught.value) == (
        f"{own_run.checkpoint(20) / 'model.safetensors'} changed while it was read: it holds other bytes than when "
        "this report began. Something else writes there. Wait until it has finished (or take the copy that it does not "
        "write to), then run the same command again."
    )
    assert other.model.label == "step 10"


def test_a_checked_head_is_remembered(tiny_run):
    model = of_step(tiny_run, 20)
    assert not model.checked
    check = model.checked_on((5, 6, 7))
    assert model.checked
    assert (check.model, check.n_states) == ("number 20", 3)


def test_heads_are_checked_on_the_longest_response():
    def rollout(prompt, response):
        source = Provenance("sampled", "step 20", "", 20, 1.0, 1.0, 0)
        return Rollout(0, 0, "p", None, prompt, prompt, response, "stop", source)

    rollouts = [rollout((1, 2, 3, 4), (5,)), rollout((1,), (6, 7)), rollout((2,), (8, 9))]
    assert lazy.longest_ids(rollouts) == (1, 6, 7)
