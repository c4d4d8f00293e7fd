"""A collapse that every curve on own states calls a success, and a success with the same curves, told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import opd_diag
from opd_diag.verdicts import headline

RECORDS = Path(__file__).with_name("smollm2")
DATA = Path(__file__).parents[2] / "data"


LOOKS = {"collapsing": "unknown", "mild": "pass"}
"""On own states: nobody is warned. The three checkpoints of the collapse fall far, but not in order."""


def judged(record):
    return {v.name: v for v in opd_diag.check(RECORDS / record)}


def test_on_own_states_both_look_like_a_success():
    for record in ("collapsing", "mild"):
        own = judged(record)["alignment_on_policy"]
        assert own.status == LOOKS[record], record
        assert own.ci_high < -0.1


def test_the_collapsing_run_is_a_false_success():
    verdicts = judged("collapsing")
    found = verdicts["false_success"]
    assert found.status == "fail"
    assert found.value < -2  # more than all of the fall of reverse KL comes from going elsewhere
    assert found.ci_high < -2
    assert "forward KL 6.96" in found.evidence
    assert "unigram entropy 4.49 → 1.30" in found.evidence
    assert verdicts["alignment_at_teacher"].status == "fail"
    assert headline(list(verdicts.values())).title.startswith("False success")


def test_the_mild_run_is_none():
    verdicts = judged("mild")
    assert verdicts["false_success"].status == "pass"
    assert verdicts["alignment_at_start"].status == "pass"
    assert verdicts["alignment_at_teacher"].status == "pass"
    # its responses become much more uniform too, and as uniform as the teacher's: that is no harm
    assert "unigram entropy 6.07 → 5.39 of the responses (the teacher's 5.38)" in verdicts["false_success"].evidence


def test_without_the_start_nobody_could_tell():
    for record in ("collapsing", "mild"):
        verdicts = {v.name: v for v in opd_diag.check(RECORDS / record, step_zero_known=False)}
        assert verdicts["alignment_on_policy"].status == LOOKS[record]
        assert verdicts["false_success"].status == "unknown"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_a_run_that_is_grown_to_collapse(tmp_path, without_pages):
    """A seed that no threshold was looked at with; the bundled student, the bundled teacher, twenty steps."""
    from opd_diag.lab.collapse import KINDS, grow_runs

    kind = KINDS["collapsing"]
    short = replace(kind, distillation=replace(kind.distillation, save_at=(10, 20)))
    [run] = grow_runs(DATA, tmp_path, [11], lambda line: None, kinds={"collapsing": short})
    report = opd_diag.diagnose(run, out=tmp_path / "report")
    statuses = {v.name: v.status for v in report.verdicts}
    assert statuses["false_success"] == "fail"
    assert report.headline.title.startswith("False success")


@pytest.mark.slow
@pytest.mark.parametrize(("run", "status"), [("new", "pass"), ("same", "pass"), ("other", "warn")])
def test_bundled_runs_are_none(run, status, demo):
    stored = json.loads((demo.report(run) / "report.json").read_text(encoding="utf-8"))
    assert {v["name"]: v["status"] for v in stored["verdicts"]}["false_success"] == status
