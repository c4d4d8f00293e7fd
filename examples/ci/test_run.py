"""Tests of a finished distillation: what a project wants of its own run, beyond the verdicts' thresholds.

Needs the folder that ``opd-diag report`` left, and no model: ``OPD_DIAG_OUT=opd-diag/my-run pytest test_run.py``.
"""

import os
from pathlib import Path

import pandas as pd
import pytest

import opd_diag

OUT_DIR = Path(os.environ.get("OPD_DIAG_OUT", "opd-diag/my-run"))


@pytest.fixture(scope="module")
def verdicts():
    """Judge the report again, with one threshold of our own."""
    judged = opd_diag.check(OUT_DIR, thresholds={"accuracy_change": 0.01})
    return {verdict.name: verdict for verdict in judged}


@pytest.fixture(scope="module")
def summary():
    """One row a (checkpoint, state set, metric)."""
    return pd.read_parquet(OUT_DIR / "summary.parquet")


def test_nothing_fails(verdicts):
    """Whatever fails says why, and what to do."""
    failed = [f"{v.name}: {v.evidence} {v.advice}" for v in verdicts.values() if v.status == "fail"]
    assert not failed, "\n".join(failed)


def test_the_curves_on_own_states_can_be_believed(verdicts):
    """A warning is enough to stop this project."""
    verdict = verdicts["false_success"]
    assert verdict.status in ("pass", "unknown"), verdict.evidence


def test_the_student_ends_nearer_to_its_teacher_at_equal_states(summary):
    """Own states alone would let a collapse pass."""
    rows = summary[(summary["metric"] == "reverse_kl") & (summary["states"] == "start")]
    assert rows["value"].iloc[-1] < rows["value"].iloc[0]


def test_responses_do_not_loop(summary):
    """At most one response in twenty ends in a loop; undefined where they are too short to tell."""
    rows = summary[(summary["metric"] == "repetition_rate") & (summary["states"] == "on-policy")]
    assert not rows["value"].iloc[-1] > 0.05
