"""From any folder to the run in it: all layouts, what was said by hand first, and few questions to the disk."""

import inspect
import os
import shlex
import sys

import pytest

from opd_diag.runs import Manifest, find_run
from opd_diag.runs.discovery import listed_steps

from . import trainers
from .folders import full_model, trainer_run, write

RECOGNISED = {
    "verl_fsdp": "verl_fsdp",
    "verl_rotated": "verl_fsdp",
    "verl_sft": "verl_sft",
    "verl_v1": "verl_megatron_v1",
    "verl_v2": "verl_megatron_v2",
    "skyrl": "skyrl",
    "skyrl_export": "skyrl_export",
    "nemo_rl": "nemo_rl",
    "prime_rl": "prime_rl",
    "prime_rl_old": "prime_rl",
    "openrlhf": "openrlhf",
    "openrlhf_adapter": "openrlhf",
    "areal": "areal",
    "kdflow": "kdflow",
    "roll": "roll",
    "swift": "swift",
    "megatron_swift": "swift",
    "peft": "hf_trainer",
    "hf_sharded": "hf_trainer",
    "hf_fsdp": "hf_trainer",
    "hf_deepspeed": "hf_trainer",
    "trl": "hf_trainer",
    "llama_factory": "hf_trainer",
    "slime": "megatron",
    "slime_legacy": "megatron",
    "torchtune": "torchtune",
    "tinker": "tinker",
    "side_by_side": "generic_hf",
}
"""Layout by the function in `trainers` that makes such a run."""

PARTS = {"rank_files", "distributed", "megatron"}


def test_every_fixture_is_recognised_below():
    made = [name for name, value in vars(trainers).items() if inspect.getmodule(value) is trainers]
    assert sorted(set(made) - PARTS) == sorted(RECOGNISED)


@pytest.mark.parametrize(("name", "layout"), RECOGNISED.items())
def test_recognised(tmp_path, name, layout):
    found = find_run(vars(trainers)[name](tmp_path))
    assert found.layout == layout
    for checkpoint in found.checkpoints:
        assert (checkpoint.code is None) == (checkpoint.blocker is None) == (checkpoint.way_out is None)
        assert checkpoint.label == (f"step {checkpoint.step}" if checkpoint.step is not None else checkpoint.label)
        assert tmp_path in (checkpoint.path, *checkpoint.path.parents)
    known = [c.step for c in found.checkpoints if c.step is not None]
    assert known == sorted(set(known))
    assert find_run(tmp_path, layout=layout) == found


@pytest.mark.parametrize("name", ["verl_v1", "openrlhf", "megatron_swift", "hf_deepspeed", "slime", "slime_legacy"])
def test_in_the_command_that_mends_a_checkpoint_a_folder_is_one_word(tmp_path, name):
    run = vars(trainers)[name](tmp_path / "a run; rm -rf ~")
    ways_out = [c.way_out for c in find_run(run).checkpoints if c.code == "NEEDS_MERGE"]
    assert ways_out
    for way_out in ways_out:
        words = shlex.split(way_out.split(": ", 1)[1].split("; then")[0])
        assert [word for word in words if word.startswith(str(run))]
        assert not {"rm", "-rf"} & set(words)


class TestSaidByHand:
    def test_listed_steps(self):
        home = os.path.expanduser("~")
        expected = ((20, "a b"), (0, "c=d"), (7, f"{home}/e"))
        assert [(step, str(path)) for step, path in listed_steps(" 20 = a b,0=c=d,007=~/e")] == list(expected)
        assert [(step, str(path)) for step, path in listed_steps(["1=a,b"])] == [(1, "a,b")]

    def test_steps_win_over_the_list_of_the_manifest_and_that_over_discovery(self, tmp_path):
        trainer_run(tmp_path)
        for name in ("a", "b"):
            full_model(tmp_path / name)
        write(tmp_path, {"opd-diag.toml": "[[checkpoints]]\nstep = 5\npath = 'a'"})
        assert [(c.step, c.path.name) for c in find_run(tmp_path).checkpoints] == [(5, "a")]
        found = find_run(tmp_path, steps=[f"8={tmp_path}/b", f"7={tmp_path}/a"])
        assert [(c.step, c.path.name) for c in found.checkpoints] == [(7, "a"), (8, "b")]
        assert found.layout == "manifest"
        assert [c.step for c in find_run(tmp_path, layout="hf_trainer").checkpoints] == [20, 40, 100]

    def test_the_manifest_may_give_steps_base_and_student(self, tmp_path):
        write(trainers.hf_fsdp(tmp_path), {"opd-diag.toml": "student = 'org/start'\nstep_base = 0"})
        found = find_run(tmp_path)
        assert [(c.step, str(c.config)) for c in found.checkpoints] == [(21, "org/start"), (41, "org/start")]
        assert [c.step for c in find_run(tmp_path, step_base=1).checkpoints] == [20, 40]
        text = "steps = ['3=checkpoint-20']\nbase_model = 'org/base'"
        write(tmp_path, {"opd-diag.toml": text})
        (only,) = find_run(tmp_path).checkpoints
        assert (only.step, only.path, str(only.config)) == (
            3,
            tmp_path / "checkpoint-20" / "pytorch_model_fsdp_0",
            "org/base",
        )

    def test_a_listed_folder_that_is_gone_is_blocked(self, tmp_path):
        (only,) = find_run(tmp_path, steps=f"20={tmp_path}/gone").checkpoints
        assert (only.code, only.blocker) == (
            "NO_WEIGHTS",
            f"Expected a model folder, but {tmp_path}/gone does not exist.",
        )

    def test_a_layout_in_the_manifest_counts(self, tmp_path):
        full_model(trainer_run(tmp_path))
        write(tmp_path, {"opd-diag.toml": "layout = 'single'"})
        assert [c.path for c in find_run(tmp_path).checkpoints] == [tmp_path]

    def test_a_given_manifest_is_used_in_place_of_the_file(self, tmp_path):
        write(trainer_run(tmp_path), {"opd-diag.toml": "this is broken"})
        listed = Manifest(None, {}, ((7, tmp_path / "checkpoint-20"),))
        assert [c.step for c in find_run(tmp_path, manifest=listed).checkpoints] == [7]


