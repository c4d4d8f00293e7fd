"""The Hugging Face Trainer and what is built on it: whole, sharded, adapters, FSDP, DeepSpeed, ms-swift."""

import os

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.holdings import NAME_CONFIG, SAVE_AGAIN
from opd_diag.runs.layouts.hf import finished_step, hf_trainer, swift
from opd_diag.runs.layouts.run import Run

from .. import trainers
from ..folders import TENSORS, adapter, full_model, trainer_run, write
from ..trainers import SHARD
from .reading import rows, state


def final(run_dir):
    found = [c for c in hf_trainer(Run(run_dir)) if c.label == "final"]
    assert len(found) == 1
    return found[0]


class TestTrainer:
    def test_completeness_follows_trainer_state_or_the_mark_of_llama_factory(self, tmp_path):
        trainer_run(tmp_path, steps=(1, 2))
        (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
        assert [c.complete for c in hf_trainer(Run(tmp_path))] == [True, None]
        write(tmp_path / "checkpoint-2", {"CHECKPOINT_COMPLETE": ""})
        assert [c.complete for c in hf_trainer(Run(tmp_path))] == [True, True]

    def test_a_state_of_another_step_is_said(self, tmp_path):
        write(trainer_run(tmp_path, steps=(20, 40)) / "checkpoint-40", state(global_step=41))
        assert [c.note for c in hf_trainer(Run(tmp_path))] == [
            None,
            "trainer_state.json in checkpoint-40 says step 41.",
        ]

    def test_tokenizer_from_the_folder_then_the_run_then_none(self, tmp_path):
        trainer_run(tmp_path, steps=(1,))
        trainer_run(tmp_path, steps=(2,), tokenizer=False)
        assert [c.tokenizer for c in hf_trainer(Run(tmp_path))] == [str(tmp_path / "checkpoint-1"), None]
        write(tmp_path, {"tokenizer_config.json": "{}"})
        assert hf_trainer(Run(tmp_path))[1].tokenizer == str(tmp_path)

    def test_a_step_folder_without_weights_is_named_not_dropped(self, tmp_path):
        write(tmp_path / "checkpoint-20", {"trainer_state.json": "{}", "scheduler.pt": b"x"})
        (found,) = hf_trainer(Run(tmp_path))
        assert found.blocker == "It holds no Hugging Face weights; found scheduler.pt, trainer_state.json."

    def test_a_step_folder_that_may_not_be_listed_is_blocked(self, tmp_path, monkeypatch):
        trainer_run(tmp_path, steps=(20, 40))
        scandir = os.scandir

        def refusing(folder):
            if str(folder).endswith("checkpoint-40"):
                raise PermissionError(13, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refusing)
        found = hf_trainer(Run(tmp_path))
        assert [c.blocker for c in found] == [None, f"{tmp_path}/checkpoint-40 cannot be read: Permission denied."]

    def test_shards_with_one_missing(self, tmp_path):
        first, second = hf_trainer(Run(trainers.hf_sharded(tmp_path)))
        assert (first.loadable, second.complete, second.code) == (True, False, "INCOMPLETE_WEIGHTS")
        assert (second.blocker, second.way_out) == (
            "model.safetensors.index.json names 2 files, of which are missing or empty: "
            "model-00002-of-00002.safetensors.",
            SAVE_AGAIN,
        )

    def test_adapters_and_one_that_peft_put_into_a_folder(self, tmp_path):
        trainers.peft(tmp_path)
        write(tmp_path / "checkpoint-60", state(global_step=60))
        adapter(tmp_path / "checkpoint-60" / "student", "org/base")
        assert [row[1:] for row in rows(hf_trainer, tmp_path)] == [
            (20, "adapter", "checkpoint-20", None),
            (40, "adapter", "checkpoint-40", None),
            (60, "adapter", "checkpoint-60/student", None),
        ]
        adapter(tmp_path / "checkpoint-60" / "reference", "org/base")
        assert rows(hf_trainer, tmp_path)[2] == ("step 60", 60, "full", "checkpoint-60", "NO_WEIGHTS")

    def test_links_and_folders_inside_a_step_are_no_checkpoints(self, tmp_path):
        full_model(trainer_run(tmp_path, steps=(20,)) / "checkpoint-20" / "global_step20")
        (tmp_path / "last-checkpoint").symlink_to("checkpoint-20")
        assert len(find_run(tmp_path).checkpoints) == 1


class TestShards:
    def test_fsdp_has_no_config(self, tmp_path):
        first = hf_trainer(Run(trainers.hf_fsdp(tmp_path)))[0]
        assert (first.kind, first.path) == ("distributed", tmp_path / "checkpoint-20" / "pytorch_model_fsdp_0")
        assert (first.code, first.way_out, first.complete) == ("CONFIG_MISSING", NAME_CONFIG, True)
        assert first.blocker == (
            "It has a torch distributed checkpoint but no config.json; looked in "
            f"{tmp_path}/checkpoint-20, {tmp_path} too."
        )

    def test_that_of_the_final_model_or_of_the_student_serves(self, tmp_path):
        found = hf_trainer(Run(trainers.hf_fsdp(tmp_path / "a", final=True)))
        assert [(c.label, c.config) for c in found] == [
            ("step 20", tmp_path / "a"),
            ("step 40", tmp_path / "a"),
            ("final", None),
        ]
        student = full_model(tmp_path / "student", **trainers.TOKENIZER)
        found = hf_trainer(Run(trainers.hf_fsdp(tmp_path / "b"), student=str(student)))
        assert [(c.config, c.tokenizer, c.loadable) for c in found] == [(student, str(student), True)] * 2
        assert hf_trainer(Run(tmp_path / "b", base_model="org/base"))[0].tokenizer == "org/base"

    def test_deepspeed_comes_with_its_command(self, tmp_path):
        first = hf_trainer(Run(trainers.hf_deepspeed(tmp_path)))[0]
        folder = tmp_path / "checkpoint-20"
        assert (first.code, first.path) == ("NEEDS_MERGE", folder)
        assert first.way_out == (
            f"Run: python {folder}/zero_to_fp32.py {folder} merged/step-20 --safe_serialization; then copy config.json "
            "and tokenizer of the model that was trained into it and list it with --steps '20=merged/step-20'."
        )


class TestFinal:
    def test_a_model_beside_the_steps_has_no_step(self, tmp_path):
        found = final(full_model(trainer_run(tmp_path)))
        assert (found.step, found.path, found.slug) == (None, tmp_path, "final")
        assert found.note == "The model in the run folder itself."

    def test_trainer_state_tells_its_step(self, tmp_path):
        found = final(write(full_model(trainer_run(tmp_path)), state(global_step=110)))
        assert (found.step, found.label) == (110, "final")

    def test_a_step_that_a_checkpoint_has_is_only_mentioned(self, tmp_path):
        found = final(write(full_model(trainer_run(tmp_path)), state(global_step=100)))
        assert found.step is None
        assert "Its weights may be those of step 100, where training ended." in found.note

    def test_a_best_checkpoint_leaves_the_step_open(self, tmp_path):
        best = state(best_model_checkpoint="out/checkpoint-20", global_step=110)
        found = final(write(full_model(trainer_run(tmp_path)), best))
        assert found.step is None
        assert "Training ended at step 110, but an earlier checkpoint may have been loaded back." in found.note

    def test_no_best_checkpoint_leaves_it_known(self, tmp_path):
        assert (
            final(write(full_model(trainer_run(tmp_path)), state(best_model_checkpoint=None, global_step=110))).step
            == 110
        )

    def test_config_or_tokenizer_alone_are_no_final_model(self, tmp_path):
        write(trainer_run(tmp_path), {"config.json": "{}", "tokenizer.json": "{}"})
        assert [c.step for c in hf_trainer(Run(tmp_path))] == [20, 40, 100]

    def test_a_truncated_final_model_is_blocked_not_dropped(self, tmp_path):
        found = final(full_model(trainer_run(tmp_path), **{"model.safetensors": TENSORS[:-1]}))
        assert "is truncated" in found.blocker

    def test_a_copy_of_the_last_checkpoint_is_dropped(self, tmp_path):
        full_model(trainer_run(tmp_path))
        files = [tmp_path / "model.safetensors", tmp_path / "checkpoint-100" / "model.safetensors"]
        for file in files:
            os.utime(file, (1e9, 1e9))
        assert [c.label for c in hf_trainer(Run(tmp_path))] == ["step 20", "step 40", "step 100"]
        os.utime(files[0], (1e9, 1e9 + 1))
        assert final(tmp_path).label == "final"


class TestSwift:
    def test_the_version_below_is_the_run(self, tmp_path):
        found = find_run(trainers.swift(tmp_path))
        version = tmp_path / "v0-20260801-120000"
        assert (found.layout, found.folder, found.notes) == ("swift", version, (f"The run is in {version}.",))
        assert [(c.step, c.path.name) for c in found.checkpoints] == [(50, "checkpoint-50"), (100, "checkpoint-100")]

    def test_a_merged_copy_stands_in_for_an_adapter_that_cannot_be_used(self, tmp_path):
        adapter(tmp_path / "checkpoint-50", "/gone", **{"args.json": "{}"})
        assert rows(swift, tmp_path) == [("step 50", 50, "adapter", "checkpoint-50", "BASE_MODEL_MISSING")]
        full_model(tmp_path / "checkpoint-50-merged")
        assert rows(swift, tmp_path) == [("step 50", 50, "full", "checkpoint-50-merged", None)]
        assert swift(Run(tmp_path))[0].note == "checkpoint-50 cannot be used, its merged copy is."
        assert rows(swift, tmp_path, base_model="org/base")[0][2:4] == ("adapter", "checkpoint-50")

    def test_the_shards_of_megatron_must_be_exported(self, tmp_path):
        first = swift(Run(trainers.megatron_swift(tmp_path)))[0]
        assert (first.code, first.way_out) == (
            "NEEDS_MERGE",
            f"Run: swift export --mcore_model {tmp_path}/checkpoint-50 --to_hf true --output_dir merged/step-50; "
            "then list it with --steps '50=merged/step-50'.",
        )

    def test_steps_of_either_kind_are_one_run(self, tmp_path):
        trainer_run(tmp_path, steps=(10, 30))
        full_model(tmp_path / "checkpoint-20", **{"args.json": "{}"})
        assert [c.step for c in find_run(tmp_path).checkpoints] == [10, 20, 30]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ('{"epoch": 1, "global_step": 7, "log_history": [{"loss": NaN, "grad_norm": Infinity}]}', 7),
        ('{"global_step": 0}', 0),
        ('{\n "epoch": 1,\n "global_step": 12,\n "log_history": [' + '{"global_step": 5},' * 9999, 12),
        ('{"global_step": "7"}', None),
        ('{"global_step": ' + "7" * 5000 + "}", None),
        ('{"global_step": true}', None),
        ('{"global_step": -1}', None),
        ('{"global_step": 7', None),
        ("{}", None),
        ("", None),
        (b"\xff", None),
    ],
)
def test_finished_step(tmp_path, text, step):
    assert finished_step(tmp_path, Run(tmp_path)) is None
    write(tmp_path / "a", {"trainer_state.json": text})
    assert finished_step(tmp_path / "a", Run(tmp_path)) == step


def test_llama_factory_and_trl_are_runs_of_the_trainer(tmp_path):
    assert find_run(trainers.llama_factory(tmp_path / "a")).layout == "hf_trainer"
    assert find_run(trainers.trl(tmp_path / "b")).layout == "hf_trainer"
    write(tmp_path / "c" / "checkpoint-20", {"optimizer.pt": SHARD})
    assert find_run(tmp_path / "c").checkpoints[0].code == "NO_WEIGHTS"
