"""Each layout gives its own checkpoints, says what it knows of each, and is silent about runs of another kind."""

import json
import os

import pytest

from opd_diag.runs.layouts import LAYOUTS, finished_step, hf_trainer, listed, single, skipped_folders, step_folders
from opd_diag.runs.manifest import Manifest

from .folders import TENSORS, full_model, trainer_run, write

NO_MANIFEST = Manifest()


def trainer_state(**values) -> dict[str, str]:
    return {"trainer_state.json": json.dumps(values)}


def final(run_dir):
    found = [c for c in hf_trainer(run_dir, NO_MANIFEST, None) if c.label == "final"]
    assert len(found) == 1
    return found[0]


def test_names_and_order_of_precedence():
    assert [name for name, _ in LAYOUTS] == ["manifest", "hf_trainer", "single"]


@pytest.mark.parametrize("find", [find for _, find in LAYOUTS])
def test_every_layout_is_silent_about_a_folder_without_checkpoints(tmp_path, find):
    assert find(write(tmp_path, {"config.json": "{}", "notes.txt": ""}), NO_MANIFEST, None) == []


class TestListed:
    def test_steps_paths_and_a_missing_folder(self, tmp_path):
        full_model(tmp_path / "a")
        manifest = Manifest(None, {}, ((20, tmp_path / "a"), (40, tmp_path / "gone")))
        found = listed(tmp_path, manifest, None)
        assert [(c.step, c.label, c.loadable, c.complete) for c in found] == [
            (20, "step 20", True, None),
            (40, "step 40", False, None),
        ]
        assert found[1].blocker == f"Expected a model folder, but {tmp_path / 'gone'} does not exist."

    def test_tokenizer_of_the_run_serves_all(self, tmp_path):
        full_model(tmp_path / "a")
        write(tmp_path, {"tokenizer.json": "{}"})
        assert listed(tmp_path, Manifest(None, {}, ((1, tmp_path / "a"),)), None)[0].tokenizer == str(tmp_path)


