"""What is told of a model from its config, held against the model itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from models import FAMILIES, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from opd_diag.errors import CheckpointError
from opd_diag.inference.size import limits_of, model_size, size_of_config, with_layers
from opd_diag.records.checkpoint import Checkpoint

CPU = torch.device("cpu")


def size(family, **changes):
    return size_of_config(tiny_model(family, **changes).config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_tells_what_the_model_holds(family):
    model = tiny_model(family)
    found = size_of_config(model.config)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.layers == model.config.num_hidden_layers
    assert (found.vocabulary, found.width) == tuple(model.get_output_embeddings().weight.shape)
    assert 0 < found.body < found.parameters


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "granite"])
def test_operations_are_those_that_torch_counts(family):
    model, tokens = tiny_model(family, attn_implementation="eager"), 24  # the others hide theirs from the counter
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.arange(tokens).unsqueeze(0), use_cache=False)
    found = size_of_config(model.config)
    # torch counts all pairs of tokens, those that the causal mask leaves out too
    expected = found.body_flop(tokens, seen=tokens) + tokens * found.head_flop
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_embeddings_cost_nothing_and_a_tied_head_is_counted_once():
    for vocabulary in (160, 320):
        assert size("qwen3", vocabulary=vocabulary).body == size("qwen3").body
    assert size("qwen3", vocabulary=320).parameters - size("qwen3").parameters == 160 * 32
    assert size("llama", vocabulary=320).parameters - size("llama").parameters == 2 * 160 * 32


def test_of_experts_only_those_count_that_a_token_passes():
    all_of_them = size("qwen3_moe", num_experts_per_tok=4).body
    half = size("qwen3_moe", num_experts_per_tok=2).body
    experts = 2 * 4 * 3 * 32 * 16  # layers, experts, matrices of one, its shape
    assert all_of_them - half == experts // 2


def folder(path: Path, **config) -> Checkpoint:
    tiny_model("llama").config.save_pretrained(path)
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return Checkpoint("step 1", 1, path, "full")


def test_no_weights_are_needed(tmp_path):
    assert model_size(folder(tmp_path)) == size("llama")
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_adapter_is_as_large_as_its_base(tmp_path):
    folder(tmp_path)
    adapter = Checkpoint("step 1", 1, tmp_path / "adapter", "adapter", base_model=str(tmp_path))
    assert model_size(adapter) == size("llama")


def test_a_config_of_nothing_known_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"step 1: .* does not load"):
        model_size(folder(tmp_path, model_type="abacus"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_likeness_is_the_same_but_for_layers_and_vocabulary(family):
    whole = size(family)
    before = torch.random.get_rng_state()
    like = with_layers(whole, whole.fewest_layers, 50, torch.float32, CPU)
    assert torch.equal(torch.random.get_rng_state(), before), "random numbers of others"
    assert type(like) is type(tiny_model(family))
    made = size_of_config(like.config)
    assert (made.layers, made.vocabulary, made.width) == (2 if family in ("lfm2", "gemma2") else 1, 50, whole.width)
    assert whole.config.num_hidden_layers == 2
    assert torch.isfinite(like(input_ids=torch.arange(8).unsqueeze(0)).logits).all()


def test_a_likeness_has_the_dtype_that_is_asked_for():
    assert with_layers(size("llama"), 1, 50, torch.bfloat16, CPU).dtype == torch.bfloat16


def test_a_model_within_another_is_the_one_that_is_sized(tmp_path):
    inner = tiny_model("qwen3").config
    outer = transformers.Qwen3Config.from_dict(inner.to_dict())
    outer.save_pretrained(tmp_path)
    assert model_size(Checkpoint("a", 1, tmp_path, "full")).config.model_type == "qwen3"


def test_limits_of_a_model_that_its_config_does_not_tell(tmp_path):
    made = tiny_model("llama", max_position_embeddings=77)
    made.config.save_pretrained(tmp_path / "llama")
    assert limits_of(Checkpoint("a", 0, tmp_path / "llama", "full")) == (made.config.vocab_size, 77)
    assert limits_of(Checkpoint("a", 0, tmp_path / "gone", "full")) == (None, None)
