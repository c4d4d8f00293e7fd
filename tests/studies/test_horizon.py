"""The study of depth on the tiny run, end to end; its answers have tests of their own among the rules."""

from __future__ import annotations

import json

import pytest
import tiny_run as tiny

from opd_diag.errors import InputError
from opd_diag.report.study import write_study
from opd_diag.studies import horizon
from opd_diag.studies.horizon import Depths

OPTIONS = {"states": "on-policy,teacher", "checkpoints": "30"}


def even(text, answer):
    """Grade by the length of what stands there."""
    return len(text) % 2 == 0


@pytest.fixture(scope="module")
def out(tiny_run, tmp_path_factory):
    return tmp_path_factory.mktemp("horizon") / "out"


@pytest.fixture(scope="module")
def study(tiny_run, out):
    return horizon(tiny_run.run_dir, out=out, grader=even, continuations=1, cohort_length=8, **OPTIONS)


class TestStudy:
    def test_three_answers_and_their_tables(self, study):
        assert [v.name for v in study.verdicts] == ["depth_signal", "instability", "continuation_advantage"]
        assert list(study.tables) == ["cohort", "survivors", "excess", "entropies", "continuations"]
        assert (study.name, study.subject) == ("horizon", "run")

    def test_the_cohort_is_of_the_length_asked_for(self, study):
        cohort = study.tables["cohort"]
        assert cohort["depth_high"].max() == 8
        for _, rows in cohort.groupby(["label", "states"]):
            assert rows["n_rollouts"].nunique() == 1

    def test_prefixes_of_every_kind_were_continued_and_graded(self, study):
        table = study.tables["continuations"]
        assert {"none", "student", "teacher", "filler"} <= set(table["prefix"])
        assert set(table["depth"]) == {0, 1, 3, 4, 5, 7}
        own = table[(table["prefix"] == "student") & (table["metric"] == "student_accuracy")]
        assert own["value"].between(0, 1).all()
        assert own["answered"].between(0, 1).all()

    def test_its_page(self, study, tmp_path):
        page = write_study(study, tmp_path)
        text = page.read_text(encoding="utf-8")
        assert "Suggested maximum length of responses" in text
        assert text.count("<figure") == 5
        record = json.loads((tmp_path / "horizon.json").read_text(encoding="utf-8"))
        assert record["headline"] == study.headline

    def test_what_was_made_is_found_again(self, study, tiny_run, out):
        told = []
        again = horizon(
            tiny_run.run_dir, out=out, grader=even, continuations=1, cohort_length=8,
            progress=lambda *of: told.append(of), **OPTIONS,
        )  # fmt: skip
        assert told == []
        assert again.headline == study.headline
        assert again.tables["continuations"].equals(study.tables["continuations"])

    def test_a_grader_is_asked_once_of_each_text_and_answer(self, study, tiny_run, out):
        seen = []
        horizon(
            tiny_run.run_dir, out=out, grader=lambda *of: bool(seen.append(of)), continuations=1, cohort_length=8,
            **OPTIONS,
        )  # fmt: skip
        rows = study.tables["continuations"].query(
            "metric == 'continuation_advantage' and not prefix.str.contains(',')"
        )
        assert 100 < len(seen) <= rows["n_rollouts"].sum() + rows["n_prefixes"].sum()  # wholes, and prefixes alone
        assert {answer for _, answer in seen} == {str(2 * i) for i in range(tiny.N_PROMPTS)}

    def test_a_report_finds_what_it_made_too(self, study, tiny_run, out, monkeypatch):
        from opd_diag.replay.measured import replay
        from opd_diag.replay.planning import plan_run
        from opd_diag.replay.store import open_store

        plan = plan_run(tiny_run.run_dir, out=out, **OPTIONS)
        monkeypatch.setattr("opd_diag.replay.sampled.sample_rollouts", None)
        monkeypatch.setattr("opd_diag.replay.parts.score", None)
        with open_store(out, plan.run_dir) as store:
            assert replay(plan, store).checkpoints[-1].step == 30


def run(tiny_run, out, **options):
    return horizon(tiny_run.run_dir, out=out, **{**OPTIONS, "continuations": 0, **options})


