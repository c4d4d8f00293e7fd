"""What the page says of our values on the trainer's own batches against the loss that it logged for them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from opd_diag.plots.quantities import quantity
from opd_diag.records.verdict import Status
from opd_diag.report.wording import count
from opd_diag.stats.rounding import number
from opd_diag.tables.reconciliation import TOLERANCE

if TYPE_CHECKING:
    from opd_diag.report.content import Report

_DIGITS = 5

_WHY = {
    "partial batch": "of a batch only a part was scored (raise --max-prompts)",
    "mean over updates": "the trainer logged a mean over several updates (set logging_steps to 1)",
    "not logged": "the trainer logged no loss after the checkpoint",
}

_CAUSES = (
    "Training in half precision, dropout, another temperature than the one scored, another teacher than the one named, "
    "or a loss that is divided by other tokens than the batch has (that of TRL's GKDTrainer is) can be the cause"
)


@dataclass(frozen=True)
class ReconciledLine:
    """One recorded batch."""

    label: str
    """The weights before the update."""
    value: str
    """Ours, with its unit's digits."""
    logged: str
    """The trainer's, and of which step; empty where there is none."""
    difference: str
    """Ours minus the trainer's; empty where they cannot be compared."""
    size: str
    """How much was scored."""
    outcome: str
    """What it says."""


@dataclass(frozen=True)
class Reconciled:
    """All recorded batches of a run."""

    status: Status
    sentence: str
    """The whole in a line or two."""
    title: str
    """What is compared, as pages call it."""
    lines: tuple[ReconciledLine, ...]


def reconciled(report: Report) -> Reconciled | None:
    """Say how our values on recorded batches compare with the trainer's loss; None where there are none."""
    table = report.tables.reconciliation
    if table.empty:
        return None
    title = quantity(str(table["metric"].iloc[0])).title
    compared = table[table["outcome"].isin(["agree", "differ"])]
    differing = compared[compared["outcome"] == "differ"]
    status: Status = "unknown" if compared.empty else "warn" if len(differing) else "pass"
    batches = "batch" if len(compared) == 1 else f"{len(compared)} batches"
    if compared.empty:
        sentence = f"{title} was not compared with the trainer's own loss: {_reasons(table)}"
    elif differing.empty:
        sentence = (
            f"{title} on the trainer's own {batches} is the loss that it logged, to {TOLERANCE:g} nats (largest "
            f"difference {_small(compared['difference'].abs().max())})"
        )
    else:
        worst = differing.iloc[int(differing["difference"].abs().argmax())]
        where = f"its {batches}" if len(compared) == 1 else f"{len(differing)} of its {batches}"
        sentence = (
            f"{title} differs from the trainer's own loss on {where}, most at {worst['label']}: "
            f"{number(worst['value'], _DIGITS)} here, {number(worst['logged'], _DIGITS)} logged. {_CAUSES}"
        )
    return Reconciled(status, sentence, title, tuple(_line(row) for _, row in table.iterrows()))


def _reasons(table: pd.DataFrame) -> str:
    counted = Counter(table["outcome"])
    return "; ".join(_WHY[outcome] for outcome, _ in counted.most_common())


def _small(value: float) -> str:
    """Write a small number with one digit.

    Examples
    --------
    >>> _small(3.2e-08), _small(0.0), _small(0.00042)
    ('3e-08', '0', '0.0004')
    """
    return f"{value:.0e}" if 0 < value < 1e-4 else f"{value:.1g}"


def _line(row: pd.Series) -> ReconciledLine:
    step = row["logged_step"]
    known = not pd.isna(step)
    over = "" if not known or row["updates"] == 1 else f", a mean over {count(row['updates'], 'update')}"
    difference = row["difference"]
    return ReconciledLine(
        label=str(row["label"]),
        value=number(row["value"], _DIGITS),
        logged=f"{number(row['logged'], _DIGITS)} (step {step}{over})" if known else "",
        difference="" if math.isnan(difference) else f"{'-' if difference < 0 else ''}{_small(abs(difference))}",
        size=f"{row['n_rollouts']:,} of {count(row['n_recorded'], 'response')}, {count(row['n_states'], 'token')}",
        outcome=str(row["outcome"]),
    )
