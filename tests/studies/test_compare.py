"""Finished reports side by side: the tiny run against itself, against another teacher, against other prompts."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_run as tiny
from chromium import IN_A_BROWSER, WIDTHS, figures_out_of_sight, sideways, unfold
from model_server import ModelServer

from opd_diag.errors import InputError, StoreError
from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.report.study import write_study
from opd_diag.studies import compare
from opd_diag.tokenization import load_tokenizer

pytestmark = pytest.mark.usefixtures("module_without_pages")

OPTIONS = {"max_new_tokens": 6, "rollouts_per_prompt": 2}


def reported(run, out, **options):
    from opd_diag.diagnosis import carry_out, plan_report

    report = carry_out(plan_report(run.run_dir, out=out, **OPTIONS | options), out=out)
    report.tables.summary.to_parquet(out / "summary.parquet")  # which the page's writer does
    return out


@pytest.fixture(scope="module")
def reports(tiny_run, tmp_path_factory, module_without_pages):
    root = tmp_path_factory.mktemp("compare")
    tiny.save(tiny.model(seed=9), root / "stranger", tiny.byte_tokenizer())
    other = [
        json.loads(line) | {"prompt": f"other {i}"} for i, line in enumerate(tiny_run.prompts.read_text().splitlines())
    ]
    (root / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in other))
    return {
        "one": reported(tiny_run, root / "one"),
        "again": reported(tiny_run, root / "again"),
        "stranger": reported(tiny_run, root / "stranger-out", teacher=str(root / "stranger")),
        "elsewhere": reported(tiny_run, root / "elsewhere", prompts=str(root / "other.jsonl")),
    }


def test_a_run_against_itself_ends_alike(reports):
    study = compare([reports["one"], reports["again"]])
    table = study.tables["differences"]
    assert (table["value"].abs() < 1e-9).all()
    assert table["paired"].all()
    assert set(table["states"]) == {"on-policy", "start", "teacher"}
    assert study.subject == "one and again"
    status = {v.name.split(",")[0]: v.status for v in study.verdicts}
    assert status == {
        "runs_differ[accuracy": "unknown",
        "runs_differ[reverse_kl": "pass",
        "runs_differ[forward_kl": "pass",
    }
    assert study.headline == "No difference between the runs is established", "so few answers may hide one"


def test_another_teacher_is_another_distance(reports):
    study = compare([reports["one"], reports["stranger"]])
    table = study.tables["differences"].set_index(["states", "metric"])
    row = table.loc[("start", "reverse_kl")]
    assert row["first_value"] < row["second_value"]
    assert row["ci_low"] > 0
    verdict = next(v for v in study.verdicts if v.name == "runs_differ[reverse_kl, start, stranger-out]")
    assert verdict.status == "pass"
    assert verdict.evidence.endswith("one is ahead.")
    assert any(line.startswith("They have other teachers: ") for line in study.measured)
    assert study.facts[0].startswith("They have other teachers: ")
    assert study.facts[0].endswith("; each distance is to its own.")
    assert study.headline.endswith(", each held against its own teacher")


def test_other_prompts_are_not_paired(reports):
    table = compare([reports["one"], reports["elsewhere"]]).tables["differences"]
    assert not table["paired"].any()


def test_three_runs_are_held_against_the_first(reports):
    study = compare([reports["one"], reports["again"], reports["stranger"]])
    assert study.subject == "3 runs"
    assert set(study.tables["differences"]["first"]) == {"one"}
    assert set(study.tables["summary"]["run"]) == {"one", "again", "stranger-out"}
    shown = study.shown[0]
    assert list(shown.columns) == ["", "one", "again", "again less one", "stranger-out", "stranger-out less one"]
    assert all(len(row) == len(shown.columns) for row in shown.rows)
    names = [p.name for p in study.pictures]
    assert "reverse_kl-on-policy" in names
    assert "forward_kl-teacher" in names
    ax = study.pictures[names.index("reverse_kl-on-policy")].draw()
    assert [line.get_label() for line in ax.lines] == ["one", "again", "stranger-out"]


@pytest.fixture(scope="module")
def served(tiny_run, tmp_path_factory, module_without_pages):
    tokenizer = load_tokenizer(str(tiny_run.teacher))
    where = Checkpoint("teacher", None, tiny_run.teacher, "full")
    server = ModelServer(load_model(where, name="teacher", stop_ids=tokenizer.stop_ids), tokenizer=tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opd_diag.replay.served.connect", lambda address, **how: server)
        out = tmp_path_factory.mktemp("served") / "served"
        return reported(tiny_run, out, teacher="vllm=http://127.0.0.1:8000", teacher_top=20)


def test_of_a_served_teacher_estimates_are_asked_and_bounds_stand_for_what_they_are(reports, served):
    study = compare([reports["one"], served])
    named = {v.name.removesuffix(", served]"): v for v in study.verdicts}
    assert [*named] == [
        "runs_differ[accuracy, on-policy",
        "runs_differ[tail_sampled_reverse_kl, on-policy",
        "runs_differ[reverse_kl, start",
        "runs_differ[forward_kl, teacher",
    ]
    assert "tail-sampled reverse KL" in named["runs_differ[tail_sampled_reverse_kl, on-policy"].question
    assert (
        "not bounded" in named["runs_differ[reverse_kl, start"].evidence
        or "at least" in named["runs_differ[reverse_kl, start"].evidence
    )
    assert all("nan" not in v.evidence for v in study.verdicts)
    table = study.tables["differences"].set_index(["states", "metric"])
    row = table.loc[("start", "forward_kl")]
    assert row["bound_low"] < 0 < row["bound_high"], "the same teacher, so none"
    assert table.loc[("start", "overlap_ratio"), "value"] == pytest.approx(0, abs=1e-6)
    shown = {line[0]: line for line in study.shown[1].rows}
    assert " to " in shown["Forward KL"][-1]
    assert "tail_sampled_reverse_kl-on-policy" in [p.name for p in study.pictures]


class TestRefusals:
    def test_one(self, reports):
        with pytest.raises(InputError) as error:
            compare([reports["one"]])
        assert str(error.value) == "Expected two or more folders of finished reports, found 1. Name another."

    def test_twice(self, reports):
        with pytest.raises(InputError) as error:
            compare([reports["one"], reports["one"]])
        assert str(error.value) == f"Report {reports['one']} is named twice. Name each folder once."

    def test_no_report(self, reports, tmp_path):
        with pytest.raises(StoreError, match="holds no finished report"):
            compare([reports["one"], tmp_path])


@pytest.fixture(scope="module")
def page(reports, tmp_path_factory):
    """Give the page of three runs, the folder of one of which is called what wants to break a page."""
    root = tmp_path_factory.mktemp("page")
    odd = shutil.copytree(reports["again"], root / ("<script>alert(1)< \"quoted\" 'and' \u202etxet " + "w" * 90))
    return write_study(compare([reports["one"], odd, reports["stranger"]]), root)


class TestThePageInABrowser:
    """Nothing of it is out of reach or out of sight."""

    pytestmark = IN_A_BROWSER

    def test_nothing_is_out_of_reach(self, page, problems_of):
        assert problems_of(page) == []

    @pytest.mark.parametrize("width", [*WIDTHS, 2560])
    def test_nothing_is_out_of_sight(self, page, open_file, width):
        shown = open_file(page, width)
        unfold(shown)
        assert sideways(shown) <= 0
        assert figures_out_of_sight(shown) == []
        assert shown.locator("figure svg").count() > 5
