"""What is loaded computes what transformers and peft compute; what cannot be loaded is refused in one sentence."""

from __future__ import annotations

import builtins
import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from models import FAMILIES, V, checkpoint, save, tiny_model, word_tokenizer
from safetensors.torch import load_file, save_file

from opd_diag import tokenization
from opd_diag.errors import CheckpointError, InputError, MissingExtra
from opd_diag.inference import check_head, load_model, wrap_model
from opd_diag.inference.loading import stored_stop_ids

IDS = torch.randint(0, V, (2, 90), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quiet_setup():
    """Keep what transformers draws while a test *makes* a folder apart from what the code under test does."""
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@torch.no_grad()
def logits(hf):
    return hf(IDS).logits


@torch.no_grad()
def our_logits(model):
    """Logits by way of our own body and head, as scoring takes them."""
    return model.head.logits(model.hidden(IDS).flatten(0, 1)).view(*IDS.shape, -1)


def refusal(of, error=CheckpointError, **options) -> str:
    with pytest.raises(error) as caught:
        load_model(of, **options)
    return str(caught.value)


def change_config(folder: Path, **changes) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def change_weights(folder: Path, change, name="model.safetensors") -> Path:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return folder


class TestFullWeights:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_logits_are_those_that_were_saved(self, tmp_path, family):
        hf = tiny_model(family)
        model = load_model(checkpoint(save(tmp_path, hf)))
        torch.testing.assert_close(logits(model.hf), logits(hf), atol=1e-5, rtol=0)
        torch.testing.assert_close(our_logits(model), logits(hf), atol=1e-5, rtol=0)
        assert not model.hf.training
        assert model.vocabulary == V
        assert model.context == 96

    def test_names_and_what_is_known(self, tmp_path):
        folder = save(tmp_path, tiny_model())
        model = load_model(checkpoint(folder), name="teacher", key="abc")
        assert (model.name, model.label, model.step, model.key) == ("teacher", "step 10", 10, "abc")
        assert load_model(checkpoint(folder)).name == "step 10"

    def test_sharded_weights(self, tmp_path):
        hf = tiny_model()
        folder = save(tmp_path, hf, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
        torch.testing.assert_close(our_logits(load_model(checkpoint(folder))), logits(hf), atol=1e-5, rtol=0)

    def test_tied_weights_are_stored_once_and_still_tied(self, tmp_path):
        hf = tiny_model("qwen3")
        folder = save(tmp_path, hf)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        model = load_model(checkpoint(folder))
        assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
        torch.testing.assert_close(our_logits(model), logits(hf), atol=1e-5, rtol=0)

    def test_sixteen_bit_files_are_widened_by_default(self, tmp_path):
        hf = tiny_model().bfloat16()
        model = load_model(checkpoint(save(tmp_path, hf)))
        assert {p.dtype for p in model.hf.parameters()} == {torch.float32}
        assert torch.equal(model.head.weight, hf.lm_head.weight.float())

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("family", ["llama", "gemma2"])
    def test_sixteen_bits_compute_what_transformers_computes_in_them(self, tmp_path, family, dtype):
        folder = save(tmp_path, tiny_model(family))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        model = load_model(checkpoint(folder), dtype=dtype)
        # Equal to the bit: buffers, such as rotary frequencies, keep their own precision.
        assert torch.equal(logits(model.hf), logits(theirs))
        assert model.dtype == getattr(torch, dtype)
        assert model.head.weight.dtype == torch.float32
        assert our_logits(model).dtype == torch.float32
        assert check_head(model, IDS[0].tolist()).tolerance >= 0.02

    def test_stop_ids(self, tmp_path):
        hf = tiny_model()
        for ids, wanted in ((7, (7,)), ([9, 3, 9], (3, 9))):
            hf.generation_config.eos_token_id = ids
            assert load_model(checkpoint(save(tmp_path, hf))).stop_ids == wanted
            assert stored_stop_ids(checkpoint(tmp_path)) == wanted
        adapter = checkpoint(tmp_path / "adapter", base=tmp_path)
        assert stored_stop_ids(adapter) == (3, 9)
        (tmp_path / "generation_config.json").unlink()
        assert load_model(checkpoint(tmp_path)).stop_ids == (2,)  # of the config
        assert stored_stop_ids(checkpoint(tmp_path)) == stored_stop_ids(adapter) == (2,)
        assert load_model(checkpoint(change_config(tmp_path, eos_token_id=None))).stop_ids == ()
        assert stored_stop_ids(checkpoint(tmp_path)) == ()
        assert stored_stop_ids(checkpoint(tmp_path / "nothing")) is None
        assert wrap_model(hf, name="m", stop_ids=(5, 4, 5)).stop_ids == (4, 5)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("kind", ["full", "adapter"])
    def test_what_is_written_to_the_file_later_does_not_reach_it(self, tmp_path, kind, dtype):
        """Transformers leaves float32 weights in the mapped file: who writes there would change the model."""
        base = save(tmp_path / "base", tiny_model())
        folder, under = (base, None) if kind == "full" else (tmp_path / "adapter", base)
        if under is not None:
            save_adapter(folder, base)
        model = load_model(checkpoint(folder, base=under), dtype=dtype)
        before = logits(model.hf)
        file = base / "model.safetensors"
        with file.open("r+b") as handle:  # in place, as a trainer that saves there again does
            handle.seek(file.stat().st_size // 4)
            handle.write(bytes(file.stat().st_size // 2))
        assert torch.equal(logits(model.hf), before)

    def test_a_value_head_beside_the_model_is_no_obstacle(self, tmp_path):
        hf = tiny_model()
        folder = change_weights(save(tmp_path, hf), lambda t: t.update({"v_head.summary.weight": torch.zeros(1, 32)}))
        torch.testing.assert_close(our_logits(load_model(checkpoint(folder))), logits(hf), atol=1e-5, rtol=0)


def save_adapter(folder: Path, base: Path, *, seed=1, **changes):
    """Write a LoRA adapter with random weights on `base`; give the logits of peft's own unmerged model."""
    import peft

    config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, of this version of transformers and of tied weights
        model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
    return logits(model)


class TestAdapters:
    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("llama", {}),
            ("qwen3", {}),
            ("llama", {"target_modules": "all-linear"}),
            ("llama", {"modules_to_save": ["lm_head"]}),
            ("qwen3", {"modules_to_save": ["lm_head"]}),  # no longer tied once merged
            ("qwen3", {"modules_to_save": ["embed_tokens"]}),
            ("llama", {"target_modules": ["q_proj", "lm_head"]}),
            ("llama", {"use_dora": True}),
            ("llama", {"use_rslora": True, "lora_alpha": 16}),
            ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
            ("phi", {"bias": "lora_only"}),
        ],
    )
    def test_logits_are_those_of_peft(self, tmp_path, family, changes):
        base = save(tmp_path / "base", tiny_model(family))
        truth = save_adapter(tmp_path / "adapter", base, **changes)
        model = load_model(checkpoint(tmp_path / "adapter", base=base))
        # Merging adds in another order: some 1e-5 of the size of the logits.
        atol = 3e-5 * truth.abs().max().item()
        torch.testing.assert_close(logits(model.hf), truth, atol=atol, rtol=0)
        torch.testing.assert_close(our_logits(model), truth, atol=atol, rtol=0)
        with torch.no_grad():
            assert (logits(tiny_model(family)) - truth).abs().max() > 0.1  # the adapter does something
        assert not any("lora" in name for name, _ in model.hf.named_parameters())
        check_head(model, IDS[0].tolist())

    def test_merging_is_done_in_float32_also_for_a_body_in_sixteen_bits(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "adapter", base)
        exact = load_model(checkpoint(tmp_path / "adapter", base=base))
        half = load_model(checkpoint(tmp_path / "adapter", base=base), dtype="bfloat16")
        name = "model.layers.0.self_attn.q_proj.weight"
        assert torch.equal(half.hf.get_parameter(name), exact.hf.get_parameter(name).bfloat16())
        assert half.hf.model.rotary_emb.inv_freq.dtype == torch.float32
        theirs = exact.hf.bfloat16()
        theirs.model.rotary_emb.inv_freq = half.hf.model.rotary_emb.inv_freq
        assert torch.equal(logits(half.hf), logits(theirs))

    def test_a_missing_base_model(self, tmp_path):
        save_adapter(tmp_path / "adapter", save(tmp_path / "base", tiny_model()))
        message = refusal(checkpoint(tmp_path / "adapter", base=tmp_path / "gone"))
        assert message.startswith(f"step 10: {tmp_path / 'adapter'} on {tmp_path / 'gone'} does not load: ")

    def test_a_base_model_of_another_size(self, tmp_path):
        save_adapter(tmp_path / "adapter", save(tmp_path / "base", tiny_model()))
        other = save(tmp_path / "other", tiny_model(hidden_size=64))
        assert "size mismatch" in refusal(checkpoint(tmp_path / "adapter", base=other))

    def test_a_base_model_with_fewer_layers(self, tmp_path):
        save_adapter(tmp_path / "adapter", save(tmp_path / "base", tiny_model()))
        other = save(tmp_path / "other", tiny_model(num_hidden_layers=1))
        assert refusal(checkpoint(tmp_path / "adapter", base=other)) == (
            f"The adapter {tmp_path / 'adapter'} has no place in its base model for 4 of its weights "
            "(base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight, "
            "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight, "
            "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight, …). "
            "Save it again, or name the base model that it was trained on with --base-model."
        )

    def test_an_adapter_that_lacks_a_factor(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        folder = tmp_path / "adapter"
        save_adapter(folder, base)
        name = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
        change_weights(folder, lambda t: t.pop(name), "adapter_model.safetensors")
        assert refusal(checkpoint(folder, base=base)) == (
            f"The adapter {folder} lacks 1 of its weights ({name}). "
            "Save it again, or name the base model that it was trained on with --base-model."
        )

    def test_an_adapter_that_lacks_a_module_that_it_saves_whole(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        folder = tmp_path / "adapter"
        save_adapter(folder, base, modules_to_save=["lm_head"])
        change_weights(folder, lambda t: t.pop("base_model.model.lm_head.weight"), "adapter_model.safetensors")
        assert "base_model.model.lm_head.weight" in refusal(checkpoint(folder, base=base))

    def test_without_peft_the_extra_is_named(self, tmp_path, monkeypatch):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "adapter", base)
        real = builtins.__import__

        def without_peft(name, *args, **kwargs):
            if name.split(".")[0] == "peft":
                raise ModuleNotFoundError("No module named 'peft'")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_peft)
        message = refusal(checkpoint(tmp_path / "adapter", base=base), MissingExtra)
        assert message == "This needs peft, which is not installed: run pip install 'opd-diag[peft]'."
        assert load_model(checkpoint(base)).vocabulary == V  # full weights need none


class TestRefusals:
    def test_a_blocked_checkpoint_is_not_touched(self, tmp_path):
        blocked = checkpoint(tmp_path / "gone", blocker="Weights are pickled.", way_out="Convert them.")
        assert refusal(blocked) == "step 10: Weights are pickled. Convert them."
        assert refusal(checkpoint(tmp_path, blocker="Nothing helps.")) == "step 10: Nothing helps."

    def test_a_missing_folder(self, tmp_path):
        assert refusal(checkpoint(tmp_path / "gone")).startswith(f"step 10: {tmp_path / 'gone'} does not load: ")

    def test_missing_weights_are_named(self, tmp_path):
        folder = change_weights(save(tmp_path, tiny_model()), lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
        assert refusal(checkpoint(folder)) == (
            f"{folder} lacks 1 weights (model.layers.1.mlp.up_proj.weight). "
            "They would be random: save the checkpoint again."
        )

    def test_more_layers_in_the_config_than_in_the_file(self, tmp_path):
        folder = change_config(save(tmp_path, tiny_model()), num_hidden_layers=3)
        message = refusal(checkpoint(folder))
        assert message.startswith(f"{folder} lacks 9 weights (model.layers.2.input_layernorm.weight, ")
        assert message.endswith(", …). They would be random: save the checkpoint again.")

    def test_fewer_layers_in_the_config_than_in_the_file(self, tmp_path):
        folder = change_config(save(tmp_path, tiny_model()), num_hidden_layers=1)
        message = refusal(checkpoint(folder))
        assert message.startswith(
            f"{folder} has 9 weights that its config leaves no place for (model.layers.1.input_layernorm.weight, "
        )
        assert message.endswith(
            ", …). They would be left out: save the checkpoint again with the config that it was trained with."
        )

    def test_a_bias_of_the_head_that_the_config_knows_nothing_of(self, tmp_path):
        folder = change_weights(save(tmp_path, tiny_model()), lambda t: t.update({"lm_head.bias": torch.ones(V)}))
        assert "has 1 weights that its config leaves no place for (lm_head.bias)" in refusal(checkpoint(folder))

    def test_other_shapes_than_the_config_says(self, tmp_path):
        folder = change_config(save(tmp_path, tiny_model()), vocab_size=V + 8)
        assert refusal(checkpoint(folder)) == (
            f"{folder} has other shapes than its config says for 2 weights (lm_head.weight, "
            "model.embed_tokens.weight). They would be random: save the checkpoint again."
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {"model_type": "nonsense"},
            {"model_type": None},
            {"model_type": "vit"},
            {"hidden_size": "big"},
            {"hidden_size": -3},
            {"num_attention_heads": 0},
            {"num_hidden_layers": None},
            {"hidden_act": "nonsense"},
            {"rope_parameters": {"rope_type": "nonsense"}},
            {"eos_token_id": "x"},
            {"pad_token_id": 4 * V},
        ],
        ids=str,
    )
    def test_a_config_that_is_nonsense(self, tmp_path, changes):
        folder = change_config(save(tmp_path, tiny_model()), **changes)
        message = refusal(checkpoint(folder))
        assert message.startswith(f"step 10: {folder} does not load: ")
        assert "\n" not in message
        assert len(message) < 400 + len(str(folder))

    @pytest.mark.parametrize("text", ["{broken", "[]", ""])
    def test_a_config_that_is_no_json_object(self, tmp_path, text):
        folder = save(tmp_path, tiny_model())
        (folder / "config.json").write_text(text)
        assert refusal(checkpoint(folder)).startswith(f"step 10: {folder} does not load: ")

    def test_a_truncated_file(self, tmp_path):
        folder = save(tmp_path, tiny_model())
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-40])
        assert refusal(checkpoint(folder)).startswith(f"step 10: {folder} does not load: ")

    @pytest.mark.parametrize("harm", ["cut", "written", "gone"])
    def test_a_file_that_changes_while_it_is_loaded(self, tmp_path, monkeypatch, harm):
        folder = save(tmp_path, tiny_model())
        file = folder / "model.safetensors"
        load = transformers.AutoModelForCausalLM.from_pretrained

        def loading(*args, **options):
            loaded = load(*args, **options)
            loaded[0].load_state_dict({name: tensor.clone() for name, tensor in loaded[0].state_dict().items()})
            if harm == "cut":
                raise OSError("the library meets the end of the file")
            file.unlink() if harm == "gone" else file.touch()
            return loaded

        if harm == "cut":
            monkeypatch.setattr("opd_diag.inference.loading.errors_of", _cutting(file))
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loading)
        message = refusal(checkpoint(folder))
        how = {"cut": "from ", "written": "written anew", "gone": "it is gone"}[harm]
        assert message.startswith(f"{file} changed while it was read: {how}")

    def test_a_missing_shard(self, tmp_path):
        folder = save(tmp_path, tiny_model(), max_shard_size="20KB")
        sorted(folder.glob("model-*.safetensors"))[1].unlink()
        assert refusal(checkpoint(folder)).startswith(f"step 10: {folder} does not load: ")

    def test_code_of_the_folder_is_not_run_unless_asked_for(self, tmp_path):
        folder = save(tmp_path, tiny_model())
        change_config(
            folder,
            model_type="homemade",
            auto_map={"AutoConfig": "homemade.HomeConfig", "AutoModelForCausalLM": "homemade.HomeModel"},
        )
        proof = tmp_path / "it-ran"
        (folder / "homemade.py").write_text(
            f"open({str(proof)!r}, 'w').close()\n"
            "from transformers import LlamaConfig, LlamaForCausalLM\n"
            "class HomeConfig(LlamaConfig):\n    model_type = 'homemade'\n"
            "class HomeModel(LlamaForCausalLM):\n    config_class = HomeConfig\n"
        )
        message = refusal(checkpoint(folder))
        assert message.startswith(f"step 10: {folder} does not load: ")
        assert "custom code" in message
        assert not proof.exists()

    @pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta:x", ""])
    def test_an_unknown_device(self, tmp_path, device):
        message = f"Device '{device}' is not available here. Use --device cpu or --device auto."
        assert refusal(checkpoint(save(tmp_path, tiny_model())), InputError, device=device) == message


