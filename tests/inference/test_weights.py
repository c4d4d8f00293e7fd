"""Pickled weights are read as tensors and nothing else, and give the model that safetensors give."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from models import V, checkpoint, save, tiny_model
from safetensors.torch import load_file

from opd_diag.errors import CheckpointError
from opd_diag.inference import load_model
from opd_diag.runs.huggingface import ADAPTER_BIN, BIN, BIN_INDEX

from .test_loading import quiet_setup, save_adapter  # noqa: F401 (a fixture)
from .test_pickles import Bomb

IDS = torch.randint(0, V, (2, 30), generator=torch.Generator().manual_seed(0))
SAFE = "model.safetensors"


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.hf(IDS).logits


def pickled(folder, *, files=1, extra=None):
    """Save the weights of a folder as pickles instead."""
    tensors = load_file(folder / SAFE) | (extra or {})
    (folder / SAFE).unlink()
    names = sorted(tensors)
    if files == 1:
        torch.save(tensors, folder / BIN)
        return folder
    places = {name: f"pytorch_model-{1 + i % files:05d}-of-{files:05d}.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        torch.save({name: tensors[name] for name in names if places[name] == file}, folder / file)
    (folder / BIN_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def refusal(of, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(of, **options)
    return str(caught.value)


class TestFullWeights:
    @pytest.mark.parametrize("files", [1, 3])
    @pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "qwen3_moe"])
    def test_are_those_of_safetensors(self, tmp_path, family, files):
        folder = save(tmp_path / "a", tiny_model(family))
        other = pickled(shutil.copytree(folder, tmp_path / "b"), files=files)
        assert torch.equal(logits(load_model(checkpoint(other))), logits(load_model(checkpoint(folder))))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_types_of_numbers(self, tmp_path, dtype):
        folder = save(tmp_path / "a", tiny_model().bfloat16())
        other = pickled(shutil.copytree(folder, tmp_path / "b"))
        ours, theirs = (load_model(checkpoint(f), dtype=dtype) for f in (other, folder))
        assert ours.dtype == theirs.dtype
        assert torch.equal(logits(ours), logits(theirs))

    def test_safetensors_beside_them_go_first(self, tmp_path):
        folder = save(tmp_path, tiny_model())
        torch.save(Bomb(tmp_path / "exploded"), folder / BIN)
        load_model(checkpoint(folder))
        assert not (tmp_path / "exploded").exists()

    def test_tied_heads_and_heads_of_values(self, tmp_path):
        truth = tiny_model("qwen3")
        save(tmp_path, truth)
        pickled(tmp_path, extra={"lm_head.weight": truth.lm_head.weight.detach(), "v_head.weight": torch.ones(1, 32)})
        model = load_model(checkpoint(tmp_path))
        assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
        with torch.no_grad():
            assert torch.equal(logits(model), truth(IDS).logits)

    def test_what_is_written_to_the_file_later_does_not_reach_it(self, tmp_path):
        model = load_model(checkpoint(pickled(save(tmp_path, tiny_model()))))
        before = logits(model)
        (tmp_path / BIN).write_bytes(bytes((tmp_path / BIN).stat().st_size))
        assert torch.equal(logits(model), before)

    @pytest.mark.parametrize("files", [1, 2])
    def test_that_would_run_code(self, tmp_path, files):
        folder = pickled(save(tmp_path, tiny_model()), files=files)
        file = sorted(folder.glob("*.bin"))[-1]
        torch.save({"lm_head.weight": Bomb(tmp_path / "exploded")}, file)
        assert refusal(checkpoint(folder), allow_pickle=True).startswith(
            f"{file} holds more than tensors (posix.system): "
        )
        assert not (tmp_path / "exploded").exists()

    def test_a_weight_that_is_missing(self, tmp_path):
        folder = pickled(save(tmp_path, tiny_model()), files=2)
        file = sorted(folder.glob("*.bin"))[0]
        stored = torch.load(file, weights_only=True)
        del stored["lm_head.weight"]
        torch.save(stored, file)
        assert refusal(checkpoint(folder)) == (
            f"{folder} lacks 1 weights (lm_head.weight). They would be random: save the checkpoint again."
        )

    def test_an_index_that_leads_elsewhere(self, tmp_path):
        folder = pickled(save(tmp_path, tiny_model()), files=2)
        (folder / BIN_INDEX).write_text('{"weight_map": {"a": "../other.bin"}}')
        assert refusal(checkpoint(folder)).startswith(
            f"{folder}: {BIN_INDEX} has no 'weight_map' from tensors to files"
        )

    def test_a_file_that_is_gone(self, tmp_path):
        folder = pickled(save(tmp_path, tiny_model()), files=2)
        file = sorted(folder.glob("*.bin"))[0]
        file.unlink()
        assert refusal(checkpoint(folder)).startswith(
            f"{folder}: {BIN_INDEX} names 2 files, of which are missing or empty: {file.name}."
        )


class TestAdapters:
    def pickle(self, folder):
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / ADAPTER_BIN)
        (folder / "adapter_model.safetensors").unlink()
        return folder

    @pytest.mark.parametrize("changes", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}], ids=str)
    def test_are_those_of_safetensors(self, tmp_path, changes):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "a", base, **changes)
        truth = logits(load_model(checkpoint(tmp_path / "a", base=base)))
        model = load_model(checkpoint(self.pickle(tmp_path / "a"), base=pickled(base)))
        assert torch.equal(logits(model), truth)

    def test_that_would_run_code(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "a", base)
        file = self.pickle(tmp_path / "a") / ADAPTER_BIN
        torch.save({"a": Bomb(tmp_path / "exploded")}, file)
        assert refusal(checkpoint(tmp_path / "a", base=base)).startswith(
            f"{file} holds more than tensors (posix.system): "
        )
        assert not (tmp_path / "exploded").exists()

    def test_that_lack_a_factor(self, tmp_path):
        base = save(tmp_path / "base", tiny_model())
        save_adapter(tmp_path / "a", base)
        folder = self.pickle(tmp_path / "a")
        stored = torch.load(folder / ADAPTER_BIN, weights_only=True)
        name = next(iter(stored))
        del stored[name]
        torch.save(stored, folder / ADAPTER_BIN)
        assert refusal(checkpoint(folder, base=base)) == (
            f"The adapter {folder} lacks 1 of its weights ({name}). Save it again, or name the base model that it was "
            "trained on with --base-model."
        )
