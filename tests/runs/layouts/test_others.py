"""OpenRLHF, AReaL, KDFlow and ROLL: names of their own, two of them counting from 0."""

import os

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.layouts.others import OPENRLHF_CAVEAT, areal, kdflow, openrlhf, roll
from opd_diag.runs.layouts.run import Run

from .. import trainers
from ..folders import full_model, write
from .reading import rows

FROM_0 = "Its folders count from 0: a step here is the number of finished updates, one more."


class TestOpenRlhf:
    def test_exports_go_before_the_shards_of_deepspeed(self, tmp_path):
        assert rows(openrlhf, trainers.openrlhf(tmp_path)) == [
            ("step 100", 100, "other", "_actor/global_step100", "NEEDS_MERGE"),
            ("step 200", 200, "full", "global_step200_hf", None),
        ]
        first = openrlhf(Run(tmp_path))[0]
        assert first.way_out == (
            f"Run: python {tmp_path}/_actor/zero_to_fp32.py {tmp_path}/_actor merged/step-100 --safe_serialization "
            "--tag global_step100; then copy config.json and tokenizer of the model that was trained into it and list "
            "it with --steps '100=merged/step-100'."
        )
        assert find_run(tmp_path).notes == (OPENRLHF_CAVEAT,)

    def test_an_adapter_beside_the_config_of_its_base_is_an_adapter(self, tmp_path):
        assert rows(openrlhf, trainers.openrlhf_adapter(tmp_path)) == [
            (f"step {n}", n, "adapter", f"global_step{n}_hf", None) for n in (100, 200)
        ]


class TestAreal:
    def test_the_steps_five_folders_down_are_those_of_the_student_and_count_from_0(self, tmp_path):
        found = find_run(trainers.areal(tmp_path))
        trial = tmp_path / "checkpoints" / "me" / "experiment" / "trial0"
        assert (found.layout, found.folder) == ("areal", trial / "default")
        assert [(c.step, c.path.name) for c in found.checkpoints] == [
            (10, "epoch0epochstep9globalstep9"),
            (20, "epoch1epochstep4globalstep19"),
        ]
        assert found.notes == (f"The run is in {trial / 'default'}.", FROM_0)

    def test_of_a_step_that_a_resumed_run_wrote_again_the_newest_counts(self, tmp_path):
        for name, written in (("epoch0epochstep9globalstep9", 2e9), ("epoch1epochstep0globalstep9", 1e9)):
            os.utime(full_model(tmp_path / name), (written, written))
        (found,) = areal(Run(tmp_path))
        assert found.path.name == "epoch0epochstep9globalstep9"
        assert found.note == (
            "epoch0epochstep9globalstep9 is the newest of its step; left out: epoch1epochstep0globalstep9."
        )

    def test_the_base_of_the_count_can_be_given(self, tmp_path):
        full_model(tmp_path / "epoch0epochstep9globalstep9")
        assert [c.step for c in areal(Run(tmp_path, step_base=1))] == [9]
        assert find_run(tmp_path, step_base=1).notes == ()


class TestKdflow:
    def test_the_end_of_an_epoch_stands_after_its_steps(self, tmp_path):
        assert rows(kdflow, trainers.kdflow(tmp_path)) == [
            ("step 50", 50, "full", "epoch_1_global_step_50", None),
            ("epoch_1", None, "full", "epoch_1", None),
            ("step 100", 100, "full", "epoch_2_global_step_100", None),
            ("epoch_2", None, "full", "epoch_2", None),
        ]
        found = find_run(tmp_path)
        assert [c.label for c in found.checkpoints] == ["step 50", "epoch_1", "step 100", "epoch_2"]
        assert found.checkpoints[1].note == "epoch_1 is the end of an epoch; its step is in no name."
        assert found.notes == ()

    def test_an_epoch_without_steps_of_its_own(self, tmp_path):
        for name in ("epoch_2_global_step_100", "epoch_1"):
            full_model(tmp_path / name)
        assert [c.label for c in kdflow(Run(tmp_path))] == ["epoch_1", "step 100"]

    def test_epochs_alone_are_not_its(self, tmp_path):
        full_model(tmp_path / "epoch_1")
        assert kdflow(Run(tmp_path)) == []


class TestRoll:
    @pytest.mark.parametrize("role", ["actor_train", "student_train"])
    def test_the_worker_that_trains_counts_from_0(self, tmp_path, role):
        inner = "/student_train" if role == "student_train" else ""
        assert rows(roll, trainers.roll(tmp_path, role)) == [
            (f"step {n + 1}", n + 1, "full", f"{role}-0-G0/checkpoint-{n}{inner}", None) for n in (9, 19)
        ]
        found = find_run(tmp_path)
        assert (found.layout, found.notes) == ("roll", (FROM_0,))

    def test_the_folder_of_the_worker_may_be_given(self, tmp_path):
        found = find_run(trainers.roll(tmp_path) / "actor_train-0-G0")
        assert (found.layout, [c.step for c in found.checkpoints]) == ("roll", [10, 20])

    def test_megatron_must_be_converted(self, tmp_path):
        first = roll(Run(trainers.roll(tmp_path, weights="megatron")))[0]
        saved = tmp_path / "actor_train-0-G0" / "checkpoint-9"
        assert (first.code, first.tokenizer) == ("NEEDS_MERGE", str(saved))
        assert first.way_out == (
            f"Run, in a clone of ROLL: python mcore_adapter/tools/convert.py --checkpoint_path {saved} --output_path "
            "merged/step-10; then list it with --steps '10=merged/step-10'."
        )

    def test_a_step_that_was_uploaded_and_deleted_here(self, tmp_path):
        trainers.roll(tmp_path)
        saved = tmp_path / "actor_train-0-G0" / "checkpoint-9"
        for file in saved.iterdir():
            file.unlink()
        assert [c.step for c in roll(Run(tmp_path))] == [20]
        write(saved, {"tokenizer.json": "{}"})
        assert [(c.step, c.code) for c in roll(Run(tmp_path))] == [(10, "NO_WEIGHTS"), (20, None)]

    def test_without_its_pipeline_it_is_another_trainers(self, tmp_path):
        full_model(tmp_path / "actor_train-0" / "checkpoint-9")
        assert roll(Run(tmp_path)) == []
