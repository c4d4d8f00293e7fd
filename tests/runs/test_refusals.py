"""Why a folder is no run: each message whole, with its code and what to do."""

import os

import pytest

from opd_diag.errors import RunFolderError
from opd_diag.runs import Manifest, find_run

from . import trainers
from .folders import TENSORS, full_model, trainer_run, write

LOOKED = (
    "[[checkpoints]] in opd-diag.toml, checkpoints.jsonl, global_step_N/actor, global_step_N/policy, "
    "step_N/policy/weights, checkpoints/step_N/trainer, weights/step_N, global_stepN_hf, epochEepochstepSglobalstepG, "
    "epoch_E_global_step_N, actor_train-R/checkpoint-N, checkpoint-N, iter_NNNNNNN, epoch_N, folders with a model in "
    "each, a model in the folder itself"
)


def refusal(run_dir, **options):
    with pytest.raises(RunFolderError) as caught:
        find_run(run_dir, **options)
    return caught.value.code, str(caught.value)


class TestNotADirectory:
    def test_missing(self, tmp_path):
        text = f"Expected the folder a trainer wrote its checkpoints to; {tmp_path}/gone does not exist."
        assert refusal(tmp_path / "gone") == ("NOT_A_DIRECTORY", text)

    def test_file(self, tmp_path):
        file = write(tmp_path, {"model.safetensors": TENSORS}) / "model.safetensors"
        text = f"Expected the folder a trainer wrote its checkpoints to; {file} is a file. Pass the folder that it"
        assert refusal(file) == ("NOT_A_DIRECTORY", f"{text} lies in.")

    def test_one_that_may_not_be_looked_at(self, tmp_path, monkeypatch):
        def refusing(path, **options):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "stat", refusing)
        said = refusal(tmp_path)
        monkeypatch.undo()
        assert said == ("UNREADABLE", f"{tmp_path} cannot be read: Permission denied. Check its permissions.")

    def test_a_name_that_can_be_nowhere(self):
        assert refusal("a\0b")[0] == "NOT_A_DIRECTORY"
        assert refusal("a" * 5000)[0] == "NOT_A_DIRECTORY"

    @pytest.mark.parametrize(
        ("address", "way_out"),
        [
            ("s3://bucket/my run", "Download it first: aws s3 sync 's3://bucket/my run' run."),
            ("gs://bucket/run", "Download it first: gcloud storage rsync --recursive gs://bucket/run run."),
            ("hf://org/name", "Download it first: hf download org/name --local-dir name."),
            (
                "tinker://run-1/weights/000020",
                "Download it first: tinker checkpoint download tinker://run-1/weights/000020 --output adapter.",
            ),
            ("ftp://host/run", "Download it first."),
        ],
    )
    @pytest.mark.parametrize("kind", [str, __import__("pathlib").Path])
    def test_address(self, address, way_out, kind):
        text = f"Expected a folder on this machine, found the address {address}. {way_out}"
        assert refusal(kind(address)) == ("NOT_A_DIRECTORY", text)

    def test_hub_id(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert refusal("org/name") == (
            "NOT_A_DIRECTORY",
            "Expected the folder a trainer wrote its checkpoints to; org/name does not exist. If it is a hub id, "
            "download it first: hf download org/name --local-dir name.",
        )
        full_model(tmp_path / "s3:" / "bucket")
        assert find_run("s3:/bucket").layout == "single"


class TestNoCheckpoints:
    def test_an_empty_folder(self, tmp_path):
        assert refusal(tmp_path) == (
            "NO_CHECKPOINTS",
            f"No checkpoint found in {tmp_path}. Looked for: {LOOKED}. Found: nothing. Pass the folder that holds the "
            f"checkpoints, or list them: --steps '20={tmp_path}/my-model'.",
        )

    def test_the_first_ten_names_are_shown(self, tmp_path):
        write(tmp_path, {f"file-{i:02d}": "" for i in range(13)})
        shown = ", ".join(f"file-{i:02d}" for i in range(10))
        assert f" Found: {shown} and 3 more. Pass " in refusal(tmp_path)[1]

    def test_what_blocks_a_model_without_weights_is_said(self, tmp_path):
        write(tmp_path, {"config.json": "{}"})
        assert refusal(tmp_path)[1] == (
            f"No checkpoint found in {tmp_path}. Looked for: {LOOKED}. Found: config.json. It has config.json but no "
            "weights. Save the model into it with save_pretrained, as model.safetensors. Pass the folder that holds "
            f"the checkpoints, or list them: --steps '20={tmp_path}/my-model'."
        )

    def test_steps_that_were_rotated_away_or_never_saved(self, tmp_path):
        for name in ("checkpoint-20", "tmp-checkpoint-40", "global_step_60"):
            (tmp_path / name).mkdir()
        write(tmp_path / "global_step_60", {"data.pt": ""})
        (tmp_path / "checkpoint-60").symlink_to("checkpoint-60")
        assert refusal(tmp_path)[1] == (
            f"No checkpoint found in {tmp_path}. Looked for: {LOOKED}. Found: checkpoint-20, checkpoint-60, "
            "global_step_60, tmp-checkpoint-40. Nothing to load in: global_step_60 (only data.pt), checkpoint-20 "
            "(empty), checkpoint-60 (a link to nothing), tmp-checkpoint-40 (an unfinished save). Saving was off "
            "(save_freq=-1 in verl), or rotation took them away. Pass the folder that holds the checkpoints, or list "
            f"them: --steps '20={tmp_path}/my-model'."
        )

    def test_a_layout_that_finds_nothing_looks_for_itself_alone_and_offers_the_models_there_are(self, tmp_path):
        trainer_run(tmp_path, steps=(20, 40))
        assert refusal(tmp_path, layout="torchtune")[1] == (
            f"No checkpoint found in {tmp_path} with --layout torchtune. Looked for: epoch_N. Found: checkpoint-20, "
            "checkpoint-40. Pass the folder that holds the checkpoints, or list them: --steps "
            f"'STEP={tmp_path}/checkpoint-20,STEP={tmp_path}/checkpoint-40'."
        )

    def test_a_run_below_that_has_a_manifest_must_be_passed_itself(self, tmp_path):
        write(trainer_run(tmp_path / "run"), {"opd-diag.toml": ""})
        assert refusal(tmp_path) == (
            "NO_CHECKPOINTS",
            f"{tmp_path} is no run, but a folder in it is one: pass {tmp_path}/run.",
        )


def test_several_runs_with_their_steps_and_days(tmp_path):
    trainer_run(tmp_path / "a", steps=(20, 100))
    trainers.peft(tmp_path / "b", steps=(7,))
    write(tmp_path / "c", {"opd-diag.toml": ""})
    trainer_run(tmp_path / ".hidden")
    for folder in (tmp_path / "a" / "checkpoint-100", tmp_path / "b" / "checkpoint-7"):
        os.utime(folder, (1_785_672_000, 1_785_672_000))  # noon of 2 August 2026, UTC
    assert refusal(tmp_path) == (
        "MULTIPLE_RUNS",
        f"{tmp_path} holds 3 runs: pass one of {tmp_path}/a (2 checkpoints, steps 20 to 100, 2026-08-02), {tmp_path}/b "
        f"(1 checkpoint, step 7, 2026-08-02), {tmp_path}/c.",
    )


def test_many_runs_are_counted(tmp_path):
    for i in range(13):
        trainer_run(tmp_path / f"v{i:02d}", steps=(1,))
    assert refusal(tmp_path)[1].endswith(" and 3 more.")


class TestAmbiguous:
    def test_two_trainers_in_one_folder(self, tmp_path):
        trainers.slime(trainer_run(tmp_path))
        text = (
            f"{tmp_path} can be read in 2 ways: hf_trainer (3 checkpoints), megatron (2 checkpoints). Say which is "
            "meant: --layout hf_trainer or --layout megatron."
        )
        assert refusal(tmp_path) == ("AMBIGUOUS_LAYOUT", text)
        assert [c.step for c in find_run(tmp_path, layout="megatron").checkpoints] == [20, 40]

    def test_an_actor_and_a_policy_in_one_step(self, tmp_path):
        trainers.verl_fsdp(tmp_path, steps=(20,))
        trainers.rank_files(tmp_path / "global_step_20" / "policy")
        write(tmp_path / "global_step_20", {"trainer_state.pt": b"x"})
        assert refusal(tmp_path)[1] == (
            f"{tmp_path} can be read in 2 ways: verl_fsdp (1 checkpoint), skyrl (1 checkpoint). Say which is meant: "
            "--layout verl_fsdp or --layout skyrl."
        )

    def test_a_stray_folder_is_no_second_reading(self, tmp_path):
        trainers.slime_legacy(trainer_run(tmp_path))
        assert find_run(tmp_path).layout == "hf_trainer"


class TestSteps:
    @pytest.mark.parametrize("name", ["checkpoint-07", "listed"])
    def test_one_twice(self, tmp_path, name):
        folders = [full_model(tmp_path / name) for name in ("checkpoint-07", "checkpoint-7")]
        options = {} if name != "listed" else {"manifest": Manifest(None, {}, tuple((7, f) for f in folders))}
        assert refusal(tmp_path, **options) == (
            "DUPLICATE_STEP",
            f"Expected one checkpoint for each step, found step 7 more than once: {tmp_path}/checkpoint-07, "
            f"{tmp_path}/checkpoint-7. Remove one, or list those you mean: --steps '7={tmp_path}/checkpoint-07'.",
        )

    def test_a_link_to_the_same_folder_is_no_second_one(self, tmp_path):
        full_model(tmp_path / "checkpoint-7")
        (tmp_path / "checkpoint-07").symlink_to("checkpoint-7")
        assert [c.path.name for c in find_run(tmp_path).checkpoints] == ["checkpoint-7"]

    @pytest.mark.parametrize("steps", ["20", "20=", "=a", "x=a", "-1=a", "20=a,b", ["20=a", ""]])
    def test_a_list_that_is_none(self, tmp_path, steps):
        wrong = next(e for e in (steps.split(",") if isinstance(steps, str) else steps) if e != "20=a")
        assert refusal(tmp_path, steps=steps) == (
            None,
            f"Expected --steps as STEP=FOLDER, separated by commas, found '{wrong}'. Write --steps '20=run/a,40=run/b'"
            "; folders with a comma in their names can stand in opd-diag.toml, as [[checkpoints]].",
        )

    def test_a_list_and_a_layout(self, tmp_path):
        text = "Expected --steps, which lists checkpoints, or --layout, which finds them; found both."
        assert refusal(tmp_path, steps="20=a", layout="single") == (None, text)

    def test_a_base_that_is_none(self, tmp_path):
        assert refusal(tmp_path, step_base=2) == (None, "Expected --step-base 0 or 1, found 2.")


def test_an_unknown_layout_lists_them_all(tmp_path):
    _, text = refusal(tmp_path, layout="verl")
    assert text.startswith(
        "Expected --layout as one of manifest, tinker, verl_megatron_v2, verl_megatron_v1, verl_fsdp, "
    )
    assert text.endswith(", megatron, torchtune, generic_hf, single, found 'verl'.")


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    def refusing(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refusing)
    assert refusal(tmp_path) == ("UNREADABLE", f"{tmp_path} cannot be read: Permission denied. Check its permissions.")
