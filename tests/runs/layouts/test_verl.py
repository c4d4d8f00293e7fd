"""verl: the actor of each step, wherever its weights are, and what tells that a save was finished."""

import json
import os

from opd_diag.runs import find_run
from opd_diag.runs.layouts.run import Run
from opd_diag.runs.layouts.verl import verl_fsdp, verl_megatron_v1, verl_megatron_v2, verl_sft

from .. import trainers
from ..folders import adapter, full_model, write
from ..trainers import ASSETS, SHARD, megatron, rank_files
from .reading import rows


class TestFsdp:
    def test_shards_with_config_and_tokenizer_beside_them(self, tmp_path):
        assert rows(verl_fsdp, trainers.verl_fsdp(tmp_path)) == [
            (f"step {n}", n, "fsdp", f"global_step_{n}/actor", None) for n in (20, 40)
        ]
        found = verl_fsdp(Run(tmp_path))[0]
        assert found.config == tmp_path / "global_step_20/actor/huggingface"
        assert found.tokenizer == str(found.config)
        assert found.base_model is None

    def test_hugging_face_weights_go_before_shards(self, tmp_path):
        found = rows(verl_fsdp, trainers.verl_fsdp(tmp_path, hf=True))
        assert found[0] == ("step 20", 20, "full", "global_step_20/actor/huggingface", None)

    def test_those_that_are_older_than_the_shards_are_said(self, tmp_path):
        trainers.verl_fsdp(tmp_path, hf=True)
        os.utime(tmp_path / "global_step_20/actor/huggingface/model.safetensors", (1e9, 1e9))
        os.utime(tmp_path / "global_step_20/actor/model_world_size_2_rank_0.pt", (1e9 + 7200, 1e9 + 7200))
        first, second = verl_fsdp(Run(tmp_path))
        assert first.note == "Its Hugging Face weights are 2 hours older than the shards beside them; they were used."
        assert second.note is None

    def test_the_adapter_of_older_releases_goes_before_shards(self, tmp_path):
        adapter(trainers.verl_fsdp(tmp_path) / "global_step_40" / "actor" / "lora_adapter")
        assert [row[2:4] for row in rows(verl_fsdp, tmp_path)] == [
            ("fsdp", "global_step_20/actor"),
            ("adapter", "global_step_40/actor/lora_adapter"),
        ]

    def test_shards_of_a_run_with_an_adapter_know_the_model_under_it(self, tmp_path):
        write(trainers.verl_fsdp(tmp_path) / "global_step_40" / "actor", {"lora_train_meta.json": '{"r": 8}'})
        assert [c.base_model for c in verl_fsdp(Run(tmp_path, student="org/start"))] == [None, "org/start"]
        known = Run(tmp_path, base_model="org/base", student="org/start")
        assert [c.base_model for c in verl_fsdp(known)] == [None, "org/base"]

    def test_config_and_tokenizer_alone(self, tmp_path):
        write(tmp_path / "global_step_20" / "actor" / "huggingface", ASSETS)
        (found,) = verl_fsdp(Run(tmp_path))
        actor = tmp_path / "global_step_20" / "actor"
        assert (found.code, found.path) == ("NO_WEIGHTS", actor)
        assert found.blocker == f"Found config and tokenizer only in {actor}/huggingface, and no shards in {actor}."
        assert found.way_out == (
            "Copy the shards there; for runs to come set actor_rollout_ref.actor.checkpoint.save_contents="
            "[model,optimizer,extra,hf_model]."
        )

    def test_the_actor_of_an_engine_that_nobody_knows(self, tmp_path):
        write(tmp_path / "global_step_20" / "actor", {"weird.bin": SHARD})
        (found,) = verl_fsdp(Run(tmp_path))
        assert found.blocker == f"Found no weights in {tmp_path}/global_step_20/actor; found weird.bin."

    def test_rotated_steps_are_passed_over(self, tmp_path):
        assert [row[0] for row in rows(verl_fsdp, trainers.verl_rotated(tmp_path))] == ["step 60"]
        assert find_run(tmp_path).notes == (
            "Nothing to load in: global_step_20 (only data.pt), global_step_40 (only actor, data.pt).",
        )


def test_sft_has_no_actor(tmp_path):
    assert rows(verl_sft, trainers.verl_sft(tmp_path)) == [
        (f"step {n}", n, "fsdp", f"global_step_{n}", None) for n in (100, 200)
    ]


