"""A model that becomes another checkpoint is, to the digit, that checkpoint loaded alone; only what differs is read."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
import transformers
from models import V, checkpoint, save, tiny_model
from safetensors.torch import load_file, save_file

from opd_diag.errors import CheckpointError
from opd_diag.inference import load_model, swapping
from opd_diag.inference.swapping import Resident
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import checkpoint_content

from .test_loading import change_config, change_weights, quiet_setup, save_adapter  # noqa: F401 (a fixture)

IDS = torch.randint(0, V, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loads(monkeypatch):
    """Labels of what was loaded in the ordinary way."""
    labels = []
    monkeypatch.setattr(
        swapping, "load_model", lambda found, **how: labels.append(found.label) or load_model(found, **how)
    )
    return labels


def put(resident, folder, *, label="step 10", base=None, **how):
    found = checkpoint(folder, base=base, label=label)
    return resident.load(found, checkpoint_content(found, Digests()), name=label, **how)


@torch.no_grad()
def assert_is(model, folder, *, base=None, **how):
    """The model gives, to the digit, what the checkpoint gives when it is loaded alone; and so does its head."""
    alone = load_model(checkpoint(folder, base=base), **how)
    ours, theirs = model.hf.state_dict(), alone.hf.state_dict()
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(model.hf(IDS).logits, alone.hf(IDS).logits)
    assert torch.equal(model.head.logits(model.hidden(IDS)[0]), alone.head.logits(alone.hidden(IDS)[0]))
    assert model.stop_ids == alone.stop_ids


def size_of(folder, *names):
    tensors = load_file(folder / "model.safetensors")
    return sum(tensors[name].nbytes for name in names or tensors)


UP = "model.layers.1.mlp.up_proj.weight"


class TestFullWeights:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma2", "phi"])
    def test_there_and_back(self, tmp_path, loads, family, stored, dtype):
        folders = [save(tmp_path / str(seed), tiny_model(family, seed=seed).to(stored)) for seed in (1, 2)]
        resident = Resident()
        for folder in (*folders, folders[0]):
            assert_is(put(resident, folder, dtype=dtype), folder, dtype=dtype)
        assert len(loads) == 1
        # all tensors of one, all of the other; those that randomising left equal are not read
        assert 0 < resident.copied.bytes <= 2 * size_of(folders[0])
        assert resident.copied.tensors > 20

    def test_tied_weights_stay_tied(self, tmp_path, loads):
        folders = [
            save(tmp_path / str(seed), tiny_model("llama", tie_word_embeddings=True, seed=seed)) for seed in (1, 2)
        ]
        resident = Resident()
        put(resident, folders[0])
        model = put(resident, folders[1])
        assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
        assert_is(model, folders[1])
        assert len(loads) == 1

    def test_only_tensors_that_changed_are_read(self, tmp_path, loads):
        first = save(tmp_path / "a", tiny_model())
        second = shutil.copytree(first, tmp_path / "b")
        change_weights(second, lambda tensors: tensors[UP].add_(1))
        resident = Resident()
        put(resident, first)
        assert (resident.copied.tensors, resident.copied.bytes) == (0, 0)
        assert_is(put(resident, second), second)
        assert (resident.copied.tensors, resident.copied.bytes) == (1, size_of(first, UP))
        assert_is(put(resident, shutil.copytree(first, tmp_path / "c")), first)
        assert (resident.copied.tensors, resident.copied.bytes) == (2, 2 * size_of(first, UP))
        put(resident, first)
        assert resident.copied.tensors == 2
        assert loads == ["step 10"]

    def test_equal_bytes_of_another_type_are_another_tensor(self, tmp_path):
        first = save(tmp_path / "a", tiny_model().half())
        second = shutil.copytree(first, tmp_path / "b")
        change_weights(second, lambda tensors: tensors.update({UP: tensors[UP].view(torch.bfloat16)}))
        resident = Resident()
        put(resident, first)
        assert_is(put(resident, second), second)
        assert resident.copied.tensors == 1

    def test_another_number_of_shards(self, tmp_path, loads):
        folders = [
            save(tmp_path / "a", tiny_model(seed=1)),
            save(tmp_path / "b", tiny_model(seed=2), max_shard_size="20KB"),
            save(tmp_path / "c", tiny_model(seed=3), max_shard_size="40KB"),
        ]
        assert len(list(folders[1].glob("*.safetensors"))) > len(list(folders[2].glob("*.safetensors"))) > 1
        resident = Resident()
        for folder in folders:
            assert_is(put(resident, folder), folder)
        assert len(loads) == 1

    def test_pieces_smaller_than_a_tensor(self, tmp_path, monkeypatch):
        from opd_diag.runs import contents

        folders = [save(tmp_path / str(seed), tiny_model(seed=seed)) for seed in (1, 2)]
        resident = Resident()
        put(resident, folders[0])
        monkeypatch.setattr(contents, "PIECE", 4 * 37)
        assert_is(put(resident, folders[1]), folders[1])

    def test_what_a_config_may_say_otherwise(self, tmp_path, loads):
        folders = [save(tmp_path / str(seed), tiny_model(seed=seed)) for seed in (1, 2)]
        change_config(folders[1], use_cache=False, transformers_version="5.0.0", dtype="bfloat16")
        resident = Resident()
        put(resident, folders[0])
        assert_is(put(resident, folders[1]), folders[1])
        assert len(loads) == 1


class TestLoadedAlone:
    """Where the tensors are not the model's, or another model is meant, a checkpoint is loaded in the ordinary way."""

    def alone(self, loads, *folders, **how):
        resident = Resident()
        for folder in folders:
            assert_is(put(resident, folder, **how), folder, **how)
        assert (len(loads), resident.copied.tensors) == (len(folders), 0)

    def test_experts_that_transformers_fuses(self, tmp_path, loads):
        folders = [save(tmp_path / str(seed), tiny_model("qwen3_moe", seed=seed)) for seed in (1, 2)]
        assert any("experts.3.up_proj" in name for name in load_file(folders[0] / "model.safetensors"))
        self.alone(loads, *folders)

    def test_another_config(self, tmp_path, loads):
        folder = save(tmp_path / "a", tiny_model())
        self.alone(loads, folder, change_config(shutil.copytree(folder, tmp_path / "b"), rms_norm_eps=0.1))

    def test_other_stop_ids(self, tmp_path, loads):
        hf = tiny_model()
        first = save(tmp_path / "a", hf)
        hf.generation_config.eos_token_id = [2, 7]
        self.alone(loads, first, save(tmp_path / "b", hf))

    def test_another_shape(self, tmp_path, loads):
        self.alone(loads, save(tmp_path / "a", tiny_model()), save(tmp_path / "b", tiny_model(intermediate_size=40)))

    def test_names_of_another_layout(self, tmp_path, loads):
        def bare(tensors):
            for name in [name for name in tensors if name.startswith("transformer.")]:
                tensors[name.removeprefix("transformer.")] = tensors.pop(name)

        folders = [change_weights(save(tmp_path / str(s), tiny_model("gpt2", seed=s)), bare) for s in (1, 2)]
        self.alone(loads, *folders)

    def test_a_tensor_that_transformers_changes_while_loading(self, tmp_path, loads, monkeypatch):
        """A conversion under the same name is seen, for what was loaded is not what the file says."""
        folders = [save(tmp_path / str(seed), tiny_model(seed=seed)) for seed in (1, 2)]
        load = transformers.AutoModelForCausalLM.from_pretrained

        def converting(*args, **kwargs):
            model, info = load(*args, **kwargs)
            weight = model.model.layers[1].self_attn.q_proj.weight
            weight.data = weight.data.view(4, 4, 2, 32).transpose(1, 2).reshape(32, 32)
            return model, info

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", converting)
        self.alone(loads, *folders)

    def test_one_tensor_under_two_names(self, tmp_path, loads):
        def doubled(tensors):
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

        folders = [change_weights(save(tmp_path / str(s), tiny_model("qwen3", seed=s)), doubled) for s in (1, 2)]
        self.alone(loads, *folders)


