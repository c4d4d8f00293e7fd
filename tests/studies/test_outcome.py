"""The outcome of a run, from what a report left: the tiny run's rollouts, graded in ways whose answer is known."""

from __future__ import annotations

import math
import re
import shutil

import numpy as np
import pytest
import tiny_run as tiny

from opd_diag.errors import InputError, StoreError
from opd_diag.records.rollout import load_rollouts
from opd_diag.replay.finished import finished_rollouts
from opd_diag.studies import outcome

pytestmark = pytest.mark.usefixtures("module_without_pages")


@pytest.fixture(scope="module")
def out_dir(tiny_run, tmp_path_factory, module_without_pages):
    from opd_diag.diagnosis import carry_out, plan_report

    out = tmp_path_factory.mktemp("outcome") / "report"
    options = {"rollouts_per_prompt": 4, "max_new_tokens": 6, "states": ("on-policy", "teacher")}
    report = carry_out(plan_report(tiny_run.run_dir, out=out, **options), out=out)
    report.tables.summary.to_parquet(out / "summary.parquet")  # which the page's writer does
    return out


def always(right):
    """Grade every response alike."""
    return lambda text, answer: right


def plain(text):
    """Give a text without the special tokens of the tiny run."""
    for special in tiny.SPECIAL:
        text = text.replace(special, "")
    return text


class TestStudy:
    def test_everything_wrong_is_no_outcome_but_a_table(self, out_dir):
        study = outcome(out_dir, grader=always(False))
        assert study.name == "outcome"
        assert study.subject == "report"
        attempts = study.tables["attempts"]
        steps = [f"step {step}" for step in (0, *tiny.STEPS)]
        assert list(dict.fromkeys(attempts["label"])) == [*steps, "teacher"]
        assert set(attempts["n_rollouts"]) == {4}
        assert attempts["n_correct"].sum() == 0
        assert set(study.tables["items"]["outcome"]) == {"unsolved"}
        assert study.tables["pass_at_k"]["k"].drop_duplicates().tolist() == [1, 2, 4]
        assert {v.name for v in study.verdicts} == {"pass_at_k", "forgetting", "gap_recovery"}

    def test_a_grader_sees_text_without_special_tokens_and_the_answer(self, out_dir):
        seen = []
        outcome(out_dir, grader=lambda text, answer: seen.append((text, answer)) or True)
        rollouts = [r for of in finished_rollouts(out_dir).values() for r in of]
        assert any(special in r.response_text for r in rollouts for special in tiny.SPECIAL)
        assert seen == [(plain(r.response_text), r.answer) for r in rollouts]

    def test_the_last_solves_what_the_first_does_not(self, out_dir):
        firsts = {plain(r.response_text) for r in load_rollouts(out_dir / "rollouts" / "step-000000.jsonl")}
        items = outcome(out_dir, grader=lambda text, answer: text not in firsts).tables["items"]
        assert (items["first_correct"] == 0).all()
        assert (items["last_correct"] > 0).any()
        assert set(items["outcome"]) <= {"solved", "unsolved"}

    def test_what_is_forgotten_is_given_to_be_read(self, out_dir):
        firsts = {plain(r.response_text) for r in load_rollouts(out_dir / "rollouts" / "step-000000.jsonl")}
        lasts = load_rollouts(out_dir / "rollouts" / "step-000030.jsonl")
        right = firsts | {plain(r.response_text) for r in lasts if r.prompt_index < 2}
        study = outcome(out_dir, grader=lambda text, answer: text in right)
        items = study.tables["items"]
        lost = items[items["outcome"] == "forgotten"].sort_values("last_correct", kind="stable")
        assert 0 < len(lost) < len(items)
        assert [of["step 0"].prompt_index for of in study.excerpts] == lost["prompt_index"].tolist()[:5]
        for of in study.excerpts:
            before, after = of.values()
            assert list(of) == ["step 0", "step 30"]
            assert (before.is_correct, after.is_correct) == (True, False)
            assert before.prompt_index == after.prompt_index
            assert plain(after.response_text) not in right

    def test_nothing_to_read_where_nothing_fell(self, out_dir):
        assert outcome(out_dir, grader=always(True)).excerpts == []

    def test_pictures_are_drawn_from_its_tables(self, out_dir):
        study = outcome(out_dir, grader=always(True))
        assert [line.get_label() for line in study.pictures[0].draw().lines] == ["step 0", "step 30", "teacher"]
        assert (
            study.pictures[0].reading
            == "From one try to 4: step 0 1.00 → 1.00, step 30 1.00 → 1.00, teacher 1.00 → 1.00."
        )
        assert sum(p.get_width() for p in study.pictures[1].draw().patches) == len(study.tables["items"])


class TestRefusals:
    def test_no_report(self, tmp_path):
        with pytest.raises(StoreError) as error:
            outcome(tmp_path)
        assert str(error.value) == (
            f"{tmp_path} holds no finished report: there is no summary.parquet. Run opd-diag report first."
        )

    def test_nothing_can_be_graded(self, out_dir):
        with pytest.raises(InputError) as error:
            outcome(out_dir, grader=always(None))
        assert str(error.value) == (
            f"No response in {out_dir} can be graded: its prompts have no reference answers. Give 'answer' in the "
            "prompts file and report again, or name a grader."
        )

    def test_one_checkpoint(self, out_dir, tmp_path):
        alone = tmp_path / "alone"
        shutil.copytree(out_dir, alone)
        for step in tiny.STEPS:
            (alone / "rollouts" / f"step-{step:06d}.jsonl").unlink()
        with pytest.raises(InputError) as error:
            outcome(alone, grader=always(True))
        assert str(error.value) == (
            f"{alone} has responses of step 0 alone: an outcome needs a first and a last checkpoint. Report with "
            "--student, the initial student."
        )

    @pytest.mark.parametrize("given", ["yes", 0.5, 2, -1, math.nan, np.float64(0.3), [True]])
    def test_a_grader_that_gives_something_else(self, out_dir, given):
        said = re.escape(f"The grader must give True, False or None, found {given!r} for ")
        with pytest.raises(InputError, match=said):
            outcome(out_dir, grader=always(given))

    @pytest.mark.parametrize("given", [1, 1.0, np.True_, np.int64(1), np.float32(1)])
    def test_one_and_numpys_true_are_true(self, out_dir, given):
        attempts = outcome(out_dir, grader=always(given)).tables["attempts"]
        assert (attempts["n_correct"] == attempts["n_rollouts"]).all()

    def test_a_grader_that_fails(self, out_dir):
        first = load_rollouts(out_dir / "rollouts" / "step-000000.jsonl")[0]
        with pytest.raises(InputError) as error:
            outcome(out_dir, grader=lambda text, answer: 1 / 0)
        assert str(error.value) == (
            f"The grader failed on response {first.name} of step 0: ZeroDivisionError: division by zero. It must take "
            "any text, and an answer that may be None."
        )
        assert isinstance(error.value.__cause__, ZeroDivisionError)

    def test_a_threshold_that_does_not_exist(self, out_dir):
        with pytest.raises(InputError, match="pass_at_kk"):
            outcome(out_dir, grader=always(True), thresholds={"pass_at_kk": 0.1})
