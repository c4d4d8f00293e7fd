"""Device maps: read, settled before any weight is read, and refused where they do not fit; loaded models are equal."""

from __future__ import annotations

import sys

import accelerate
import pytest
import torch
from models import V, checkpoint, save, tiny_model

from opd_diag.errors import InputError, MissingExtra
from opd_diag.inference import load_model, loading, placing, swapping
from opd_diag.inference.placing import settled, skeleton
from opd_diag.inference.swapping import Resident

from .test_loading import quiet_setup, save_adapter  # noqa: F401 (a fixture)
from .test_swapping import put

IDS = torch.randint(0, V, (2, 20), generator=torch.Generator().manual_seed(0))
ON_DISK = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
"""What is refused where a user names it makes accelerate lay hooks where there is no GPU."""


@pytest.fixture
def llama(tmp_path):
    """A checkpoint of two layers of 30976 bytes, embeddings and a head of 20480, as its config tells."""
    tiny_model("llama").config.save_pretrained(tmp_path)
    return checkpoint(tmp_path)


def place(found, device_map, **how):
    return settled(found, "auto", device_map, dtype=torch.float32, **how)


class TestSettling:
    def test_without_a_gpu_there_is_one_place(self, llama, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setitem(sys.modules, "accelerate", None)
        assert {place(llama, name) for name in (None, "auto", "balanced", "sequential", {"": "cpu"})} == {
            torch.device("cpu")
        }

    def test_what_has_room_on_one_gpu_is_not_spread(self, llama, two_gpus):
        assert place(llama, "auto") == torch.device("cuda:0")
        two_gpus["cuda:0"] = 110_000  # the model has 103 kB, and a tenth is left
        assert place(llama, "auto") == torch.device("cuda:1")

    def test_what_is_taken_is_not_free(self, llama, two_gpus):
        assert place(llama, "auto", taken={0: 850_000}) == torch.device("cuda:1")

    def test_balanced_is_balanced(self, llama, two_gpus):
        found = place(llama, "balanced")
        assert found["model.layers.0"] == found["model.embed_tokens"] == 0
        assert found["model.layers.1"] == found["lm_head"] == 1

    def test_what_no_gpu_has_room_for_stays_with_the_cpu(self, llama, two_gpus):
        two_gpus |= {"cuda:0": 60_000, "cuda:1": 60_000}
        found = place(llama, "auto")
        assert found["lm_head"] == "cpu"
        model = skeleton(llama, torch.float32)
        by_device = placing.weights_by_device(model, found)
        assert sum(by_device.values()) == sum(p.numel() * 4 for p in model.parameters())
        assert max(by_device[0], by_device[1]) <= 54_000
        two_gpus |= {"cpu": 10_000}
        with pytest.raises(InputError) as refused:
            place(llama, "auto")
        assert str(refused.value) == (
            "A LlamaForCausalLM of 103.1 kB has no room here: there are 54.0 kB on cuda:0, 54.0 kB on cuda:1, 9.0 kB "
            "on cpu, where 10% is left for what else is needed. Use --dtype bfloat16, or serve the teacher elsewhere."
        )

    def test_no_weight_is_read(self, llama, two_gpus):
        assert not list(llama.path.glob("*.safetensors"))
        assert isinstance(place(llama, "balanced"), dict)

    @pytest.mark.parametrize(
        ("device_map", "message"),
        [
            (
                {"model": 0, "head": 1},
                "--device-map names head, which a LlamaForCausalLM does not have. Its parts are model.embed_tokens, "
                "model.layers, model.norm, model.rotary_emb, lm_head.",
            ),
            (
                {"model.layers": 0, "lm_head": 1},
                '--device-map gives no device to model.embed_tokens.weight of a LlamaForCausalLM. Add it, or "" for '
                "all the rest.",
            ),
            (
                {"": 0, "model.layers.1.mlp": 1},
                "--device-map puts model.layers.1.self_attn.q_proj.weight and "
                "model.layers.1.post_attention_layernorm.weight of a LlamaForCausalLM on cuda:0 and cuda:1; they must "
                "be on one device.",
            ),
        ],
    )
    def test_a_map_that_does_not_fit(self, llama, two_gpus, device_map, message):
        with pytest.raises(InputError) as found:
            place(llama, device_map)
        assert str(found.value) == message

    def test_tied_weights_lie_together(self, tmp_path, two_gpus):
        tiny_model("qwen3").config.save_pretrained(tmp_path)
        apart, together = {"model": 0, "lm_head": 1}, {"": 0, "model.layers": 1}
        with pytest.raises(InputError) as found:
            place(checkpoint(tmp_path), apart)
        assert str(found.value) == (
            "--device-map puts model.embed_tokens.weight and lm_head.weight of a Qwen3ForCausalLM on cuda:0 and "
            "cuda:1; they must be on one device."
        )
        assert place(checkpoint(tmp_path), together) == together
        model = skeleton(checkpoint(tmp_path), torch.bfloat16)
        layers = sum(p.numel() for p in model.model.layers.parameters())
        assert placing.weights_by_device(model, together) == {0: 2 * (V * 32 + 32), 1: 2 * layers}, "tied: once"

    def test_without_accelerate_it_names_the_extra(self, llama, two_gpus, monkeypatch):
        monkeypatch.setitem(sys.modules, "accelerate", None)
        with pytest.raises(MissingExtra) as found:
            place(llama, {"model": 0, "lm_head": 1})
        assert str(found.value) == "This needs accelerate, which is not installed: run pip install 'opd-diag[large]'."


class TestLoading:
    """Equal to the digit, however a checkpoint is brought to where it lies."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}])
    def test_a_map_of_one_device(self, tmp_path, device_map, dtype):
        found = checkpoint(save(tmp_path, tiny_model("llama")))
        ours, theirs = (load_model(found, device="cpu", device_map=m, dtype=dtype) for m in (device_map, None))
        if not torch.cuda.is_available():
            assert torch.equal(ours.hf(IDS).logits, theirs.hf(IDS).logits)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize(("family", "head"), [("llama", "disk"), ("qwen3", "cpu")])
    def test_transformers_spreads_it(self, tmp_path, monkeypatch, capfd, family, head, dtype):
        found = checkpoint(save(tmp_path, tiny_model(family)))
        monkeypatch.setattr(loading, "settled", lambda *a, **how: ON_DISK | {"lm_head": head})
        capfd.readouterr()
        ours = load_model(found, dtype=dtype)
        assert capfd.readouterr() == ("", ""), "accelerate says nothing"
        monkeypatch.undo()
        theirs = load_model(found, dtype=dtype)
        assert ours.hf.model.layers[0].mlp.up_proj.weight.device.type == "meta"
        assert (ours.dtype, ours.device) == (theirs.dtype, theirs.device)
        assert torch.equal(ours.head.weight, theirs.head.weight)
        with torch.inference_mode():
            assert torch.equal(ours.hidden(IDS), theirs.hidden(IDS))

    def test_an_adapter_is_merged_before_it_is_spread(self, tmp_path, monkeypatch):
        base = save(tmp_path / "base", tiny_model("llama"))
        save_adapter(tmp_path / "adapter", base)
        found = checkpoint(tmp_path / "adapter", base=base)
        plain, plainly, spread = load_model(found), accelerate.dispatch_model, {"": "cpu"}
        monkeypatch.setattr(loading, "settled", lambda *a, **how: spread)
        monkeypatch.setattr(accelerate, "dispatch_model", lambda *a, **how: plainly(*a, **how, force_hooks=True))
        ours = load_model(found)
        assert hasattr(ours.hf, "hf_device_map")
        with torch.inference_mode():
            assert torch.equal(ours.head.logits(ours.hidden(IDS)[0]), plain.head.logits(plain.hidden(IDS)[0]))

    def test_students_that_are_spread_are_loaded_one_by_one(self, tmp_path, monkeypatch):
        folders = [save(tmp_path / str(seed), tiny_model("llama", seed=seed)) for seed in (1, 2)]
        asked = []

        def on_disk(found, *_, **how):
            asked.append(found.label)
            return ON_DISK | {"lm_head": "cpu"}

        monkeypatch.setattr(swapping, "settled", on_disk)
        monkeypatch.setattr(loading, "settled", lambda *a, **how: ON_DISK | {"lm_head": "cpu"})
        resident = Resident()
        found = [put(resident, folder, label=label).hidden(IDS) for folder, label in zip(folders, "ab", strict=True)]
        assert asked == ["a"], "settled once"
        assert resident.copied.tensors == 0
        monkeypatch.undo()
        for states, folder in zip(found, folders, strict=True):
            assert torch.equal(states, load_model(checkpoint(folder)).hidden(IDS))
