"""A report with recorded responses, from end to end: parts, tables, page, resume, judging again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from opd_diag.diagnosis import check, diagnose
from opd_diag.records.rollout import load_rollouts
from opd_diag.report import load_report_json

from .crashing import content, without_drawing, written
from .test_near import verl

OPTIONS = {"checkpoints": "30", "max_prompts": 3, "max_new_tokens": 6}


def record(folder):
    for step in (1, 6, 31, 36):  # with 0, 5, 30 and 35 updates
        verl(folder, step, ("0+0", f"it is {step}"), ("3+3", "six"), ("7+7?", "fourteen or so"))
    return str(folder)


@pytest.fixture(scope="module")
def reported(tiny_run, tmp_path_factory):
    """(report, OUT_DIR, record) with a record of training."""
    folder = tmp_path_factory.mktemp("near")
    rollouts = record(folder / "rollouts")
    with pytest.MonkeyPatch.context() as patch:
        without_drawing(patch)
        return diagnose(tiny_run.run_dir, out=folder / "out", rollouts=rollouts, **OPTIONS), folder / "out", rollouts


def near(table):
    return table[table["states"] == "near-on-policy"]


def test_what_was_scored(reported):
    report, out, _ = reported
    assert report.provenance["recorded"] == [
        {
            "label": f"step {step}",
            "n_rollouts": 6,
            "staleness": {"min": 0, "max": 5, "mean": 2.5},
            "exactness": {"text-stripped": 6},
        }
        for step in (0, 30)
    ]
    for step in (0, 30):
        rollouts = load_rollouts(out / "rollouts" / f"step-{step:06d}.near-on-policy.jsonl")
        assert [(r.prompt_id, r.provenance.step - step) for r in rollouts] == [
            (prompt, stale) for prompt in ("p0", "p3", "p7") for stale in (0, 5)
        ]
        of = near(report.tables.summary)
        (row,) = of[(of["label"] == f"step {step}") & (of["metric"] == "reverse_kl")].to_dict("records")
        assert row["n_states"] == sum(len(r.response_ids) for r in rollouts)
        assert row["n_prompts"] == 3
        assert 0 < row["value"] < 20
    assert near(report.tables.stops).empty
    assert near(report.tables.summary)["metric"].isin(["truncation_rate", "accuracy"]).sum() == 0


def test_it_is_judged_again_without_a_model(reported):
    report, out, _ = reported
    again = check(out)
    assert [(v.name, v.status, v.evidence) for v in again] == [(v.name, v.status, v.evidence) for v in report.verdicts]
    assert {row["states"] for row in load_report_json(out / "report.json")["summary"]} == {
        "on-policy", "start", "teacher", "near-on-policy",
    }  # fmt: skip


@pytest.mark.usefixtures("without_pages")
def test_verdicts_and_all_other_numbers_are_as_without(reported, tiny_run, tmp_path):
    report, _, _ = reported
    without = diagnose(tiny_run.run_dir, out=tmp_path / "out", **OPTIONS)
    assert [repr(v) for v in report.verdicts] == [repr(v) for v in without.verdicts]  # NaN is not equal to itself
    assert [t.name for t in report.selftests] == [t.name for t in without.selftests]
    for name in ("summary", "concentration", "depth", "differences", "averages", "strata"):
        table = getattr(report.tables, name)
        others = table[table["states"] != "near-on-policy"].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, getattr(without.tables, name).reset_index(drop=True), check_dtype=False)


def killed_behind(name):
    """Give what kills the process when this file was written, and not noted yet."""

    def kill(path):
        if Path(path) == name:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


@pytest.mark.slow
def test_killed_at_the_writes_of_recorded_responses(small_run, tmp_path):
    make, out = small_run
    rollouts = record(tmp_path / "rollouts")

    def report(**options):
        return make(**options, rollouts=rollouts)

    whole, writes = written(make, rollouts=rollouts)
    names = [name for name in dict.fromkeys(writes) if "near-on-policy" in name]
    assert [name.split("/")[0] for name in names] == ["rollouts", "scores"] * 2 + ["states"] * 2
    for name in names:
        assert report(after=killed_behind(out / name)) == -signal.SIGKILL, name
    assert report() == 0
    assert content(out) == whole
