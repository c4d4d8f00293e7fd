"""Runs above and below the folder that was given, and folders that lead in circles."""

import sys

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.layouts.run import Run
from opd_diag.runs.nesting import MOST_FOLDERS, one_of_a_run, runs_below

from . import trainers
from .folders import full_model, trainer_run, write


class TestInside:
    @pytest.mark.parametrize("inside", ["global_step_40", "global_step_40/actor", "global_step_40/actor/huggingface"])
    def test_any_part_of_a_checkpoint_is_that_one(self, tmp_path, inside):
        found = find_run(trainers.verl_fsdp(tmp_path) / inside)
        assert (found.layout, found.folder) == ("verl_fsdp", tmp_path / inside)
        (only,) = found.checkpoints
        assert (only.step, only.kind, only.path) == (40, "fsdp", tmp_path / "global_step_40" / "actor")
        assert only.note == f"The folder above it holds 2 checkpoints; pass {tmp_path} to compare steps."

    def test_the_path_stays_as_it_was_given(self, tmp_path, monkeypatch):
        monkeypatch.chdir(trainer_run(tmp_path))
        (only,) = find_run("checkpoint-40").checkpoints
        assert (str(only.path), only.step) == ("checkpoint-40", 40)
        assert only.note == f"The folder above it holds 3 checkpoints; pass {tmp_path} to compare steps."

    def test_counting_from_0_stays_so(self, tmp_path):
        trial = trainers.areal(tmp_path) / "checkpoints" / "me" / "experiment" / "trial0" / "default"
        assert [c.step for c in find_run(trial / "epoch0epochstep9globalstep9").checkpoints] == [10]

    def test_the_only_one_needs_no_note(self, tmp_path):
        assert find_run(trainer_run(tmp_path, steps=(7,)) / "checkpoint-7").checkpoints[0].note is None

    def test_what_is_no_part_of_a_checkpoint_is_looked_at_itself(self, tmp_path):
        trainers.verl_fsdp(tmp_path)
        full_model(tmp_path / "global_step_20" / "critic")
        assert find_run(tmp_path / "global_step_20" / "critic").layout == "single"
        assert one_of_a_run(Run(full_model(tmp_path / "model"))) is None

    def test_a_listed_step_folder_finds_its_weights(self, tmp_path):
        run = trainers.verl_fsdp(tmp_path / "run")
        found = find_run(tmp_path, steps=f"5={run}/global_step_20, 6={run}/global_step_40/actor")
        assert [(c.step, c.label, c.path.name, c.note) for c in found.checkpoints] == [
            (5, "step 5", "actor", None),
            (6, "step 6", "actor", None),
        ]


class TestBelow:
    def test_one_run_is_used_and_said(self, tmp_path):
        found = find_run(trainers.verl_fsdp(tmp_path / "project" / "experiment").parents[1])
        assert (found.layout, found.folder) == ("verl_fsdp", tmp_path / "project" / "experiment")
        assert found.notes == (f"The run is in {tmp_path}/project/experiment.",)

    def test_the_nearest_count(self, tmp_path):
        trainer_run(tmp_path / "a" / "b" / "deeper")
        trainer_run(tmp_path / "c")
        assert list(runs_below(Run(tmp_path))) == [tmp_path / "c"]

    def test_models_side_by_side_below_are_a_run_if_names_tell_steps(self, tmp_path):
        trainers.side_by_side(tmp_path / "exports")
        trainers.side_by_side(tmp_path / "others", ("best", "last"))
        (tmp_path / "x").mkdir()
        assert find_run(tmp_path).folder == tmp_path / "exports"

    def test_runs_beside_the_model_that_they_start_from(self, tmp_path):
        full_model(tmp_path / "student")
        trainer_run(tmp_path / "run")
        assert find_run(tmp_path).folder == tmp_path / "run"

    def test_critics_and_what_trainers_write_besides_are_no_runs(self, tmp_path):
        for name in ("critic", "wandb", "logs", "rollouts"):
            trainer_run(tmp_path / name)
        trainer_run(tmp_path / "actor_run")
        assert find_run(tmp_path).folder == tmp_path / "actor_run"

    def test_links_in_circles_end(self, tmp_path):
        run = trainer_run(tmp_path / "a" / "run")
        (run / "up").symlink_to(tmp_path)
        (tmp_path / "a" / "self").symlink_to(".")
        (tmp_path / "circle").symlink_to("circle")
        assert find_run(tmp_path).folder == run
        only_circles = write(tmp_path / "b", {})
        (only_circles / "c").symlink_to("..")
        assert list(runs_below(Run(only_circles))) == [only_circles / "c" / "a" / "run"]

    def test_one_run_by_two_ways_is_one(self, tmp_path):
        trainer_run(tmp_path / "run")
        (tmp_path / "latest").symlink_to("run")
        assert find_run(tmp_path).notes == (f"The run is in {tmp_path}/latest.",)

    def test_it_stops_after_so_many_folders(self, tmp_path):
        for i in range(MOST_FOLDERS + 50):
            (tmp_path / f"{i:05d}").mkdir()
        asked = []
        sys.addaudithook(lambda event, args: asked.append(event) if event == "os.scandir" and counting else None)
        counting = True
        assert runs_below(Run(tmp_path)) == {}
        counting = False
        assert MOST_FOLDERS < len(asked) < MOST_FOLDERS + 5

    def test_a_layout_that_was_named_is_looked_for_below_too(self, tmp_path):
        trainers.slime(trainer_run(tmp_path / "a"))
        assert find_run(tmp_path, layout="megatron").folder == tmp_path / "a"
