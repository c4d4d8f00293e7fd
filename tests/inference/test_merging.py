"""A model that is put together from parts computes, to the bit, what the model computed that was saved in parts."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from models import FAMILIES, V, checkpoint, save, tiny_model
from safetensors.torch import load_file
from sharded_runs import DISTRIBUTED_FORMS, RANK_FORMS, copy, original
from torch import nn

from opd_diag.errors import CheckpointError
from opd_diag.inference import check_head, load_model
from opd_diag.inference.loading import stored_stop_ids
from opd_diag.inference.merging import Pickles, merged_model
from opd_diag.inference.pickles import read_tensors
from opd_diag.inference.size import model_size
from opd_diag.runs.sharded import LORA_META

from .test_distributed import save_alone
from .test_loading import quiet_setup  # noqa: F401 (a fixture)
from .test_pickles import Bomb

IDS = torch.randint(0, V, (2, 30), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS).logits


def shards(folder, **changes):
    """Describe the shards of ranks, with the config where verl puts it."""
    return checkpoint(folder, kind="fsdp", config=folder / "huggingface", **changes)


def distributed(folder, config, **changes):
    return checkpoint(folder, kind="distributed", config=config, **changes)


def refusal(of, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(of, **options)
    refusal.code = caught.value.code
    return str(caught.value)


class TestShards:
    @pytest.mark.parametrize(("form", "name"), RANK_FORMS)
    def test_of_ranks(self, sharded_forms, form, name):
        model = load_model(shards(sharded_forms / form))
        assert torch.equal(logits(model.hf), logits(original(name)))
        assert not model.hf.training
        tied = model.hf.get_output_embeddings().weight is model.hf.get_input_embeddings().weight
        assert tied == (name == "tied")
        check_head(model, IDS[0].tolist())

    @pytest.mark.parametrize(("form", "name"), DISTRIBUTED_FORMS)
    def test_of_a_distributed_checkpoint(self, sharded_forms, form, name):
        model = load_model(distributed(sharded_forms / form, sharded_forms / "configs" / name))
        assert torch.equal(logits(model.hf), logits(original(name)))

    def test_of_prime_rl_beside_its_optimiser(self, sharded_forms):
        truth = original("tied")
        truth.load_state_dict(torch.load(sharded_forms / "two" / "prime-rl" / "whole.pt", weights_only=True))
        trainer = sharded_forms / "two" / "prime-rl" / "trainer"
        model = load_model(distributed(trainer, sharded_forms / "configs" / "tied"))
        assert torch.equal(logits(model.hf), logits(truth))
        assert not torch.equal(logits(truth), logits(original("tied")))  # it was trained a step

    def test_the_folder_that_accelerate_puts_them_in_need_not_be_named(self, sharded_forms):
        found = distributed(sharded_forms / "two" / "accelerate", sharded_forms / "configs" / "tied")
        assert torch.equal(logits(load_model(found).hf), logits(original("tied")))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_every_family(self, tmp_path, family):
        """Also of those whose weights transformers renames or fuses when it reads its own files."""
        truth = tiny_model(family)
        save(tmp_path / "config", truth)
        save_alone(tmp_path / "weights", {"model": truth.state_dict()})
        model = load_model(distributed(tmp_path / "weights", tmp_path / "config"))
        assert torch.equal(logits(model.hf), logits(truth))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("form", ["fsdp2-half", "fsdp2-untied"])
    def test_types_of_numbers(self, sharded_forms, tmp_path, form, dtype):
        whole = original("untied").bfloat16() if form == "fsdp2-half" else original("untied")
        theirs = load_model(checkpoint(save(tmp_path / "whole", whole)), dtype=dtype)
        ours = load_model(shards(sharded_forms / "two" / form), dtype=dtype)
        assert ours.dtype == theirs.dtype == getattr(torch, dtype)
        assert torch.equal(logits(ours.hf), logits(theirs.hf))
        assert ours.hf.model.rotary_emb.inv_freq.dtype == torch.float32

    def test_what_is_written_to_the_files_later_does_not_reach_it(self, sharded_forms, tmp_path):
        folder = copy(sharded_forms / "two" / "fsdp2-tied", tmp_path / "own")
        model = load_model(shards(folder))
        for file in folder.glob("*.pt"):
            file.write_bytes(bytes(file.stat().st_size))
        assert torch.equal(logits(model.hf), logits(original("tied")))

    def test_settings_come_from_where_the_config_is(self, sharded_forms, tmp_path):
        folder = copy(sharded_forms / "two" / "fsdp2-tied", tmp_path / "own")
        assert load_model(shards(folder)).stop_ids == stored_stop_ids(shards(folder)) == (2,)  # of the config
        (folder / "huggingface" / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
        assert load_model(shards(folder)).stop_ids == stored_stop_ids(shards(folder)) == (5, 7)
        assert model_size(shards(folder)).vocabulary == V

    def test_a_whole_model_whose_config_lies_elsewhere(self, tmp_path):
        truth = tiny_model()
        save(tmp_path / "config", truth)
        (tmp_path / "config" / "generation_config.json").write_text('{"eos_token_id": 9}')
        (tmp_path / "weights").mkdir()
        shutil.move(tmp_path / "config" / "model.safetensors", tmp_path / "weights")
        found = checkpoint(tmp_path / "weights", config=tmp_path / "config")
        model = load_model(found)
        assert torch.equal(logits(model.hf), logits(truth))
        assert model.stop_ids == stored_stop_ids(found) == (9,)


class TestAdapters:
    @pytest.fixture
    def base(self, tmp_path):
        return save(tmp_path / "base", original("tied"))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("form", ["whole", "alone"])
    def test_are_merged_as_peft_merges_them(self, sharded_forms, base, form, dtype):
        theirs = load_model(checkpoint(sharded_forms / "lora" / "peft", base=base), dtype=dtype)
        ours = load_model(shards(sharded_forms / "lora" / form, base=base if form == "alone" else None), dtype=dtype)
        assert torch.equal(logits(ours.hf), logits(theirs.hf))
        assert not torch.equal(logits(ours.hf), logits(load_model(checkpoint(base), dtype=dtype).hf))
        assert ours.dtype == getattr(torch, dtype)

    def test_modules_that_were_trained_whole(self, tmp_path, base):
        import peft

        config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["o_proj"], modules_to_save=["lm_head"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's own, of this version of transformers
            model = peft.get_peft_model(original("untied"), config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * parameter.requires_grad)
        truth = logits(model)
        folder = tmp_path / "actor"
        save(folder / "huggingface", original("untied"))
        torch.save(model.state_dict(), folder / "model_world_size_1_rank_0.pt")
        (folder / LORA_META).write_text(json.dumps({"r": 2, "lora_alpha": 6}))
        torch.testing.assert_close(logits(load_model(shards(folder)).hf), truth, atol=1e-4, rtol=0)

    def test_alone_without_a_base_model(self, sharded_forms):
        folder = sharded_forms / "lora" / "alone"
        assert refusal(shards(folder)) == (
            f"{folder} holds an adapter alone (8 factors). Name the model under it with --base-model."
        )
        assert refusal.code == "BASE_MODEL_MISSING"

    @pytest.mark.parametrize("content", [None, "{", "[]", '{"r": 4}', '{"r": "x", "lora_alpha": 1}'])
    def test_without_their_scale(self, sharded_forms, tmp_path, content):
        folder = copy(sharded_forms / "lora" / "whole", tmp_path / "own")
        (folder / LORA_META).unlink()
        if content is not None:
            (folder / LORA_META).write_text(content)
        assert refusal(shards(folder)) == (
            f"{folder} holds the factors of an adapter, but no {LORA_META} that says their rank and scale. Merge it "
            "with the trainer's own tool, or save the adapter with save_pretrained."
        )

    def test_that_do_not_fit_their_base_model(self, sharded_forms, tmp_path):
        other = save(tmp_path / "other", tiny_model("qwen3", num_hidden_layers=1))
        folder = sharded_forms / "lora" / "alone"
        message = refusal(shards(folder, base=other))
        assert message.startswith(f"The adapter {folder} has no place in its base model for 4 of its weights (")


class TestRefusals:
    @pytest.fixture
    def folder(self, sharded_forms, tmp_path):
        return copy(sharded_forms / "two" / "fsdp2-untied", tmp_path / "actor")

    def test_a_rank_that_is_missing(self, folder):
        (folder / "model_world_size_2_rank_1.pt").unlink()
        assert refusal(shards(folder)).startswith(f"{folder}: It has shards of 1 of 2 ranks; missing or empty: 1. ")
        assert refusal.code == "INCOMPLETE_WEIGHTS"

    def test_two_saves_in_one_folder(self, folder):
        shutil.copy(folder / "model_world_size_2_rank_0.pt", folder / "model_world_size_4_rank_0.pt")
        assert refusal(shards(folder)).startswith(
            f"{folder}: It has shards for world sizes 2 and 4; fsdp_config.json says 2. "
        )
        assert refusal.code == "MIXED_SHARDS"

    def test_shards_that_are_gone(self, folder):
        for file in folder.glob("*.pt"):
            file.unlink()
        assert refusal(shards(folder)) == f"{folder} holds no shards any more. Copy or save the checkpoint again."
        shutil.rmtree(folder)
        assert f"{folder} does not exist" in refusal(shards(folder))

    def test_weights_of_another_kind_of_model(self, folder):
        for file in folder.glob("*.pt"):
            torch.save({"encoder.weight": torch.ones(2)}, file)
        assert refusal(shards(folder)) == (
            f"{folder} holds no weight of a LlamaForCausalLM, which {folder / 'huggingface'} describes; found "
            "encoder.weight. Name the model that was trained with --student or --base-model."
        )

    def test_a_config_of_more_layers(self, folder):
        change_config(folder, num_hidden_layers=3)
        assert refusal(shards(folder)) == (
            f"{folder} lacks 9 weights (model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, "
            "model.layers.2.mlp.gate_proj.weight, …). They would be random: save the checkpoint again."
        )

    def test_a_config_of_fewer_layers(self, folder):
        change_config(folder, num_hidden_layers=1)
        assert refusal(shards(folder)) == (
            f"{folder} has 9 weights that its config leaves no place for (model.layers.1.input_layernorm.weight, "
            "model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight, …). They would be left out: "
            "save the checkpoint again with the config that it was trained with."
        )

    def test_a_config_of_another_width(self, folder):
        change_config(folder, intermediate_size=64)
        assert refusal(shards(folder)) == (
            f"{folder / 'model_world_size_2_rank_0.pt'}: model.layers.0.mlp.gate_proj.weight has shape (48, 32), its "
            "config says (64, 32). Save the checkpoint again with the config that it was trained with."
        )

    def test_a_head_that_is_not_tied_and_not_there(self, sharded_forms, tmp_path):
        folder = tmp_path / "actor"
        save(folder / "huggingface", original("untied"))
        state = original("untied").state_dict()
        del state["lm_head.weight"]
        torch.save(state, folder / "model_world_size_1_rank_0.pt")
        assert refusal(shards(folder)) == (
            f"{folder} lacks 1 weights (lm_head.weight). They would be random: save the checkpoint again."
        )

    def test_no_config(self, folder):
        (folder / "huggingface" / "config.json").unlink()
        assert refusal(checkpoint(folder, kind="fsdp")) == (
            f"{folder}: It has shards of 2 ranks but no config.json; looked in {folder / 'huggingface'}, {folder} too. "
            "Copy config.json of the model that was trained into it, or name that model with --student or --base-model."
        )

    @pytest.mark.parametrize("harm", ["cut", "gone", "written"])
    def test_a_file_that_changes_while_it_is_read(self, folder, monkeypatch, harm):
        from opd_diag.inference import ranks

        file = folder / "model_world_size_2_rank_1.pt"

        def reading(name, **how):
            stored = read_tensors(name, **how)
            if name != file:
                {"cut": lambda: file.write_bytes(b""), "gone": file.unlink, "written": file.touch}[harm]()
            return stored

        monkeypatch.setattr(ranks, "read_tensors", reading)
        how = {"cut": "from ", "gone": "it is gone", "written": "written anew"}[harm]
        assert refusal(shards(folder)).startswith(f"{file} changed while it was read: {how}")

    def test_a_file_that_would_run_code(self, folder, tmp_path):
        file = folder / "model_world_size_2_rank_1.pt"
        torch.save({"a": Bomb(tmp_path / "exploded")}, file)
        assert refusal(shards(folder)).startswith(f"{file} holds more than tensors (posix.system): ")
        assert refusal.code == "PICKLE_REFUSED"
        assert not (tmp_path / "exploded").exists()

    def test_an_old_torch(self, folder, monkeypatch):
        monkeypatch.setattr(torch, "__version__", "2.9.0")
        assert "torch 2.9.0 reads pickles unsafely" in refusal(shards(folder))
        assert refusal.code == "PICKLE_REFUSED"
        assert torch.equal(logits(load_model(shards(folder), allow_pickle=True).hf), logits(original("untied")))

    def test_one_sentence_of_whatever_else_the_libraries_say(self, folder):
        (folder / "huggingface" / "config.json").write_text('{"model_type": "nonsense"}')
        message = refusal(shards(folder))
        assert message.startswith(f"step 10: {folder} does not load: ")
        assert "\n" not in message


def change_config(folder, **changes) -> None:
    file = folder / "huggingface" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_nothing_is_left_of_a_folder_for_the_moment(sharded_forms, tmp_path, monkeypatch):
    """Factors are handed to peft as a folder; it is gone again."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    load_model(shards(sharded_forms / "lora" / "whole"))
    assert list(tmp_path.iterdir()) == []


def test_weights_are_handed_over_and_not_kept(tmp_path):
    """The source forgets what it gave, so that one copy of the weights is in memory."""
    torch.save(original("untied").state_dict(), tmp_path / "a.bin")
    save(tmp_path / "config", original("untied"))
    source = Pickles([tmp_path / "a.bin"])
    model = merged_model(source, tmp_path, str(tmp_path / "config"), torch.float32)
    assert source.names == []
    assert isinstance(model, nn.Module)
    assert load_file(tmp_path / "config" / "model.safetensors").keys() == dict(model.named_parameters()).keys()
