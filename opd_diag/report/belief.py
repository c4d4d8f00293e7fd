"""Whether the numbers can be believed: what the self-tests said, and which conclusions hang on a choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from opd_diag.plots.quantities import QUANTITIES, quantity
from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Status
from opd_diag.report.measured import teachers_of
from opd_diag.report.readings import ends_of, row_of
from opd_diag.report.wording import SELFTESTS, STATES_NAMES, count, is_set, one_line
from opd_diag.stats.rounding import decimals_for, number
from opd_diag.tables.catalogue import PRIMARY_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from opd_diag.report.content import Report

AVERAGES = ("token", "rollout", "prompt")
"""Means that a conclusion may hang on: over tokens, over rollouts, over prompts."""


@dataclass(frozen=True)
class Belief:
    """What the measurement said of itself."""

    failed: list[SelfTest]
    warned: list[SelfTest]
    """Of the pair: its numbers can be believed."""
    unknown: list[SelfTest]
    passed: list[SelfTest]

    @property
    def status(self) -> Status:
        """The whole in one word; ``unknown`` where nothing was asked."""
        return "fail" if self.failed else "warn" if self.warned else "pass" if self.passed else "unknown"

    @property
    def sentence(self) -> str:
        """The whole in one line."""
        asked = len(self.failed) + len(self.warned) + len(self.passed)
        more = f"; {len(self.unknown)} could not be asked" if self.unknown else ""
        for odd, word in ((self.failed, "failed"), (self.warned, "warned")):
            if odd:
                names = ", ".join(dict.fromkeys(titled(test).lower() for test in odd))
                return f"{len(odd)} of {count(asked, 'self-test')} {word}: {names}{more}"
        if self.passed:
            return f"{'All ' if asked > 1 else ''}{count(asked, 'self-test')} pass{'' if asked > 1 else 'es'}{more}"
        return "No self-test was made: how far these numbers can be believed is not known"


def belief(report: Report) -> Belief:
    """Sort the self-tests of a report by what they say; the teacher, whatever it is called, goes by its role."""
    by_status: dict[str, list[SelfTest]] = {"fail": [], "warn": [], "unknown": [], "pass": []}
    teachers = teachers_of(report)
    for test in report.selftests:
        by_status[test.status].append(replace(test, model="teacher") if test.model in teachers else test)
    return Belief(by_status["fail"], by_status["warn"], by_status["unknown"], by_status["pass"])


def titled(test: SelfTest) -> str:
    """Give what pages call a self-test."""
    return SELFTESTS.get(test.name, one_line(test.name.replace("_", " ").capitalize(), 60))


def averages_that_disagree(report: Report) -> list[str]:
    """Say of each primary metric whose conclusion depends on the average what each average says, first to last.

    Of the other quantities only how many there are. Empty where none does, and where averages were not compared.
    """
    differences, averages = report.tables.differences, report.tables.averages
    if differences.empty or "depends_on_average" not in differences:
        return []
    first, last = ends_of(report.tables.summary)
    ends = differences[(differences["from_label"] == first) & (differences["to_label"] == last)]
    flagged = ends[ends["depends_on_average"].map(is_set) & ends["metric"].isin(QUANTITIES)]
    primary = flagged["metric"].isin(PRIMARY_NAMES)
    told = [_disagreement(row, averages, (first, last)) for _, row in flagged[primary].iterrows()]
    others = int((~primary).sum())
    return [*told, f"{count(others, 'change')} of other metrics, marked in the table of changes."] if others else told


def _disagreement(row: pd.Series, averages: pd.DataFrame, ends: tuple[str, str]) -> str:
    where = STATES_NAMES.get(row["states"], row["states"])
    name = f"{quantity(row['metric']).title}, {where}"
    changes = {average: _change(row, averages, average, ends) for average in AVERAGES} if len(averages) else {}
    seen = [f"{change} over {average}s" for average, change in changes.items() if change]
    return f"{name}: {', '.join(seen)}." if seen else f"{name}."


def _change(row: pd.Series, averages: pd.DataFrame, average: str, ends: tuple[str, str]) -> str:
    """Write how one average changed from the first checkpoint to the last; empty where it is not known."""
    wanted = {"metric": row["metric"], "states": row["states"], "average": average}
    first, last = (row_of(averages, label=label, **wanted) for label in ends)
    if first is None or last is None:
        return ""
    change = float(last["value"] - first["value"])
    return number(change, decimals_for(change, float("nan"), float("nan")), signed=True)