class TestWhatIsMissing:
    def test_without_answers_the_rest_goes_on(self, own_run, tmp_path):
        lines = [json.loads(line) for line in own_run.prompts.read_text().splitlines()]
        own_run.prompts.write_text("".join(json.dumps({**of, "answer": None}) + "\n" for of in lines))
        study = horizon(own_run.run_dir, out=tmp_path / "out", **OPTIONS)
        assert study.verdicts[2].evidence == (
            "The prompts have no reference answers, so no continuation can be graded."
        )
        assert study.tables["continuations"].empty
        assert len(study.tables["cohort"])
        assert study.pictures[-1].draw().texts[0].get_text() == "nothing was continued that could be\ngraded"

    def test_continuations_left_out(self, tiny_run, out, study):
        found = run(tiny_run, out)
        assert found.verdicts[2].evidence == "Continuations were left out."
        assert len(found.shown) == 1

    def test_without_the_teachers_responses(self, tiny_run, out, study):
        found = run(tiny_run, out, states="on-policy", continuations=1)
        assert found.verdicts[0].status == "unknown"
        assert found.verdicts[0].evidence.startswith("0 prompts have responses of ")
        assert found.verdicts[2].evidence == "The on-policy and the teacher states are not both scored."

    def test_too_few_prompts_say_how_many(self, tiny_run, tmp_path):
        found = run(tiny_run, tmp_path / "out", max_prompts=2, continuations=1, depths=(2,))
        assert [v.status for v in found.verdicts] == ["unknown"] * 3
        assert found.verdicts[2].evidence == (
            "Too few prompts: 2 prompts have responses of step 30 beyond 2 tokens; 5 are needed."
        )
        assert found.headline.startswith("Not known yet: no limit is seen in the first ")

    def test_all_responses_cut(self, tiny_run, tmp_path):
        found = run(tiny_run, tmp_path / "out", max_new_tokens=2)
        cut = next(line for line in found.measured if "were cut" in line)
        assert cut == "All of the 16 responses of step 30 were cut at 2 tokens, so that what comes after is not seen."
        assert "in the first 2 tokens, at which every response was cut" in found.headline

    def test_one_checkpoint_and_no_step_0(self, own_run, tmp_path):
        tiny.write_manifest(own_run, student="")
        found = run(own_run, tmp_path / "out")
        assert "There is one checkpoint, so nothing is said of the course of training." in found.measured
        assert "Step 0 is not known; step 30 stands for the start. Name it with --student." in found.measured
        assert found.verdicts[1].evidence == "There is one checkpoint, so nothing can be compared."


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"depths": (4, 10)},
                "Option depths: 10 leaves no room to go on, as responses end at --max-new-tokens 10. Name smaller "
                "ones, or raise it as far as the context of both models allows.",
            ),
            (
                {"cohort_length": 11},
                "Option cohort_length: 11 is more than --max-new-tokens 10, so no response reaches it. Name a smaller "
                "one, or raise that as far as the context of both models allows.",
            ),
            (
                {"states": "teacher"},
                "Depth is told on each checkpoint's own states, and they are not scored. Name on-policy in --states.",
            ),
        ],
    )
    def test_what_cannot_be(self, tiny_run, tmp_path, options, message):
        with pytest.raises(InputError) as error:
            run(tiny_run, tmp_path / "out", **options)
        assert str(error.value) == message
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"length": 2}, "Option cohort_length must be at least 3, found 2."),
            ({"depths": (0, 4)}, "Option depths must be at least 1, found 0."),
            ({"continuations": -1}, "Option continuations must be 0 or more, found -1."),
            ({"prompts": 0}, "Option continuation_prompts must be at least 1, found 0."),
        ],
    )
    def test_numbers_out_of_range(self, options, message):
        with pytest.raises(InputError) as error:
            Depths(**options)
        assert str(error.value) == message

    def test_depth_beyond_the_context(self, tiny_run, tmp_path):
        with pytest.raises(InputError) as error:
            run(tiny_run, tmp_path / "out", max_new_tokens=500, depths=(400,))
        assert f"that exceeds the {tiny.CONTEXT} tokens" in str(error.value)
