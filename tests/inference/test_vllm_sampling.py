"""Models that vLLM samples: which folders it reads, what is saved for it otherwise, and what becomes of its answers."""

from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from models import checkpoint, save, tiny_model, word_tokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from opd_diag.errors import PromptsError, StoreError
from opd_diag.inference import load_model
from opd_diag.inference.vllm_sampling import InVLLM, gpu_share, save_plain, unread_by_vllm, variables_for, vllm_reads
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Provenance
from opd_diag.records.sampling import Sampling
from opd_diag.servers import Sampled
from opd_diag.tokenization import EncodedPrompt

from .test_loading import save_adapter

IDS = torch.tensor([[1, 5, 9, 2, 7]])


def logits(folder):
    """By transformers alone, from what the folder says of itself."""
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits


def saved(where: Checkpoint, folder: Path, dtype="float32"):
    """Give our logits of a checkpoint, and save it."""
    folder.mkdir()
    model = load_model(where, dtype=dtype)
    settings = model.hf.generation_config
    save_plain(model, folder)
    assert model.hf.generation_config is settings
    with torch.no_grad():
        return model.hf(IDS).logits.float()


class TestWhatIsSaved:
    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("llama", {}),
            ("qwen3", {"modules_to_save": ["lm_head"]}),  # no longer tied once merged
            ("qwen3", {"modules_to_save": ["embed_tokens"]}),
        ],
    )
    def test_of_an_adapter_the_merged_model(self, tmp_path, family, changes):
        base = save(tmp_path / "base", tiny_model(family))
        save_adapter(tmp_path / "adapter", base, **changes)
        truth = saved(checkpoint(tmp_path / "adapter", base=base), tmp_path / "plain")
        assert torch.equal(logits(tmp_path / "plain"), truth)

    @pytest.mark.parametrize("family", ["gpt2", "qwen3_moe"])
    def test_tensors_have_the_names_of_the_family(self, tmp_path, family):
        folder = save(tmp_path / "full", tiny_model(family))
        truth = saved(checkpoint(folder), tmp_path / "plain")
        assert {*load_file(tmp_path / "plain/model.safetensors")} == {*load_file(folder / "model.safetensors")}
        assert torch.equal(logits(tmp_path / "plain"), truth)

    def test_nothing_else_is_beside_it(self, tmp_path):
        folder = save(tmp_path / "full", tiny_model())
        (folder / "generation_config.json").write_text('{"temperature": 0.3, "eos_token_id": 5}')
        saved(checkpoint(folder), tmp_path / "plain")
        assert {p.name for p in (tmp_path / "plain").iterdir()} == {
            "config.json", "generation_config.json", "model.safetensors",
        }  # fmt: skip
        settings = json.loads((tmp_path / "plain/generation_config.json").read_text())
        assert {*settings} <= {"_from_model_config", "transformers_version"}

    def test_in_the_precision_that_it_is_loaded_in(self, tmp_path):
        folder = save(tmp_path / "full", tiny_model())
        saved(checkpoint(folder), tmp_path / "plain", dtype="bfloat16")
        kinds = {tensor.dtype for tensor in load_file(tmp_path / "plain/model.safetensors").values()}
        assert kinds == {torch.bfloat16}

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(errno.ENOSPC, "full"), "No space left on device. Free some space and run the same command again: "
                                            "what was finished is kept."),
            (SafetensorError("I/O error: no space"), "I/O error: no space. Choose another folder with --out."),
        ],
    )  # fmt: skip
    def test_a_disk_that_is_full(self, tmp_path, monkeypatch, error, said):
        model = load_model(checkpoint(save(tmp_path / "full", tiny_model())))

        def full(folder):
            raise error

        monkeypatch.setattr(model.hf, "save_pretrained", full)
        with pytest.raises(StoreError) as caught:
            save_plain(model, tmp_path)
        assert str(caught.value) == f"Cannot write {tmp_path}: {said}"


