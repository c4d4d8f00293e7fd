"""What all layouts share: step folders, the choice among places for weights, and what is passed over."""

import re

import pytest

from opd_diag.runs.layouts import LAYOUT_NAMES, LAYOUTS, TRAINERS
from opd_diag.runs.layouts.run import Run, checkpoint_at, first_names, skipped, student_in
from opd_diag.runs.weights import Weights

from ..folders import TENSORS, full_model, write
from ..trainers import distributed, rank_files

STEP = re.compile(r"step-(\d+)", re.ASCII)


def test_names_and_order_of_precedence():
    assert LAYOUT_NAMES == (
        "manifest",
        "tinker",
        "verl_megatron_v2",
        "verl_megatron_v1",
        "verl_fsdp",
        "skyrl",
        "skyrl_export",
        "verl_sft",
        "nemo_rl",
        "prime_rl",
        "openrlhf",
        "areal",
        "kdflow",
        "roll",
        "swift",
        "hf_trainer",
        "megatron",
        "torchtune",
        "generic_hf",
        "single",
    )
    assert [n.name for n in LAYOUTS if n not in TRAINERS] == ["manifest", "generic_hf", "single"]


@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUT_NAMES)
def test_every_layout_is_silent_about_a_folder_without_checkpoints(tmp_path, layout):
    write(tmp_path, {"config.json": "{}", "notes.txt": ""})
    write(tmp_path / "logs", {"a.log": ""})
    assert layout.find(Run(tmp_path)) == []


@pytest.mark.parametrize(
    ("base", "given", "expected"), [(1, None, 40), (0, None, 41), (1, 0, 41), (0, 1, 40), (1, 1, 40)]
)
def test_updates_that_were_finished(tmp_path, base, given, expected):
    assert Run(tmp_path, step_base=given).updates(40, base) == expected


def test_step_folders_are_those_with_something_in_them_by_number(tmp_path):
    for name in ("step-100", "step-20", "step-3"):
        write(tmp_path / name, {"x": ""})
    write(tmp_path / ("step-" + "9" * 16), {"x": ""})
    for name in ("step-40", "step-x", "step-٣", "tmp-step-50"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-80").write_text("a file")
    (tmp_path / "step-90").symlink_to("step-90")
    (tmp_path / "step-91").symlink_to("step-3")
    found = Run(tmp_path).step_folders(STEP)
    assert found == [(n, tmp_path / f"step-{n}") for n in (3, 20, 91, 100)]


def test_what_is_passed_over_is_named_with_the_reason(tmp_path):
    used = checkpoint_at(full_model(tmp_path / "step-20" / "inside"), Weights("full"), "step 20", 20)
    write(tmp_path / "step-30", {"data.pt": "", "b": "", "c": "", "d": ""})
    for name in ("step-40", "tmp-step-50", "tmp_step-51", "old_step-52", "step-53.tmp", ".tmp-step-54", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-60").write_text("")
    (tmp_path / "step-70").symlink_to("gone")
    assert skipped(Run(tmp_path), STEP, [used]) == [
        ".tmp-step-54 (an unfinished save)",
        "old_step-52 (an unfinished save)",
        "step-30 (only b, c, d and 1 more)",
        "step-40 (empty)",
        "step-53.tmp (an unfinished save)",
        "step-60 (a file)",
        "step-70 (a link to nothing)",
        "tmp-step-50 (an unfinished save)",
        "tmp_step-51 (an unfinished save)",
    ]


class TestStudentIn:
    def test_the_first_that_loads(self, tmp_path):
        places = [tmp_path / "gone", write(tmp_path / "bare", {"config.json": "{}"}), full_model(tmp_path / "a")]
        assert student_in(Run(tmp_path), [*places, full_model(tmp_path / "b")])[0] == tmp_path / "a"

    def test_a_better_place_that_cannot_be_used_is_said(self, tmp_path):
        full_model(tmp_path / "hf", **{"model.safetensors": TENSORS[:-1]})
        write(rank_files(tmp_path), {"config.json": "{}"})
        folder, weights = student_in(Run(tmp_path), [tmp_path / "hf", tmp_path])
        assert (folder, weights.kind, weights.blocker) == (tmp_path, "fsdp", None)
        size = len(TENSORS)
        assert weights.note == (
            f"hf beside it cannot be used: model.safetensors is truncated: expected {size} bytes, found {size - 1}."
        )

    def test_where_none_loads_the_one_with_weights_goes_before_the_one_with_a_config(self, tmp_path):
        write(tmp_path / "hf", {"config.json": "{}"})
        (distributed(tmp_path / "shards") / ".metadata").unlink()
        folder, weights = student_in(Run(tmp_path), [tmp_path / "hf", tmp_path / "shards"])
        assert (folder, weights.code) == (tmp_path / "shards", "INCOMPLETE_WEIGHTS")
        assert student_in(Run(tmp_path), [tmp_path / "gone"]) is None


class TestRecord:
    def test_without_any_weights(self, tmp_path):
        write(tmp_path, {"b": "", "a": ""})
        found = checkpoint_at(tmp_path, None, "step 1", 1, complete=True)
        assert (found.code, found.blocker) == ("NO_WEIGHTS", "It holds no Hugging Face weights; found a, b.")
        assert found.way_out == "Save the model into it with save_pretrained, or remove the folder."

    def test_the_step_stands_in_the_way_out(self, tmp_path):
        weights = Weights("other").blocked("NEEDS_MERGE", "x", "list it with --steps 'STEP=out'.")
        assert checkpoint_at(tmp_path, weights, "step 7", 7).way_out == "list it with --steps '7=out'."
        assert checkpoint_at(tmp_path, weights, "final", None).way_out == "list it with --steps 'STEP=out'."

    def test_an_incomplete_save_is_not_complete_whatever_marks_it(self, tmp_path):
        weights = Weights("full").blocked("INCOMPLETE_WEIGHTS", "x", "y")
        assert checkpoint_at(tmp_path, weights, "step 7", 7, complete=True).complete is False

    def test_tokenizer_of_the_folder_then_of_the_config_then_elsewhere(self, tmp_path):
        folders = [write(tmp_path / name, {}) for name in ("own", "config", "run")]
        weights = Weights("fsdp", config=folders[1])
        for folder in reversed(folders):
            write(folder, {"tokenizer.json": "{}"})
            found = checkpoint_at(folders[0], weights, "step 1", 1, tokenizers=[folders[2]])
            assert found.tokenizer == str(folder)
        hub = Weights("distributed", config=type(tmp_path)("org/model"))
        assert checkpoint_at(tmp_path, hub, "step 1", 1).tokenizer == "org/model"


def test_first_names(tmp_path):
    run = Run(tmp_path)
    write(tmp_path / "many", {f"file-{i:02d}": "" for i in range(13)})
    assert first_names(run.disk, tmp_path / "many").endswith("file-08, file-09 and 3 more")
    assert first_names(run.disk, tmp_path / "gone") == "nothing"