def _cutting(file):
    """An `errors_of` that cuts the file once the library has failed: a mapped file must not be cut under its reader."""
    from contextlib import contextmanager

    from opd_diag.inference.libraries import errors_of

    @contextmanager
    def cutting(found):
        with errors_of(found):
            try:
                yield
            finally:
                file.write_bytes(b"")

    return cutting


class TestSmallParts:
    def test_revisions(self, tmp_path):
        assert tokenization.split_revision("org/name@v1") == ("org/name", "v1")
        assert tokenization.split_revision("org/name") == ("org/name", None)
        assert tokenization.split_revision("org/na@me@abc") == ("org/na@me", "abc")
        folder = tmp_path / "run@home"
        folder.mkdir()
        assert tokenization.split_revision(str(folder)) == (str(folder), None)

    def test_a_folder_with_an_at_sign_loads(self, tmp_path):
        assert load_model(checkpoint(save(tmp_path / "run@home", tiny_model()))).vocabulary == V

    def test_the_revision_reaches_transformers(self, monkeypatch, tmp_path):
        seen = {}

        def from_pretrained(name, **options):
            seen.update(options, name=name)
            raise OSError("stop here")

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
        refusal(checkpoint("org/name@v2"))
        assert (seen["name"], seen["revision"]) == ("org/name", "v2")
        assert seen["use_safetensors"] is True
        assert seen["trust_remote_code"] is False
        refusal(checkpoint("org/name"), trust_remote_code=True)
        assert (seen["name"], seen["revision"], seen["trust_remote_code"]) == ("org/name", None, True)


