"""A cold start end to end: the tiny run, whose teacher writes bytes that are no text, and bundled pairs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_run as tiny

from opd_diag.errors import InputError, StoreError, TokenizerMismatchError
from opd_diag.records.rollout import load_rollouts
from opd_diag.servers import About
from opd_diag.studies import cold_start
from opd_diag.studies.cold_start import _headline

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def made(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("cold") / "out"
    before = {of: tiny.listing(of) for of in (tiny_run.student, tiny_run.teacher, tiny_run.run_dir)}
    study = cold_start(
        tiny_run.student,
        tiny_run.teacher,
        tiny_run.prompts,
        after=tiny_run.checkpoint(30),
        out=out,
        max_new_tokens=6,
    )
    assert before == {of: tiny.listing(of) for of in before}  # nothing is written to models or runs
    return study, out


def status(study):
    return {verdict.name: verdict.status for verdict in study.verdicts}


class TestEffect:
    def test_nearer_to_its_teacher_by_construction(self, made):
        """The student after it lies 95 % of the way from the student to the teacher."""
        study, _ = made
        assert status(study)["cold_start_effect"] == "pass"
        distance = study.tables["distance"]
        whole = distance[distance["part"] == "whole"].set_index("label")["value"]
        assert list(whole.index) == ["step 0", "cold start"]
        assert whole["cold start"] < 0.2 * whole["step 0"]
        closed = 1 - whole["cold start"] / whole["step 0"]
        assert f"{closed:.2f}"[:3] in study.verdicts[0].evidence

    def test_the_distance_is_the_summarys_forward_kl(self, made):
        study, _ = made
        summary = study.tables["summary"]
        rows = summary[(summary["metric"] == "forward_kl") & (summary["states"] == "teacher")]
        distance = study.tables["distance"]
        whole = distance[distance["part"] == "whole"]
        for column in ("value", "ci_low", "ci_high", "n_states", "n_prompts"):
            assert whole[column].tolist() == pytest.approx(rows[column].tolist())

    def test_a_response_has_its_own_sum(self, made):
        study, out = made
        rollouts = load_rollouts(out / "replay" / "rollouts" / "teacher.jsonl")
        whole = study.tables["distance"].iloc[0]
        mean_length = sum(len(r.response_ids) for r in rollouts) / len(rollouts)
        assert whole["per_response"] == pytest.approx(whole["value"] * mean_length)

    def test_what_it_asks(self, made):
        study, _ = made
        names = ["cold_start_effect", "cold_start_needed", "accuracy", "degeneration", "forgetting", "sft_data"]
        assert [v.name for v in study.verdicts][:6] == names
        assert study.question == "What did the cold start do?"
        assert study.subject == "student ← teacher"
        assert "at cold start" in study.verdicts[1].evidence

    def test_pictures_and_tables_to_read(self, made):
        study, _ = made
        assert [p.name for p in study.pictures] == ["shared_mass", "distance", "distance_by_depth", "concentration"]
        for picture in study.pictures:
            assert picture.draw().lines or picture.name == "distance"
            assert picture.reading.endswith(".")
        assert [len(set(map(len, (t.columns, *t.rows)))) for t in study.shown] == [1] * len(study.shown)
        assert [list(of) for of in study.excerpts] == [["step 0", "cold start", "teacher"]] * 3


class TestNothingToTeach:
    def test_it_is_said_and_nothing_is_written(self, made):
        study, out = made
        data = study.tables["sft_responses"]
        assert not data["kept"].any()
        [verdict] = [v for v in study.verdicts if v.name == "sft_data"]
        counts = data["reason"].value_counts()
        assert verdict.status == "fail"
        assert verdict.evidence.startswith("Of 16 teacher responses none can be taught: ")
        assert f"{counts['truncated']} truncated" in verdict.evidence
        assert verdict.evidence.endswith("; nothing was written.")
        assert not (out / "sft").exists()
        assert any("no file: none can be taught" in line for line in study.measured)

    def test_it_is_in_the_headline_where_data_would_be_needed(self, tiny_run, made, tmp_path):
        study = cold_start(tiny_run.student, tiny_run.teacher, tiny_run.prompts, out=tmp_path / "o", max_new_tokens=3)
        assert study.headline == "This pair needs a cold start, and the teacher's responses give no data for it"
        assert study.question == "Does this pair need a cold start?"
        assert list(status(study))[:2] == ["cold_start_needed", "sft_data"]


def test_it_goes_on_where_it_was(tiny_run, made):
    """A second call samples and scores nothing."""
    first, out = made
    before = tiny.listing(out / "replay" / "scores")
    again = cold_start(
        tiny_run.student, tiny_run.teacher, tiny_run.prompts, after=tiny_run.checkpoint(30), out=out, max_new_tokens=6
    )
    assert tiny.listing(out / "replay" / "scores") == before
    assert [v.evidence for v in again.verdicts] == [v.evidence for v in first.verdicts]


@pytest.mark.parametrize(
    ("statuses", "headline"),
    [
        ({"cold_start_needed": "warn"}, "This pair needs a cold start"),
        ({"cold_start_needed": "pass", "sft_data": "fail"}, "No cold start is needed"),
        (
            {"cold_start_needed": "unknown", "sft_data": "fail"},
            "Whether a cold start is needed is not established, and the teacher's responses give no data for it",
        ),
        (
            {"cold_start_effect": "pass", "cold_start_needed": "pass"},
            "The cold start brought the student nearer to its teacher, and both now think alike",
        ),
        (
            {"cold_start_effect": "pass", "cold_start_needed": "warn"},
            "The cold start brought the student nearer to its teacher, and they are still far apart",
        ),
        (
            {"cold_start_effect": "pass", "cold_start_needed": "pass", "accuracy": "fail"},
            "The cold start brought the student nearer to its teacher, and the student lost something by it",
        ),
        ({"cold_start_effect": "warn", "cold_start_needed": "warn"}, "The cold start did little, or came at a price"),
        (
            {"cold_start_effect": "fail", "cold_start_needed": "warn", "degeneration": "fail"},
            "The cold start took the student further from its teacher, and the student lost something by it",
        ),
        ({"cold_start_effect": "unknown", "cold_start_needed": "pass"}, "What the cold start did is not established"),
    ],
)
def test_the_answer_in_one_line(statuses, headline):
    verdicts = [SimpleNamespace(name=name, status=of) for name, of in ({"sft_data": "pass"} | statuses).items()]
    assert _headline(verdicts) == headline


class TestRefusals:
    def ask(self, run, tmp_path, **changes):
        named = {"student": run.student, "teacher": run.teacher, "prompts": run.prompts} | changes
        with pytest.raises((InputError, TokenizerMismatchError)) as error:
            cold_start(**named, out=tmp_path / "out", max_new_tokens=4)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    def test_a_teacher_that_is_the_student(self, own_run, tmp_path):
        copied = own_run.copied_to(tmp_path / "copy").student
        assert self.ask(own_run, tmp_path, teacher=copied) == (
            f"Student {own_run.student} and teacher {copied} are the same weights, so there is nothing to teach. Name "
            "another model with --teacher."
        )

    def test_a_teacher_in_vllm_that_is_the_student(self, own_run, tmp_path, monkeypatch):
        about = About("vllm", "0.32.0", "copy", "copy", 512, None, True, None, True, vocab_size=300)
        server = SimpleNamespace(about=about, text=lambda ids: None)
        monkeypatch.setattr("opd_diag.replay.served.connect", lambda address, **how: server)
        copied = own_run.copied_to(tmp_path / "copy").student
        assert self.ask(own_run, tmp_path, teacher=f"vllm={copied}").startswith(
            f"Student {own_run.student} and teacher copy are the same weights, so there is nothing to teach."
        )

    def test_a_student_that_was_not_trained(self, own_run, tmp_path):
        assert self.ask(own_run, tmp_path, after=own_run.student) == (
            f"The student after the cold start, {own_run.student}, has the weights of the student before it, "
            f"{own_run.student}. Name the trained one with --after."
        )

    def test_a_student_of_another_shape(self, own_run, tmp_path):
        other = tmp_path / "wide"
        tiny.save(tiny.model(seed=3, width=48), other, tiny.byte_tokenizer())
        said = self.ask(own_run, tmp_path, after=other)
        assert said.startswith(f"The student (step 0) {own_run.student} cannot be what cold start was trained from: ")
        assert said.endswith("Name the model that the training started from with --student.")

    def test_another_tokenizer(self, own_run, tmp_path):
        swapped = ("<pad>", "<end>", "<system>", "<assistant>", "<user>")
        tiny.byte_tokenizer(swapped).save_pretrained(own_run.teacher)
        said = self.ask(own_run, tmp_path)
        assert said.startswith("Student and teacher read 2 of the ids that occur differently: 259 is '<user>' for the ")
        assert said.endswith("Use a teacher with the student's tokenizer.")

    @pytest.mark.parametrize("which", ["student", "teacher", "after"])
    def test_an_output_folder_inside_a_model(self, own_run, tmp_path, which):
        models = {"student": own_run.student, "teacher": own_run.teacher, "after": own_run.checkpoint(30)}
        before = tiny.listing(models[which])
        out = models[which] / "out"
        with pytest.raises(StoreError) as error:
            cold_start(**models, prompts=own_run.prompts, out=out, max_new_tokens=3)
        assert str(error.value) == (
            f"The output folder {out} lies inside the model folder {models[which]}, which opd-diag never writes to. "
            "Choose another with --out."
        )
        assert tiny.listing(models[which]) == before

    def test_data_of_others_where_the_data_would_go(self, own_run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        info = tmp_path / "sft" / "dataset_info.json"
        info.parent.mkdir()
        info.write_text('{"mine": {}}')
        before = {path.name for path in tmp_path.iterdir()}
        with pytest.raises(StoreError) as error:
            cold_start(own_run.student, own_run.teacher, own_run.prompts, out=".", max_new_tokens=3)
        assert str(error.value) == (
            "sft was not made by opd-diag, and the data would go there. Choose another folder with --out."
        )
        assert info.read_text() == '{"mine": {}}'
        assert {path.name for path in tmp_path.iterdir()} == before

    def test_no_such_model(self, own_run, tmp_path):
        missing = tmp_path / "none"
        assert self.ask(own_run, tmp_path, after=missing) == (
            f"Model {missing} (cold start): expected a model folder or hub id. Correct its name."
        )

    def test_a_student_that_gives_no_numbers(self, own_run, tmp_path):
        tiny.fill_with_nan(own_run.checkpoint(30))
        named = {"after": own_run.checkpoint(30), "out": tmp_path / "out", "max_new_tokens": 3}
        with pytest.raises(InputError) as error:
            cold_start(own_run.student, own_run.teacher, own_run.prompts, **named)
        said = f"The student after the cold start, {own_run.checkpoint(30)}, cannot be asked. "
        assert str(error.value).startswith(said)
        assert "nan" in str(error.value).lower()
        assert not (tmp_path / "out" / "sft").exists()

    @pytest.mark.parametrize("name", ["states", "rollouts"])
    def test_options_that_mean_nothing_here(self, own_run, tmp_path, name):
        assert self.ask(own_run, tmp_path, **{name: "on-policy"}) == (
            f"Option {name} means nothing to a cold start: it scores on-policy, start, teacher, all sampled here."
        )

    def test_only_correct_ones_where_nothing_can_be_graded(self, own_run, tmp_path):
        own_run.prompts.write_text('{"prompt": "1 + 1 ="}\n')
        assert self.ask(own_run, tmp_path, only_correct=True) == (
            f"--only-correct needs reference answers, and {own_run.prompts} has none. Give 'answer' in it."
        )

    def test_no_responses(self, own_run, tmp_path):
        assert self.ask(own_run, tmp_path, responses=0) == "Option responses must be at least 1, found 0."

    def test_an_option_that_does_not_exist(self, own_run, tmp_path):
        assert self.ask(own_run, tmp_path, respones=3).startswith("unknown setting respones. Known: ")

    def test_a_threshold_that_does_not_exist(self, own_run, tmp_path):
        assert "there is no threshold 'mass'" in self.ask(own_run, tmp_path, thresholds={"mass": 0.5})


def test_too_few_prompts_say_how_many(tiny_run, tmp_path):
    options = {"max_prompts": 3, "max_new_tokens": 3}
    study = cold_start(tiny_run.student, tiny_run.teacher, tiny_run.prompts, out=tmp_path / "out", **options)
    assert study.verdicts[0].status == "unknown"
    assert study.verdicts[0].evidence == (
        "3 prompts are too few for an interval that means something; at least 5 are needed."
    )
    assert study.headline.startswith("Whether a cold start is needed is not established")


def test_a_teacher_with_another_template_is_said(own_run, tmp_path):
    other = tiny.byte_tokenizer(template=tiny.TEMPLATE.replace("<assistant>", "<assistant>>"))
    other.save_pretrained(own_run.teacher)
    study = cold_start(own_run.student, own_run.teacher, own_run.prompts, out=tmp_path / "out", max_new_tokens=3)
    assert any(line.startswith("The chat templates differ; ") for line in study.measured)
    assert status(study)["aligned_inputs"] == "warn"


def test_prompts_without_answers_are_not_filtered_for_rightness(own_run, tmp_path):
    lines = [json.loads(line) for line in own_run.prompts.read_text().splitlines()]
    own_run.prompts.write_text("".join(json.dumps({"prompt": line["prompt"]}) + "\n" for line in lines))
    study = cold_start(
        own_run.student,
        own_run.teacher,
        own_run.prompts,
        after=own_run.checkpoint(30),
        out=tmp_path / "out",
        max_new_tokens=3,
        max_prompts=5,
    )
    assert "Rightness is not filtered: the prompts have no reference answers." in study.cannot_tell
    assert "forgetting" not in status(study)
    assert status(study)["accuracy"] == "unknown"


@pytest.mark.slow
class TestBundled:
    """The bundled student is asked about teachers of whom it is known how they think."""

    def test_a_teacher_that_thinks_alike_needs_none(self, tmp_path):
        asked = DATA / "student", DATA / "teachers" / "new", DATA / "prompts.jsonl"
        study = cold_start(*asked, out=tmp_path / "out", max_prompts=12, max_new_tokens=64)
        assert status(study) == {"cold_start_needed": "pass", "sft_data": "pass"}
        assert study.headline == "No cold start is needed"

    def test_what_is_written_is_what_was_sampled(self, tmp_path):
        out = tmp_path / "out"
        study = cold_start(
            DATA / "student", DATA / "teachers" / "other", DATA / "prompts.jsonl", out=out, max_prompts=12,
            max_new_tokens=64, responses=40, only_correct=True, temperature=0.7, top_p=0.95,
        )  # fmt: skip
        assert status(study) == {"cold_start_needed": "warn", "sft_data": "pass"}
        data = study.tables["sft_responses"]
        assert len(data) == 40 == data["prompt_index"].nunique()
        assert set(data.loc[data["kept"], "taught"]) == {"as sampled"}
        assert data.loc[data["kept"], "stop_taught"].all()
        assert data.loc[data["kept"], "is_correct"].all()
        rows = [json.loads(line) for line in (out / "sft" / "trl.jsonl").read_text().splitlines()]
        assert len(rows) == data["kept"].sum() > 20
        assert len(json.loads((out / "sft" / "llama_factory.json").read_text())) == len(rows)
        rollouts = load_rollouts(out / "replay" / "rollouts" / "teacher-to-be-taught.jsonl")
        texts = [r.response_text.removesuffix("<|end|>") for r in rollouts]
        assert [row["completion"][0]["content"] for row in rows] == [
            text for text, kept in zip(texts, data["kept"], strict=True) if kept
        ]
        questions = [json.loads(line)["prompt"] for line in (DATA / "prompts.jsonl").read_text().splitlines()[12:52]]
        assert [row["prompt"] for row in rows] == [q for q, kept in zip(questions, data["kept"], strict=True) if kept]

    def test_a_run_that_went_over_is_nearer(self, tmp_path):
        study = cold_start(
            DATA / "student", DATA / "teachers" / "other", DATA / "prompts.jsonl", out=tmp_path / "out",
            after=DATA / "other" / "checkpoint-160", max_prompts=12, max_new_tokens=64,
        )  # fmt: skip
        assert status(study)["cold_start_effect"] == status(study)["cold_start_needed"] == "pass"
        assert study.headline.startswith("The cold start brought the student nearer to its teacher")
