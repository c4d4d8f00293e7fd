"""Which models can be in shards, and how much each rank holds, by hand; what cannot be is refused before it is read."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
from models import checkpoint, tiny_model

from opd_diag.errors import InputError
from opd_diag.inference.device_maps import Sharded
from opd_diag.inference.placing import settled, skeleton
from opd_diag.inference.sharding import plan_of, shard_bytes, whole


def config_of(tmp_path, family="llama", **changes):
    tiny_model(family, **changes).config.save_pretrained(tmp_path)
    return checkpoint(tmp_path)


def place(found, ranks=2):
    return settled(found, "auto", Sharded(ranks), dtype=torch.float32)


def test_what_can_be_in_shards_is(tmp_path):
    assert place(config_of(tmp_path)) == Sharded(2)


def test_what_a_rank_holds_by_hand(tmp_path):
    # two tables of 160 × 32, and two layers of q and o 32 × 32, k and v 32 × 16, three of 32 × 48; norms are whole
    parted = 2 * 160 * 32 + 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    model = skeleton(config_of(tmp_path), torch.float32)
    assert shard_bytes(model, Sharded(2)) == 4 * (parted // 2 + 5 * 32)
    assert shard_bytes(skeleton(config_of(tmp_path), torch.bfloat16), Sharded(2)) == 2 * (parted // 2 + 5 * 32)


def test_tied_weights_count_once_and_biases_of_parted_rows_are_whole(tmp_path):
    tied = skeleton(config_of(tmp_path, "qwen3"), torch.float32)
    # and norms of the heads, of 8, for queries and keys
    parted = 160 * 32 + 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert shard_bytes(tied, Sharded(2)) == 4 * (parted // 2 + 5 * 32 + 2 * 2 * 8)
    biased = skeleton(config_of(tmp_path, "phi"), torch.float32)
    whole_biases = 2 * 32 + 2 * 32  # of dense and fc2, of either layer
    shards = dict(biased.named_parameters())
    assert {"model.layers.0.self_attn.dense.bias", "model.layers.0.mlp.fc2.bias"} <= {*shards}
    norms = sum(p.numel() for name, p in shards.items() if "layernorm" in name)
    rest = sum(p.numel() for p in shards.values()) - norms - whole_biases
    assert shard_bytes(biased, Sharded(2)) == 4 * (rest // 2 + norms + whole_biases)


def test_what_is_in_one_piece_is_given_back():
    weight = torch.ones(2)
    assert whole(weight) is weight


class TestRefusals:
    def refused(self, found, ranks=2):
        with pytest.raises(InputError) as refused:
            place(found, ranks)
        return str(refused.value)

    def test_an_architecture_without_a_plan(self, tmp_path):
        import transformers

        message = (
            f"transformers {transformers.__version__} has no tensor-parallel plan for GPT2LMHeadModel, so "
            "--tensor-parallel cannot part it. Use --device-map auto."
        )
        assert self.refused(config_of(tmp_path, "gpt2")) == message
        lfm2 = config_of(tmp_path, "lfm2")
        assert self.refused(lfm2) == message.replace("GPT2LMHeadModel", "Lfm2ForCausalLM")
        assert plan_of(skeleton(lfm2, torch.float32)) == {}, "it parts its head, and no layer"

    @pytest.mark.parametrize("plan", [{"layers.*.mlp": "all_reduce"}, {}])
    def test_a_config_with_a_plan_of_its_own(self, tmp_path, plan):
        found = config_of(tmp_path)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_tp_plan": plan}))
        assert self.refused(found) == (
            "--tensor-parallel parts a model as transformers does its architecture, and the config.json of "
            f"{tmp_path} says otherwise (base_model_tp_plan). Take that out, or use --device-map auto."
        )

    @pytest.mark.parametrize("kind", ["mps", "xpu"])
    def test_another_accelerator(self, tmp_path, monkeypatch, kind):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
        assert self.refused(config_of(tmp_path)) == (
            "--tensor-parallel runs on CUDA GPUs, or on CPUs where there is no accelerator, found "
            f"{kind}. Leave it out."
        )

    def test_heads_that_cannot_be_dealt_out(self, tmp_path):
        found = config_of(tmp_path)
        assert self.refused(found, 3) == (
            "--tensor-parallel 3 must divide the heads of the teacher, found num_attention_heads 4. Use 2."
        )
        assert self.refused(found, 4) == (
            "--tensor-parallel 4 must divide the heads of the teacher, found num_key_value_heads 2. Use 2."
        )
        single = config_of(tmp_path, num_key_value_heads=1)
        assert self.refused(single) == (
            "--tensor-parallel 2 must divide the heads of the teacher, found num_key_value_heads 1. Use "
            "--device-map auto."
        )

    def test_weights_that_are_not_full_safetensors(self, tmp_path):
        found = config_of(tmp_path)
        message = (
            f"--tensor-parallel reads full weights in safetensors, which {tmp_path} does not hold. Save them so "
            "(save_pretrained), or use --device-map auto."
        )
        torch.save({}, tmp_path / "pytorch_model.bin")
        assert self.refused(found) == message
        (tmp_path / "pytorch_model.bin").unlink()
        assert self.refused(replace(found, kind="fsdp")) == message

    def test_too_few_gpus(self, tmp_path, two_gpus):
        assert place(config_of(tmp_path)) == Sharded(2)
        assert self.refused(config_of(tmp_path), 4) == (
            "--tensor-parallel 4 needs a GPU for each shard, found 2. Use a smaller number."
        )

    def test_a_transformers_that_cannot(self, tmp_path, monkeypatch):
        import transformers

        monkeypatch.setitem(sys.modules, "transformers.distributed", None)
        assert self.refused(config_of(tmp_path)) == (
            "--tensor-parallel needs a transformers whose DistributedConfig has tp_size, as 5.23 has; found "
            f"{transformers.__version__}. Upgrade transformers, or use --device-map auto."
        )
