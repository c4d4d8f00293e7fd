"""What the numbers mean: each verdict is a rule one can read in ten lines; thresholds stand in one file."""

from __future__ import annotations

from collections.abc import Sequence

from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict
from opd_diag.tables import Tables
from opd_diag.verdicts import rules
from opd_diag.verdicts.alignment import alignment_at_start, alignment_at_teacher, alignment_on_policy
from opd_diag.verdicts.false_success import false_success
from opd_diag.verdicts.headline import Headline, headline
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds, load_thresholds

__all__ = ["DEFAULTS", "Headline", "Thresholds", "Verdict", "headline", "judge", "load_thresholds"]


def judge(
    tables: Tables,
    *,
    step_zero_known: bool,
    thresholds: Thresholds = DEFAULTS,
    selftests: Sequence[SelfTest] = (),
) -> list[Verdict]:
    """Answer every question the tables can answer.

    Parameters
    ----------
    tables
        Of one run.
    step_zero_known
        Whether the first checkpoint is the initial student.
    thresholds
        What the rules hold values against.
    selftests
        What the measurement said of itself; a verdict that rests on a failed one is ``unknown``.
    """
    return [
        false_success(tables, thresholds, step_zero_known),
        alignment_on_policy(tables, thresholds),
        alignment_at_start(tables, thresholds, step_zero_known),
        alignment_at_teacher(tables, thresholds),
        rules.accuracy(tables, thresholds),
        rules.patterns_compatible(tables, thresholds, step_zero_known),
        rules.shared_mass(tables, thresholds),
        rules.entropy_gap(tables, thresholds),
    ]
