"""What the page says first: whether our value on the trainer's own batches is the loss that it logged."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from opd_diag.report.markdown import report_markdown
from opd_diag.report.reconciled import ReconciledLine, reconciled
from opd_diag.tables.reconciliation import RECONCILIATION_COLUMNS

from .made_up_report import made_up_report


@pytest.fixture(scope="module")
def made():
    return made_up_report(Path("unused"))


def row(step, value, logged=math.nan, outcome="agree", updates=1, scored=8, recorded=8):
    at = pd.NA if math.isnan(logged) else step + updates
    known = pd.NA if math.isnan(logged) else updates
    difference = value - logged if outcome in ("agree", "differ") else math.nan
    return (step, f"step {step}", "reverse_kl", value, logged, at, difference, outcome, 1200, scored, recorded, known)


def with_rows(report, *rows):
    types = {"step": "Int64", "logged_step": "Int64", "updates": "Int64"}
    table = pd.DataFrame(rows, columns=RECONCILIATION_COLUMNS).astype(types)
    return replace(report, tables=replace(report.tables, reconciliation=table))


def test_without_a_recorded_batch_nothing_is_said(made):
    report = with_rows(made)
    assert reconciled(report) is None
    assert "trainer's own" not in report_markdown(report)


def test_all_agree(made):
    found = reconciled(with_rows(made, row(0, 3.54120004, 3.5412), row(20, 0.6512, 0.6511)))
    assert found.status == "pass"
    assert found.sentence == (
        "Reverse KL on the trainer's own 2 batches is the loss that it logged, to 0.001 nats (largest difference 1e-04)"
    )
    assert found.lines[0] == ReconciledLine(
        "step 0", "3.54120", "3.54120 (step 1)", "4e-08", "8 of 8 responses, 1,200 tokens", "agree"
    )


def test_one_differs(made):
    found = reconciled(with_rows(made, row(0, 0.25, 0.5, "differ"), row(20, 0.5, 0.51, "differ"), row(40, 0.5, 0.5)))
    assert found.status == "warn"
    assert found.sentence == (
        "Reverse KL differs from the trainer's own loss on 2 of its 3 batches, most at step 0: 0.25000 here, 0.50000 "
        "logged. Training in half precision, dropout, another temperature than the one scored, another teacher than "
        "the one named, or a loss that is divided by other tokens than the batch has (that of TRL's GKDTrainer is) can "
        "be the cause"
    )
    assert [line.difference for line in found.lines] == ["-0.2", "-0.01", "0"]


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (row(4, 1.0, outcome="not logged"), "the trainer logged no loss after the checkpoint"),
        (
            row(4, 1.0, 2.0, "mean over updates", updates=10),
            "the trainer logged a mean over several updates (set logging_steps to 1)",
        ),
        (row(4, 1.0, 2.0, "partial batch"), "of a batch only a part was scored (raise --max-prompts)"),
    ],
)
def test_none_can_be_compared(made, of, why):
    found = reconciled(with_rows(made, of))
    assert found.status == "unknown"
    assert found.sentence == f"Reverse KL was not compared with the trainer's own loss: {why}"
    assert found.lines[0].difference == ""


def test_a_mean_over_updates_says_so(made):
    (line,) = reconciled(with_rows(made, row(4, 1.0, 2.0, "mean over updates", updates=10))).lines
    assert line.logged == "2.00000 (step 14, a mean over 10 updates)"


def test_in_markdown(made):
    text = report_markdown(with_rows(made, row(0, 0.5, 0.5)))
    assert "\n✓ Reverse KL on the trainer's own batch is the loss that it logged, to 0.001 nats (largest" in text