class _Records(logging.Handler):
    """Keeps what is logged: the handler of transformers writes to the stream it found when it was imported."""

    def __init__(self):
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record):
        self.messages.append(record.getMessage())


class TestQuiet:
    def test_nothing_leaks_to_the_terminal(self, tmp_path, capfd):
        base = save(tmp_path / "base", tiny_model("qwen3"), word_tokenizer())
        save_adapter(tmp_path / "adapter", base, modules_to_save=["lm_head"])
        damaged = change_weights(
            save(tmp_path / "damaged", tiny_model()), lambda t: t.pop("model.layers.1.mlp.up_proj.weight")
        )
        transformers.utils.logging.enable_progress_bar()
        log = transformers.utils.logging.get_logger("transformers")
        records = _Records()
        log.addHandler(records)
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            load_model(checkpoint(base))
            load_model(checkpoint(tmp_path / "adapter", base=base))
            refusal(checkpoint(damaged))
            refusal(checkpoint(change_config(base, vocab_size=V + 8)))
        log.removeHandler(records)
        assert capfd.readouterr() == ("", "")
        assert records.messages == []

    def test_the_settings_of_transformers_are_put_back(self, tmp_path):
        theirs = transformers.utils.logging
        folder = save(tmp_path, tiny_model())
        before = theirs.get_verbosity()
        for bars in (theirs.enable_progress_bar, theirs.disable_progress_bar):
            bars()
            was = theirs.is_progress_bar_enabled()
            load_model(checkpoint(folder))
            refusal(checkpoint(tmp_path / "gone"))
            assert theirs.is_progress_bar_enabled() is was
            assert theirs.get_verbosity() == before
