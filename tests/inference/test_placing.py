"""Device maps: read, settled before any weight is read, and refused where they do not fit; loaded models are equal."""

from __future__ import annotations

import json
import sys

import accelerate
import pytest
import torch
from models import V, checkpoint, save, tiny_model

from opd_diag.errors import InputError, MissingExtra
from opd_diag.inference import load_model, loading, placing, swapping
from opd_diag.inference.placing import normal_form, read_device_maps, resolve_device, settled, skeleton
from opd_diag.inference.room import Room
from opd_diag.inference.swapping import Resident

from .test_loading import quiet_setup, save_adapter  # noqa: F401 (a fixture)
from .test_swapping import put

IDS = torch.randint(0, V, (2, 20), generator=torch.Generator().manual_seed(0))
ON_DISK = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
"""What is refused where a user names it makes accelerate lay hooks where there is no GPU."""


def _json_error(text):
    with pytest.raises(ValueError, match="line 1") as found:
        json.loads(text)
    return f"{found.value}."


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs as far as maps are concerned; give what is free on each device, to be changed."""
    free = {"cuda:0": 10**6, "cuda:1": 10**6, "cpu": 10**6}
    there = resolve_device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(placing, "room_of", lambda device: Room(free[str(device)], 10**7))
    monkeypatch.setattr(
        placing, "resolve_device", lambda name: torch.device(name) if name in ("cuda", *free) else there(name)
    )
    return free


@pytest.fixture
def llama(tmp_path):
    """A checkpoint of two layers of 30976 bytes, embeddings and a head of 20480, as its config tells."""
    tiny_model("llama").config.save_pretrained(tmp_path)
    return checkpoint(tmp_path)


def place(found, device_map, **how):
    return settled(found, "auto", device_map, dtype=torch.float32, **how)


class TestReading:
    @pytest.mark.parametrize("name", ["auto", "balanced", "sequential", "cpu"])
    def test_a_name_is_for_both(self, name):
        assert read_device_maps(name) == {"student": name, "teacher": name}
        assert read_device_maps(json.dumps({"teacher": name})) == {"teacher": name}

    def test_none_is_none(self):
        assert read_device_maps(None) == {}

    def test_a_file_holds_the_same(self, tmp_path):
        (tmp_path / "map.json").write_text('{"student": "cpu"}')
        assert read_device_maps(str(tmp_path / "map.json")) == {"student": "cpu"}

    def test_gpus_have_numbers(self, two_gpus):
        both = read_device_maps('{"model": "cuda:1", "lm_head": "cuda", "model.norm": 1, "model.embed_tokens": "cpu"}')
        assert both["teacher"] == {"model": 1, "lm_head": 0, "model.norm": 1, "model.embed_tokens": "cpu"}

    def test_one_device_is_no_map(self, two_gpus):
        assert read_device_maps('{"model": 1, "lm_head": "cuda:1"}') == {"student": "cuda:1", "teacher": "cuda:1"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{1}", "--device-map is no JSON: " + _json_error("{1}")),
            ("{}", "--device-map must be auto, balanced, sequential, a device, or JSON of {module: device}, found {}."),
            ("abacus", "Device 'abacus' is not available here. Use --device cpu or --device auto."),
            ('{"model": [1]}', '--device-map must name devices as 0, "cuda:0" or "cpu", found [1].'),
            ('{"model": true}', '--device-map must name devices as 0, "cuda:0" or "cpu", found True.'),
            ('{"model": 99}', "Device 'cuda:99' is not available here. Use --device cpu or --device auto."),
            (
                '{"model": "disk"}',
                "--device-map puts a part on the disk, where it would be read from the checkpoint's files at every "
                'pass. Put it on "cpu", use --dtype bfloat16, or spread the model over more devices.',
            ),
        ],
    )
    def test_what_cannot_be_read(self, text, message):
        with pytest.raises(InputError) as found:
            read_device_maps(text)
        assert str(found.value) == message

    @pytest.mark.parametrize(
        ("given", "normal"),
        [
            (("cpu", None), ("cpu", None)),
            (("auto", "cpu"), ("cpu", None)),
            (("cpu", '{"student": "cuda:1"}'), ("cuda:1", '{"teacher": "cpu"}')),
            (("cuda:1", '{"teacher": "cuda:1"}'), ("cuda:1", None)),
            (("cpu", "auto"), ("auto", '{"student": "auto", "teacher": "auto"}')),
            (("cpu", '{"student": "auto"}'), ("auto", '{"student": "auto", "teacher": "cpu"}')),
            (("cpu", '{"teacher": {"model": 0, "lm_head": 1}}'), ("cpu", '{"teacher": {"model": 0, "lm_head": 1}}')),
        ],
    )
    def test_the_device_is_where_students_compute(self, two_gpus, given, normal):
        assert normal_form(*given) == normal
        assert normal_form(*normal) == normal


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