class TestRefusals:
    @pytest.fixture
    def folders(self, tmp_path):
        return [save(tmp_path / str(seed), tiny_model(seed=seed)) for seed in (1, 2)]

    def refused(self, resident, folder, content=None):
        found = checkpoint(folder)
        with pytest.raises(CheckpointError) as caught:
            resident.load(found, content or checkpoint_content(found, Digests()), name="x")
        assert resident.model(found, "") is None
        return str(caught.value)

    def test_tensors_of_another_shape_are_refused_before_anything_is_overwritten(self, folders, loads):
        resident = Resident()
        put(resident, folders[0])
        change_weights(folders[1], lambda tensors: tensors.update({UP: torch.zeros(32, 48)}))
        message = self.refused(resident, folders[1])
        assert message == (
            f"{folders[1]} has other shapes than its config says for 1 weights ({UP}). They would be random: save the "
            "checkpoint again."
        )
        assert resident.copied.tensors == 0
        assert_is(put(resident, folders[0]), folders[0])

    def test_a_tensor_that_is_missing(self, folders):
        resident = Resident()
        put(resident, folders[0])
        change_weights(folders[1], lambda tensors: tensors.pop(UP))
        assert f"lacks 1 weights ({UP})" in self.refused(resident, folders[1])
        assert_is(put(resident, folders[0]), folders[0])

    @pytest.mark.parametrize("first", [True, False], ids=["first load", "swap"])
    @pytest.mark.parametrize("what", ["cut", "rewritten", "replaced", "gone"])
    def test_a_file_that_changes_between_its_key_and_its_load(self, folders, what, first):
        resident = Resident()
        if not first:
            put(resident, folders[0])
        content = checkpoint_content(checkpoint(folders[1]), Digests())
        harm(folders[1] / "model.safetensors", what)
        message = self.refused(resident, folders[1], content)
        assert message.startswith(f"{folders[1] / 'model.safetensors'} changed while it was read: {HOW[what]}")
        assert message.endswith("then run the same command again.")
        assert_is(put(resident, folders[0]), folders[0])

    @pytest.mark.parametrize("what", ["cut", "rewritten", "replaced", "gone"])
    def test_a_file_that_changes_in_the_middle_of_a_swap(self, folders, monkeypatch, what):
        resident = Resident()
        put(resident, folders[0])
        read, done = swapping.read_into, []

        def reading(*args):
            done.append(read(*args))
            if len(done) == 5:
                harm(folders[1] / "model.safetensors", what)

        monkeypatch.setattr(swapping, "read_into", reading)
        message = self.refused(resident, folders[1])
        assert "changed while it was read" in message
        assert len(done) >= 5
        assert_is(put(resident, folders[0]), folders[0])  # and not the mixture

    def test_other_permissions_are_no_change(self, folders):
        found = checkpoint(folders[1])
        content = checkpoint_content(found, Digests())
        os.chmod(folders[1] / "model.safetensors", 0o600)
        assert Resident().load(found, content, name="x").key == content.key

    def test_a_model_is_found_by_checkpoint_and_key(self, folders):
        resident = Resident()
        model = put(resident, folders[0])
        found = checkpoint(folders[0])
        assert resident.model(found, model.key) is model
        assert resident.model(found, "other") is None
        assert resident.model(checkpoint(folders[1]), model.key) is None
        put(resident, folders[1])
        assert resident.model(found, model.key) is None


