"""One answer with its evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

from opd_diag.notebook import answer_html, table_html
from opd_diag.text import status_text

Status = Literal["pass", "warn", "fail", "unknown"]

BY_URGENCY: tuple[Status, ...] = ("fail", "warn", "unknown", "pass")
"""Statuses in the order in which a tired reader wants to hear of them."""


@dataclass(frozen=True)
class Verdict:
    """One answer to one question a user asks, with what it rests on."""

    name: str
    """Fixed name, for example ``alignment_on_policy``."""
    question: str
    """The question in plain words."""
    status: Status
    """``pass``, ``warn``, ``fail``, or ``unknown`` where the data cannot tell."""
    value: float
    """The number the rule read; NaN when there is none."""
    ci_low: float
    """Lower end of its 95 % interval, clustered by prompt; NaN when there is none."""
    ci_high: float
    """Upper end; NaN when there is none."""
    threshold: float
    """The number `value` was held against; NaN when there is none."""
    evidence: str
    """One sentence with the numbers and their n."""
    advice: str
    """What to do next, one sentence."""
    reference: str
    """Where the rule and its threshold come from."""
    within_floor: bool = False
    """Whether rounding alone may have made `value`."""
    caution: str = ""
    """How the verdict may mislead, one sentence."""

    def as_record(self) -> dict[str, Any]:
        """Give the fields as JSON values; NaN becomes None."""
        return {k: finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def _repr_html_(self) -> str:
        """Show question, evidence, advice and caution in a notebook."""
        lines = [self.evidence, f"What to do: {self.advice}" if self.advice else ""]
        lines.append(f"How it misleads: {self.caution}" if self.caution else "")
        return answer_html(self.status, self.question, filter(None, lines))


class VerdictList(list[Verdict]):
    """Verdicts on one run, in the order of their rules; in a notebook a table, alarms first."""

    def _repr_html_(self) -> str:
        open_ones = [v for v in alarms_first(self) if v.status != "pass"]
        rows = [[status_text(v.status).replace(" ", "\u00a0"), v.question, v.evidence, v.advice] for v in open_ones]
        table = table_html(["", "question", "evidence", "what to do"], rows) if rows else ""
        passed = [v.question for v in self if v.status == "pass"]
        return table + (answer_html("pass", f"{len(passed)} of {len(self)}", [" · ".join(passed)]) if passed else "")


class _Judged(Protocol):
    @property
    def status(self) -> str: ...


Judged = TypeVar("Judged", bound=_Judged)


def alarms_first(answers: Iterable[Judged]) -> list[Judged]:
    """Sort verdicts or self-tests by urgency; within one status the order stays.

    Examples
    --------
    >>> from types import SimpleNamespace as Answer
    >>> [a.status for a in alarms_first([Answer(status=s) for s in ("pass", "unknown", "fail", "warn")])]
    ['fail', 'warn', 'unknown', 'pass']
    """
    return sorted(answers, key=lambda answer: [*BY_URGENCY].index(answer.status))  # type: ignore[arg-type]


def finite_or_none(value: float) -> float | None:
    """Give `value`, or None where it is NaN or infinite, as JSON has neither.

    Examples
    --------
    >>> finite_or_none(float("nan")), finite_or_none(0.5)
    (None, 0.5)
    """
    return float(value) if math.isfinite(value) else None
