"""What a user lists, model folders side by side and one model: steps from names where they tell, else their order."""

import pytest

from opd_diag.runs.layouts.generic import generic_hf, listed, natural, single, step_numbers
from opd_diag.runs.layouts.run import Run

from ..folders import full_model, trainer_run, write
from ..trainers import rank_files, side_by_side
from .reading import rows, state


class TestListed:
    def test_steps_paths_and_a_missing_folder(self, tmp_path):
        full_model(tmp_path / "a")
        found = listed(Run(tmp_path, listed=((40, tmp_path / "gone"), (20, tmp_path / "a"))))
        assert [(c.step, c.label, c.loadable, c.complete) for c in found] == [
            (20, "step 20", True, None),
            (40, "step 40", False, None),
        ]
        assert found[1].blocker == f"Expected a model folder, but {tmp_path / 'gone'} does not exist."

    def test_tokenizer_of_the_run_serves_all(self, tmp_path):
        full_model(tmp_path / "a")
        write(tmp_path, {"tokenizer.json": "{}"})
        assert listed(Run(tmp_path, listed=((1, tmp_path / "a"),)))[0].tokenizer == str(tmp_path)


class TestSideBySide:
    def test_the_number_that_differs_is_the_step(self, tmp_path):
        assert rows(generic_hf, side_by_side(tmp_path, ("iter_100", "iter_20", "best"))) == [
            ("step 20", 20, "full", "iter_20", None),
            ("step 100", 100, "full", "iter_100", None),
            ("best", None, "full", "best", None),
        ]

    def test_without_one_names_order_them(self, tmp_path):
        names = ("v2-b", "v10-a", "v2-a", "v10-b")
        assert [row[0] for row in rows(generic_hf, side_by_side(tmp_path, names))] == ["v2-a", "v2-b", "v10-a", "v10-b"]

    def test_names_in_any_script(self, tmp_path):
        names = ("шаг-２０", "ステップ 3", "خطوة-10", "خطوة-9", "a\u202eb", "új [red]")
        found = rows(generic_hf, side_by_side(tmp_path, names))
        assert {row[3] for row in found} == set(names)
        assert [row[:2] for row in found[:2]] == [("step 9", 9), ("step 10", 10)]

    def test_a_link_to_one_of_them_is_no_checkpoint_of_its_own(self, tmp_path):
        side_by_side(tmp_path)
        (tmp_path / "latest").symlink_to("iter_100")
        full_model(tmp_path.parent / "elsewhere")
        (tmp_path / "iter_200").symlink_to(tmp_path.parent / "elsewhere")
        assert [row[0] for row in rows(generic_hf, tmp_path)] == ["step 20", "step 100", "step 200"]

    def test_a_model_in_the_folder_itself_is_the_final_one_of_at_least_two_steps(self, tmp_path):
        full_model(side_by_side(tmp_path))
        assert rows(generic_hf, tmp_path)[2] == ("final", None, "full", ".", None)

    def test_a_model_with_others_in_its_folders_is_one_model(self, tmp_path):
        full_model(side_by_side(tmp_path, ("reference", "value")))
        assert rows(generic_hf, tmp_path) == []

    def test_hidden_and_temporary_folders_are_left_out(self, tmp_path):
        side_by_side(tmp_path, (".iter_1", "tmp_iter_2", "iter_3"))
        assert [row[3] for row in rows(generic_hf, tmp_path)] == ["iter_3"]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["a-1", "a-2"], [1, 2]),
        (["ckpt20.hf", "ckpt3.hf"], [20, 3]),
        (["run2-step-5", "run2-step-10"], [5, 10]),
        (["a-07", "a-7"], [None, None]),
        (["only-3"], [None]),
        (["a-" + "9" * 16, "a-1"], [None, None]),
        (["v1.5", "v2.0"], [None, None]),
        (["model-7B-step1", "model-7B-step2"], [1, 2]),
        (["a-1", "b-2", "c-3"], [None, None, None]),
        (["e1-s1", "e1-s2", "e2-s1"], [None, None, None]),
        ([], []),
    ],
)
def test_step_numbers(names, steps):
    found = step_numbers(names)
    assert [found.get(name) for name in names] == steps


def test_natural_order():
    assert sorted(["b10", "b9", "a100", "b", "10", "9"], key=natural) == ["9", "10", "a100", "b", "b9", "b10"]


class TestSingle:
    def test_label_is_the_name_when_no_step_is_known(self, tmp_path):
        (found,) = single(Run(full_model(tmp_path / "my-model")))
        assert (found.step, found.label, found.path, found.note) == (None, "my-model", tmp_path / "my-model", None)

    def test_the_working_directory_has_a_name_too(self, tmp_path, monkeypatch):
        monkeypatch.chdir(full_model(tmp_path / "my-model"))
        assert single(Run(type(tmp_path)(".")))[0].label == "my-model"

    def test_step_from_trainer_state_then_from_the_name(self, tmp_path):
        folder = full_model(tmp_path / "checkpoint-30")
        (found,) = single(Run(folder))
        assert (found.step, found.label, found.note) == (30, "step 30", None)
        (found,) = single(Run(write(folder, state(global_step=31))))
        assert (found.step, found.label) == (31, "step 31")

    def test_shards_alone_are_a_model_too(self, tmp_path):
        write(rank_files(tmp_path) / "huggingface", {"config.json": "{}", "tokenizer.json": "{}"})
        (found,) = single(Run(tmp_path))
        assert (found.kind, found.loadable, found.tokenizer) == ("fsdp", True, str(tmp_path / "huggingface"))

    def test_a_run_is_no_model(self, tmp_path):
        assert single(Run(trainer_run(tmp_path))) == []