class TestWhichFoldersItReads:
    @pytest.fixture
    def folder(self, tmp_path):
        return save(tmp_path / "full", tiny_model())

    def test_full_weights_in_safetensors(self, folder):
        assert vllm_reads(checkpoint(folder))

    def test_in_several_files(self, tmp_path):
        tiny_model().save_pretrained(tmp_path, max_shard_size=20_000)
        assert len([*tmp_path.glob("*.safetensors")]) > 1
        assert vllm_reads(checkpoint(tmp_path))

    def test_not_with_another_file_that_it_would_read_too(self, folder):
        save_file({"value": torch.zeros(1)}, folder / "value_head.safetensors")
        assert not vllm_reads(checkpoint(folder))
        assert unread_by_vllm(folder) == "value_head.safetensors beside them"

    def test_not_with_a_file_that_nobody_else_reads(self, folder):
        (folder / "hf_quant_config.json").write_text("{}")
        assert not vllm_reads(checkpoint(folder))
        assert unread_by_vllm(folder) == "hf_quant_config.json beside them"

    def test_not_shards_that_make_it_read_another_config(self, folder):
        (folder / "model.safetensors").rename(folder / "consolidated-1.safetensors")
        names = load_file(folder / "consolidated-1.safetensors")
        weight_map = dict.fromkeys(names, "consolidated-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        assert load_model(checkpoint(folder)).vocabulary  # as such it is a model
        assert unread_by_vllm(folder) == "consolidated-1.safetensors beside them"

    def test_not_pickles(self, folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
        assert not vllm_reads(checkpoint(folder))
        assert unread_by_vllm(folder) == "weights in pytorch_model.bin"

    def test_not_an_adapter(self, folder, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save_adapter(tmp_path / "adapter", folder)
        assert not vllm_reads(checkpoint(tmp_path / "adapter", base=folder))
        assert unread_by_vllm(tmp_path / "adapter") == "weights of another kind (adapter)"

    def test_not_what_has_no_weights(self, folder, tmp_path):
        assert unread_by_vllm(tmp_path) == "no weights"
        (folder / "model.safetensors").unlink()
        assert unread_by_vllm(folder) == "weights that cannot be loaded (It has config.json but no weights)"

    @pytest.mark.parametrize(
        "where",
        [
            Checkpoint("a", None, Path("org/model@main"), "full"),
            Checkpoint("a", None, Path("nothing/there"), "full"),
        ],
    )
    def test_not_a_hub_id(self, where):
        assert not vllm_reads(where)

    def test_not_weights_whose_config_lies_elsewhere(self, folder, tmp_path):
        (tmp_path / "config").mkdir()
        (folder / "config.json").rename(tmp_path / "config/config.json")
        assert not vllm_reads(Checkpoint("a", None, folder, "full", config=tmp_path / "config"))
        assert not vllm_reads(checkpoint(folder))


class Engine:
    """Answers every prompt with its first id, twice."""

    name = "step 40"

    def __init__(self, context=20):
        self.context, self.asked, self.closed = context, [], []

    def sampled(self, prompts, **how):
        self.asked.append((prompts, how))
        for place, (ids, _) in enumerate(prompts):
            yield place, [Sampled((ids[0], ids[0]), np.array([-0.5, -1.0]), "length")] * how["n"]

    def close(self, *, at_once):
        self.closed.append(at_once)


def prompt(index, length=2):
    return EncodedPrompt(index, Prompt("text", f"id{index}"), (10 + index,) * length, (20 + index,) * length)


TWO = prompt(0), prompt(1)


class TestRecords:
    def writer(self, engine=None, *, as_teacher=False, step=40):
        self.begun, engine = [], engine or Engine()
        where = Checkpoint("teacher" if as_teacher else "step 40", step, Path("a"), "full")
        return InVLLM(
            lambda raw: self.begun.append((engine, raw)) or engine, where, "key", as_teacher=as_teacher
        ), engine

    def sample(self, writer, prompts=TWO, **options):
        keep = {"keep": options.pop("keep")} if "keep" in options else {}
        sampling = Sampling(**{"rollouts_per_prompt": 2, "max_new_tokens": 9, "seed": 7} | options)
        return writer.sample(word_tokenizer(), prompts, sampling=sampling, **keep)

    def test_are_of_the_checkpoint(self):
        writer, engine = self.writer()
        made = self.sample(writer)
        assert [r.response_ids for r in made] == [(10, 10), (10, 10), (11, 11), (11, 11)]
        assert {r.provenance for r in made} == {Provenance("sampled", "step 40", "key", 40, 1.0, 1.0, 7)}
        assert {r.sampled_logprobs for r in made} == {(-0.5, -1.0)}
        ((_, how),) = engine.asked
        assert how == {"n": 2, "max_new_tokens": 9, "temperature": 1.0, "top_p": 1.0}

    def test_seeds_are_of_seed_step_and_prompt_and_of_the_label_without_a_step(self):
        def seeds(seed=7, **of):
            writer, engine = self.writer(**of)
            self.sample(writer, seed=seed)
            return [seed for _, seed in engine.asked[0][0]]

        found = [seeds(), seeds(step=30), seeds(step=None, as_teacher=True), seeds(seed=8)]
        assert len({seed for of in found for seed in of}) == 8
        assert seeds() == found[0]

    def test_the_teacher_sees_its_own_prompts(self):
        writer, engine = self.writer(as_teacher=True, step=None)
        made = self.sample(writer)
        assert [ids for ids, _ in engine.asked[0][0]] == [(20, 20), (21, 21)]
        assert made[0].provenance.weights == "teacher"

    @pytest.mark.parametrize(
        ("changed", "kept", "raw"),
        [
            ({}, True, False),
            ({"temperature": 0.7}, True, False),
            ({"top_p": 0.9}, True, True),  # before top-p, at the temperature
            ({"top_p": 0.9, "temperature": 0.0}, True, True),
            ({"top_p": 0.9, "temperature": 0.7}, False, True),
        ],
    )
    def test_log_probabilities_are_kept_where_they_are_before_top_p_at_the_temperature(self, changed, kept, raw):
        writer, engine = self.writer()
        assert {r.sampled_logprobs for r in self.sample(writer, **changed)} == {(-0.5, -1.0) if kept else None}
        assert self.begun == [(engine, raw)]

    def test_another_kind_of_log_probabilities_needs_another_process(self):
        writer, engine = self.writer()
        for top_p in (1.0, 0.9, 0.8, 1.0):
            self.sample(writer, top_p=top_p)
        assert self.begun == [(engine, False), (engine, True), (engine, False)]
        assert engine.closed == [False, False]

    def test_it_begins_with_the_first_response_and_once(self):
        writer, engine = self.writer()
        writer.close()
        self.sample(writer, keep=lambda shard, make: [])  # all is found
        assert self.begun == []
        self.sample(writer)
        self.sample(writer)
        assert self.begun == [(engine, False)]
        assert engine.closed == []
        writer.close(at_once=True)
        writer.close()
        assert engine.closed == [True]

    def test_a_prompt_without_room_for_its_response(self):
        writer, engine = self.writer(Engine(context=12))
        with pytest.raises(PromptsError) as caught:
            self.sample(writer, (prompt(0), prompt(1, length=4)))
        assert str(caught.value) == (
            "Prompt id1 has 4 tokens; with --max-new-tokens 9 that exceeds the 12 tokens that step 40 in vLLM takes. "
            "Lower --max-new-tokens or leave the prompt out."
        )
        assert engine.asked == []


class TestTheGPU:
    @pytest.mark.parametrize(
        ("device", "seen", "expected"),
        [
            ("cpu", None, {"CUDA_VISIBLE_DEVICES": ""}),
            ("cpu", "2,3", {"CUDA_VISIBLE_DEVICES": ""}),
            ("cuda", "2,3", {}),
            ("cuda:0", None, {}),
            ("cuda:1", None, {"CUDA_VISIBLE_DEVICES": "1"}),
            ("cuda:1", "2,3", {"CUDA_VISIBLE_DEVICES": "3"}),
        ],
    )
    def test_it_is_the_one_of_this_process(self, monkeypatch, device, seen, expected):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if seen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        assert variables_for(torch.device(device)) == expected

    def test_of_what_is_free_nine_tenths(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 80))
        assert gpu_share(torch.device("cuda:1")) == pytest.approx(0.9 * 30 / 80, abs=1e-3)
        assert gpu_share(torch.device("cpu")) == 0.9