class Asked:
    """Counts what is asked of the disk: folders listed, files opened, paths asked about."""

    def __init__(self, monkeypatch):
        self.events, self.stats, self.on = [], 0, True
        sys.addaudithook(self._heard)
        for name in ("stat", "lstat", "readlink"):
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))

    def _heard(self, event, args):
        if self.on and event in ("os.scandir", "os.listdir", "open"):
            self.events.append(event)

    def _counting(self, ask):
        def asked(*args, **kwargs):
            self.stats += self.on
            return ask(*args, **kwargs)

        return asked

    @property
    def count(self):
        self.on = False
        return len(self.events) + self.stats


class TestFewQuestions:
    def test_five_hundred_checkpoints(self, tmp_path, monkeypatch):
        trainer_run(tmp_path, steps=tuple(range(1, 501)))
        asked = Asked(monkeypatch)
        assert len(find_run(tmp_path).checkpoints) == 500
        assert asked.count < 500 * 10, "a folder listed, three files opened and their sizes: some eight for each"

    def test_five_hundred_saves_of_shards(self, tmp_path, monkeypatch):
        trainers.verl_fsdp(tmp_path, steps=tuple(range(1, 501)))
        asked = Asked(monkeypatch)
        found = find_run(tmp_path).checkpoints
        assert (len(found), found[-1].loadable) == (500, True)
        assert asked.count < 500 * 12

    def test_ten_thousand_names_that_mean_nothing(self, tmp_path, monkeypatch):
        trainer_run(tmp_path, steps=(20, 40))
        for i in range(10_000):
            (tmp_path / f"note-{i}.txt").touch()
        asked = Asked(monkeypatch)
        assert len(find_run(tmp_path).checkpoints) == 2
        assert asked.count < 50

    def test_ten_thousand_folders_without_a_run(self, tmp_path, monkeypatch):
        for i in range(10_000):
            (tmp_path / f"folder-{i}").mkdir()
        asked = Asked(monkeypatch)
        with pytest.raises(Exception, match="No checkpoint found") as caught:
            find_run(tmp_path)
        assert asked.count < 10_000 * 2
        assert len(str(caught.value)) < 2000


def test_what_vanishes_while_it_is_looked_at_is_named(tmp_path, monkeypatch):
    trainer_run(tmp_path)
    scandir = os.scandir

    def vanishing(folder):
        if str(folder).endswith("checkpoint-40"):
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    found = find_run(tmp_path).checkpoints
    assert [c.loadable for c in found] == [True, False, True]
    assert found[1].blocker == f"Expected a model folder, but {tmp_path}/checkpoint-40 does not exist."


def test_a_checkpoint_that_is_being_written(tmp_path):
    trainer_run(tmp_path, steps=(20,))
    half = write(tmp_path / "checkpoint-40", {"config.json": "{}", "model-00001-of-00002.safetensors": b""})
    found = find_run(tmp_path).checkpoints
    assert [(c.step, c.complete, c.code) for c in found] == [(20, True, None), (40, False, "INCOMPLETE_WEIGHTS")]
    full_model(half)
    (half / "model-00001-of-00002.safetensors").unlink()
    write(half, {"trainer_state.json": '{"global_step": 40, "x": 1}'})
    assert [c.complete for c in find_run(tmp_path).checkpoints] == [True, True]