HOW = {"cut": "from ", "rewritten": "written anew", "replaced": "written anew", "gone": "it is gone"}


def harm(file, what):
    if what == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif what == "gone":
        file.unlink()
    else:
        tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
        place = file if what == "rewritten" else file.with_suffix(".new")
        save_file(tensors, place, metadata={"format": "pt"})
        os.utime(place, ns=(1, 1))
        os.replace(place, file)


class TestAdapters:
    CHANGES = (
        {},
        {"target_modules": ["k_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": ["q_proj", "lm_head"], "use_rslora": True},
    )

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("family", ["llama", "qwen3"])
    def test_one_after_another_in_any_order(self, tmp_path, family, dtype):
        base = save(tmp_path / "base", tiny_model(family))
        folders = [tmp_path / f"adapter-{i}" for i in range(len(self.CHANGES))]
        for i, (folder, changes) in enumerate(zip(folders, self.CHANGES, strict=True)):
            save_adapter(folder, base, seed=i, **changes)
        resident = Resident()
        for i in (0, 1, 0, 2, 3, 1, 4, 4, 0):
            model = put(resident, folders[i], base=base, dtype=dtype)
            assert_is(model, folders[i], base=base, dtype=dtype)

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
            ("phi", {"bias": "all"}),
            ("phi", {"bias": "lora_only"}),
            ("qwen3_moe", {}),
        ],
    )
    def test_of_other_families(self, tmp_path, family, changes):
        base = save(tmp_path / "base", tiny_model(family))
        resident = Resident()
        for seed in (1, 2, 1):
            save_adapter(tmp_path / str(seed), base, seed=seed, **changes)
            assert_is(put(resident, tmp_path / str(seed), base=base), tmp_path / str(seed), base=base)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_adapters_swap_only_themselves(self, tmp_path, loads, dtype):
        base = save(tmp_path / "base", tiny_model())
        for seed in (1, 2):
            save_adapter(tmp_path / str(seed), base, seed=seed)
        resident = Resident()
        put(resident, tmp_path / "1", base=base, dtype=dtype)
        assert resident.copied.tensors == 0
        assert_is(put(resident, tmp_path / "2", base=base, dtype=dtype), tmp_path / "2", base=base, dtype=dtype)
        touched = [f"model.layers.{i}.self_attn.{m}_proj.weight" for i in (0, 1) for m in "qv"]
        assert (resident.copied.tensors, resident.copied.bytes) == (4, size_of(base, *touched))
        assert len(loads) == 1

    def test_base_then_adapters_then_base(self, tmp_path, loads):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "1", base)
        resident = Resident()
        put(resident, base)
        assert_is(put(resident, tmp_path / "1", base=base), tmp_path / "1", base=base)
        assert resident.copied.tensors == 0  # what it is merged into was there
        assert_is(put(resident, base), base)
        assert resident.copied.tensors == 4
        assert len(loads) == 1

    def test_an_adapter_that_lacks_a_factor_leaves_no_mixture(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        for seed in (1, 2):
            save_adapter(tmp_path / str(seed), base, seed=seed)
        name = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
        change_weights(tmp_path / "2", lambda t: t.pop(name), "adapter_model.safetensors")
        resident = Resident()
        put(resident, tmp_path / "1", base=base)
        with pytest.raises(CheckpointError, match="lacks 1 of its weights"):
            put(resident, tmp_path / "2", base=base)
        assert_is(put(resident, tmp_path / "1", base=base), tmp_path / "1", base=base)

    def test_an_adapter_that_changes_more_than_its_names_say_is_loaded_alone(self, tmp_path, loads, monkeypatch):
        base = save(tmp_path / "base", tiny_model())
        for seed in (1, 2):
            save_adapter(tmp_path / str(seed), base, seed=seed)
        resident = Resident()
        put(resident, tmp_path / "1", base=base)
        monkeypatch.setattr(swapping, "touched_by", lambda adapter, names: set())
        assert_is(put(resident, tmp_path / "2", base=base), tmp_path / "2", base=base)
        assert len(loads) == 2


class TestShards:
    """Checkpoints in parts, and pickles, take their turn in the same memory, each loaded in the ordinary way."""

    def put(self, resident, found, **how):
        return resident.load(found, checkpoint_content(found, Digests()), name=found.label, **how)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_between_whole_models(self, sharded_forms, tmp_path, loads, dtype):
        student = save(tmp_path / "student", tiny_model("qwen3", seed=5))
        first, second = (sharded_forms / "two" / name for name in ("fsdp2-tied", "fsdp1"))
        steps = [
            checkpoint(student, label="step 0"),
            *(checkpoint(f, label=f.name, kind="fsdp", config=f / "huggingface") for f in (first, second)),
            checkpoint(student, label="step 0 again"),
        ]
        resident = Resident()
        for found in steps:
            model = self.put(resident, found, dtype=dtype)
            alone = load_model(found, dtype=dtype)
            assert torch.equal(model.hf(IDS).logits, alone.hf(IDS).logits)
            assert model.key == checkpoint_content(found, Digests()).key
        assert loads == [found.label for found in steps]
        assert resident.copied.tensors == 0

    def test_a_file_that_changes_between_its_key_and_its_load(self, sharded_forms, tmp_path):
        folder = shutil.copytree(sharded_forms / "two" / "fsdp2-tied", tmp_path / "own")
        found = checkpoint(folder, kind="fsdp", config=folder / "huggingface")
        for file in (folder / "model_world_size_2_rank_1.pt", folder / "huggingface" / "config.json"):
            content = checkpoint_content(found, Digests())
            os.utime(file, ns=(1, 1))
            with pytest.raises(CheckpointError) as caught:
                Resident().load(found, content, name="x")
            assert str(caught.value).startswith(f"{file} changed while it was read: written anew")

    def test_factors_alone_are_never_taken_for_their_base_model(self, sharded_forms, tmp_path, loads):
        base = save(tmp_path / "base", tiny_model("qwen3"))
        found = checkpoint(sharded_forms / "lora" / "alone", base=base, kind="fsdp", config=base)
        resident = Resident()
        put(resident, base)
        model = self.put(resident, found)
        assert torch.equal(model.hf(IDS).logits, load_model(found).hf(IDS).logits)
        assert_is(put(resident, base), base)
        assert len(loads) == 3

    def test_whole_models_whose_config_lies_elsewhere_are_swapped(self, tmp_path, loads):
        found = []
        for seed in (1, 2):
            folder = save(tmp_path / str(seed), tiny_model(seed=seed))
            (tmp_path / "config").mkdir(exist_ok=True)
            for name in ("config.json", "generation_config.json"):
                shutil.move(folder / name, tmp_path / "config" / name)
            found.append(checkpoint(folder, config=tmp_path / "config"))
        resident = Resident()
        for of in found:
            model = self.put(resident, of)
            assert torch.equal(model.hf(IDS).logits, load_model(of).hf(IDS).logits)
        assert len(loads) == 1

    def test_pickles_are_loaded_anew(self, tmp_path, loads):
        folders = [save(tmp_path / str(seed), tiny_model(seed=seed)) for seed in (1, 2)]
        for folder in folders:
            torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        resident = Resident()
        for folder in folders:
            assert_is(put(resident, folder), folder)
        assert len(loads) == 2

    def test_an_old_torch_needs_to_be_told(self, sharded_forms, monkeypatch):
        folder = sharded_forms / "two" / "fsdp1"
        found = checkpoint(folder, kind="fsdp", config=folder / "huggingface")
        monkeypatch.setattr(torch, "__version__", "2.9.0")
        with pytest.raises(CheckpointError, match="pass --allow-pickle"):
            self.put(Resident(), found)
        assert self.put(Resident(), found, allow_pickle=True).label == "step 10"


def test_a_config_that_is_nonsense_is_one_sentence(tmp_path):
    folder = save(tmp_path, tiny_model())
    (folder / "config.json").write_text("{broken")
    with pytest.raises(CheckpointError, match=r"step 10: .* does not load: "):
        put(Resident(), folder)


def test_models_with_code_of_their_own_are_never_swapped(tmp_path):
    folder = change_config(save(tmp_path, tiny_model()), auto_map={})
    found = checkpoint(folder)
    assert swapping._settings(found, checkpoint_content(found, Digests())) is None
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {}