class TestMegatron:
    def test_the_first_layout_must_be_migrated_and_merged(self, tmp_path):
        first, _ = verl_megatron_v1(Run(trainers.verl_v1(tmp_path)))
        actor = tmp_path / "global_step_20" / "actor"
        assert (first.kind, first.path, first.code) == ("other", actor / "dist_ckpt", "NEEDS_MERGE")
        assert first.blocker == "It holds a Megatron distributed checkpoint, not Hugging Face weights."
        assert first.way_out == (
            f"Run, in a clone of verl: python scripts/migrate_megatron_checkpoint_layout.py --checkpoint {actor} && "
            f"python -m verl.model_merger merge --backend megatron --local_dir {actor} --target_dir merged/step-20; "
            "then list it with --steps '20=merged/step-20'."
        )
        assert first.tokenizer == str(actor / "huggingface")

    def test_the_first_layout_with_weights(self, tmp_path):
        assert rows(verl_megatron_v1, trainers.verl_v1(tmp_path, hf=True))[1][2:] == (
            "full",
            "global_step_40/actor/huggingface",
            None,
        )

    def test_the_second_layout_as_its_manifest_says(self, tmp_path):
        trainers.verl_v2(tmp_path)
        assert rows(verl_megatron_v2, tmp_path)[0][2:] == ("full", "global_step_20/actor/model/huggingface", None)
        assert [c.complete for c in verl_megatron_v2(Run(tmp_path))] == [True, True]

    def test_the_second_layout_in_shards(self, tmp_path):
        first, _ = verl_megatron_v2(Run(trainers.verl_v2(tmp_path, hf=False)))
        actor = tmp_path / "global_step_20" / "actor"
        assert first.way_out == (
            f"Run: python -m verl.model_merger merge --backend megatron --local_dir {actor} --target_dir merged/step-20"
            "; then list it with --steps '20=merged/step-20'."
        )

    def test_an_adapter_that_was_not_exported_is_never_taken_for_its_base(self, tmp_path):
        first, _ = verl_megatron_v2(Run(trainers.verl_v2(tmp_path, peft=True)))
        assert (first.code, first.blocker) == (
            "NEEDS_MERGE",
            "Its adapter lies in Megatron shards (model/dist_ckpt), apart from the model under it.",
        )
        assert first.way_out == (
            "Run scripts/megatron_merge_lora.py of a clone of verl with the configuration of the training and "
            f"actor_rollout_ref.model.lora.adapter_path={tmp_path}/global_step_20/actor/model/dist_ckpt."
        )

    def test_an_exported_adapter_is_on_the_weights_beside_it(self, tmp_path):
        trainers.verl_v2(tmp_path, peft=True)
        base = tmp_path / "global_step_20" / "actor" / "model" / "huggingface"
        adapter(base / "adapter", "/where/it/was/trained")
        first = verl_megatron_v2(Run(tmp_path))[0]
        assert (first.kind, first.path, first.base_model, first.loadable) == (
            "adapter",
            base / "adapter",
            str(base),
            True,
        )
        assert verl_megatron_v2(Run(tmp_path, base_model="org/base"))[0].base_model == "org/base"

    def test_without_its_manifest_a_save_may_go_on(self, tmp_path):
        (trainers.verl_v2(tmp_path) / "global_step_40" / "actor" / "ckpt_contents.json").unlink()
        found = verl_megatron_v2(Run(tmp_path))
        assert [c.complete for c in found] == [True, None]
        assert found[1].note == "ckpt_contents.json is not there yet: the save may not have finished."

    def test_a_manifest_that_leads_out_of_the_folder_is_not_followed(self, tmp_path):
        full_model(tmp_path / "elsewhere")
        trainers.verl_v2(tmp_path / "run")
        actor = tmp_path / "run" / "global_step_20" / "actor"
        for path in ("../../../elsewhere", str(tmp_path / "elsewhere"), 7, None):
            contents = {"model": {"path": path, "format": "huggingface"}}
            write(actor, {"ckpt_contents.json": json.dumps({"contents": contents})})
            assert verl_megatron_v2(Run(tmp_path / "run"))[0].path == actor / "model" / "huggingface"
        write(actor, {"ckpt_contents.json": '{"contents": 3, "backend": []}'})
        assert verl_megatron_v2(Run(tmp_path / "run"))[0].loadable

    def test_a_run_that_was_upgraded_has_all_its_steps(self, tmp_path):
        trainers.verl_v1(tmp_path, hf=True)
        actor = tmp_path / "global_step_60" / "actor"
        full_model(actor / "model" / "huggingface")
        write(actor, {"ckpt_contents.json": "{}"})
        rank_files(tmp_path / "global_step_80" / "actor")
        found = find_run(tmp_path)
        assert [(c.step, c.code) for c in found.checkpoints] == [
            (20, None),
            (40, None),
            (60, None),
            (80, "CONFIG_MISSING"),
        ]
        assert found.layout == "verl_megatron_v2"

    def test_the_fsdp_reader_leaves_megatron_alone(self, tmp_path):
        megatron(tmp_path / "global_step_20" / "actor" / "dist_ckpt")
        full_model(tmp_path / "global_step_40" / "actor" / "model" / "huggingface")
        assert rows(verl_fsdp, tmp_path) == []


class TestPointer:
    def test_up_to_it_saves_are_finished(self, tmp_path):
        assert [c.complete for c in find_run(trainers.verl_fsdp(tmp_path)).checkpoints] == [True, True]

    def test_a_newer_step_may_not_be(self, tmp_path):
        write(trainers.verl_fsdp(tmp_path), {"latest_checkpointed_iteration.txt": "20\n"})
        first, second = find_run(tmp_path).checkpoints
        assert (first.complete, first.note) == (True, None)
        assert second.complete is None
        assert second.note == (
            "It is newer than latest_checkpointed_iteration.txt says (step 20): its save may not have finished."
        )

    def test_a_step_that_is_not_there(self, tmp_path):
        write(trainers.verl_fsdp(tmp_path), {"latest_checkpointed_iteration.txt": "60"})
        assert find_run(tmp_path).notes == (
            "latest_checkpointed_iteration.txt says that step 60 was saved last; it is not here.",
        )

    def test_none_or_nonsense_tells_nothing(self, tmp_path):
        write(trainers.verl_fsdp(tmp_path), {"latest_checkpointed_iteration.txt": "soon"})
        found = find_run(tmp_path)
        assert ([c.complete for c in found.checkpoints], found.notes) == ([None, None], ())