class TestTrainer:
    def test_completeness_follows_trainer_state(self, tmp_path):
        trainer_run(tmp_path, steps=(1, 2))
        (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
        assert [c.complete for c in hf_trainer(tmp_path, NO_MANIFEST, None)] == [True, None]

    def test_tokenizer_from_the_folder_then_the_run_then_none(self, tmp_path):
        trainer_run(tmp_path, steps=(1,))
        trainer_run(tmp_path, steps=(2,), tokenizer=False)
        tokenizers = [c.tokenizer for c in hf_trainer(tmp_path, NO_MANIFEST, None)]
        assert tokenizers == [str(tmp_path / "checkpoint-1"), None]
        write(tmp_path, {"tokenizer_config.json": "{}"})
        assert hf_trainer(tmp_path, NO_MANIFEST, None)[1].tokenizer == str(tmp_path)

    def test_only_step_folders_with_something_in_them_count(self, tmp_path):
        trainer_run(tmp_path, steps=(20,))
        for name in ("checkpoint-40", "tmp-checkpoint-60", ".checkpoint-70", "checkpoint-x", "checkpoint-20-merged"):
            (tmp_path / name).mkdir()
        full_model(tmp_path / "tmp-checkpoint-60")
        (tmp_path / "checkpoint-80").write_text("a file")
        (tmp_path / "checkpoint-90").symlink_to("checkpoint-90")
        (tmp_path / "checkpoint-٣").mkdir()
        assert step_folders(tmp_path) == [(20, tmp_path / "checkpoint-20")]
        assert skipped_folders(tmp_path) == [
            "checkpoint-40 (empty)",
            "checkpoint-80 (a file)",
            "checkpoint-90 (a link to nothing)",
            "tmp-checkpoint-60 (an unfinished save)",
        ]

    def test_a_step_folder_without_weights_is_named_not_dropped(self, tmp_path):
        write(tmp_path / "checkpoint-20", {"trainer_state.json": "{}", "scheduler.pt": b"x"})
        (found,) = hf_trainer(tmp_path, NO_MANIFEST, None)
        assert found.blocker == "It holds no Hugging Face weights; found scheduler.pt, trainer_state.json."
        assert found.way_out

    def test_a_step_folder_that_may_not_be_listed_is_blocked(self, tmp_path, monkeypatch):
        trainer_run(tmp_path, steps=(20, 40))
        listdir = os.listdir

        def refusing(folder):
            if str(folder).endswith("checkpoint-40"):
                raise PermissionError(13, "Permission denied", str(folder))
            return listdir(folder)

        monkeypatch.setattr(os, "listdir", refusing)
        found = hf_trainer(tmp_path, NO_MANIFEST, None)
        assert [c.blocker for c in found] == [None, f"{tmp_path}/checkpoint-40 cannot be read: Permission denied."]

    def test_folders_of_other_trainers_inside_a_step_are_not_checkpoints(self, tmp_path):
        trainer_run(tmp_path, steps=(20,))
        full_model(tmp_path / "checkpoint-20" / "global_step20")
        assert len(hf_trainer(tmp_path, NO_MANIFEST, None)) == 1


class TestFinal:
    def test_a_model_beside_the_steps_has_no_step(self, tmp_path):
        found = final(full_model(trainer_run(tmp_path)))
        assert (found.step, found.path, found.slug) == (None, tmp_path, "final")
        assert found.note == "The model in the run folder itself."

    def test_trainer_state_tells_its_step(self, tmp_path):
        found = final(write(full_model(trainer_run(tmp_path)), trainer_state(global_step=110)))
        assert (found.step, found.label) == (110, "final")

    def test_a_step_that_a_checkpoint_has_is_only_mentioned(self, tmp_path):
        found = final(write(full_model(trainer_run(tmp_path)), trainer_state(global_step=100)))
        assert found.step is None
        assert "Its weights may be those of step 100, where training ended." in found.note

    def test_a_best_checkpoint_leaves_the_step_open(self, tmp_path):
        state = trainer_state(global_step=110, best_model_checkpoint="out/checkpoint-20")
        found = final(write(full_model(trainer_run(tmp_path)), state))
        assert found.step is None
        assert "Training ended at step 110, but an earlier checkpoint may have been loaded back." in found.note

    def test_config_or_tokenizer_alone_are_no_final_model(self, tmp_path):
        write(trainer_run(tmp_path), {"config.json": "{}", "tokenizer.json": "{}"})
        assert [c.step for c in hf_trainer(tmp_path, NO_MANIFEST, None)] == [20, 40, 100]

    def test_a_truncated_final_model_is_blocked_not_dropped(self, tmp_path):
        found = final(full_model(trainer_run(tmp_path), **{"model.safetensors": TENSORS[:-1]}))
        assert "is truncated" in found.blocker


class TestSingle:
    def test_label_is_the_name_when_no_step_is_known(self, tmp_path):
        (found,) = single(full_model(tmp_path / "my-model"), NO_MANIFEST, None)
        assert (found.step, found.label, found.path, found.note) == (None, "my-model", tmp_path / "my-model", None)

    def test_the_working_directory_has_a_name_too(self, tmp_path, monkeypatch):
        monkeypatch.chdir(full_model(tmp_path / "my-model"))
        (found,) = single(tmp_path.__class__("."), NO_MANIFEST, None)
        assert found.label == "my-model"

    def test_step_from_trainer_state_then_from_the_name(self, tmp_path):
        folder = full_model(tmp_path / "checkpoint-30")
        (found,) = single(folder, NO_MANIFEST, None)
        assert (found.step, found.label, found.note) == (30, "step 30", None)
        (found,) = single(write(folder, trainer_state(global_step=31)), NO_MANIFEST, None)
        assert (found.step, found.label) == (31, "step 31")

    def test_one_checkpoint_of_a_run_says_that_there_are_more(self, tmp_path):
        folder = trainer_run(tmp_path) / "checkpoint-40"
        (found,) = single(folder, NO_MANIFEST, None)
        assert found.step == 40
        assert found.note == f"The folder above it holds 3 checkpoints; pass {tmp_path} to compare steps."

    def test_pickled_weights_are_blocked_not_dropped(self, tmp_path):
        (found,) = single(write(tmp_path, {"config.json": "{}", "pytorch_model.bin": b"x"}), NO_MANIFEST, None)
        assert found.blocker == "Its weights are pickles, which can run code (pytorch_model.bin)."


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ('{"global_step": 7, "log_history": [{"loss": NaN, "grad_norm": Infinity}]}', 7),
        ('{"global_step": 0}', 0),
        ('{"global_step": "7"}', None),
        ('{"global_step": true}', None),
        ('{"global_step": -1}', None),
        ("{}", None),
        ("[7]", None),
        ('{"global_step"', None),
    ],
)
def test_finished_step(tmp_path, text, step):
    assert finished_step(tmp_path) is None
    assert finished_step(write(tmp_path, {"trainer_state.json": text})) == step
