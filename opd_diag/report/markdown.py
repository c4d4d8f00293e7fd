"""``report.md``: the report in short, fit for a pull-request comment or a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opd_diag.plots.quantities import quantity
from opd_diag.plots.steps import MAIN_METRICS
from opd_diag.records.verdict import Verdict
from opd_diag.report.belief import Belief, averages_that_disagree, belief, titled
from opd_diag.report.reconciled import Reconciled, reconciled
from opd_diag.report.sections import (
    Change,
    Verdicts,
    changes,
    checkpoint_span,
    sorted_verdicts,
    teacher_names,
    value_text,
)
from opd_diag.report.wording import NEAR_LEGEND, ROUGH, ROUGH_LEGEND, STATUS_SYMBOLS, STATUS_WORDS, one_line
from opd_diag.stats.rounding import NEAR
from opd_diag.verdicts.titles import title_of

if TYPE_CHECKING:
    from opd_diag.report.content import Report

MOST_NOTES = 20
SHOWN_METRICS = ("accuracy", *MAIN_METRICS, "forward_kl", "unigram_entropy")

_MORE = "Pictures, rollouts and definitions are in report.html."

_SPECIAL = re.compile(r"[\\`*_|~$]|\](?=[(\[:])|^[#+-]")
_LINKING = re.compile(r"[@#](?=\w)")


def report_markdown(report: Report) -> str:
    """Give the report as GitHub-flavoured Markdown: headline, self-tests, verdicts (alarms first), numbers, notes."""
    headline = report.headline
    parts = [
        f"### {STATUS_SYMBOLS[headline.status]} {in_markdown(headline.title)}",
        f"Run: **{in_markdown(report.run)}**. Students: {in_markdown(checkpoint_span(report))}. "
        f"Teacher: **{in_markdown(teacher_names(report))}**.",
        "\n".join(f"- {in_markdown(fact)}" for fact in headline.facts),
        _selftests(belief(report)),
        _reconciled(reconciled(report)),
        *_verdicts(sorted_verdicts(report.verdicts)),
        _numbers(changes(report, SHOWN_METRICS)),
        _named("Conclusions that depend on the average", averages_that_disagree(report)),
        _named("Notes", report.notes),
    ]
    text = "\n\n".join(part for part in parts if part)
    legend = f" {NEAR_LEGEND}." if NEAR in text else ""
    rough = f" {ROUGH_LEGEND}." if f"{ROUGH}[" in text else ""
    return f"{text}\n\n<sub>Intervals are 95 %, clustered by prompt.{legend}{rough} {_MORE}</sub>\n"


def in_markdown(text: str, most: int = 500) -> str:
    r"""Write a user's text so that Markdown shows it as it is, on one line and mentioning nobody.

    Examples
    --------
    >>> print(in_markdown("a|b `c` <script> @me"))
    a\|b \`c\` &lt;script&gt; @<!-- -->me
    """
    flat = _SPECIAL.sub(r"\\\g<0>", one_line(text, most))
    inert = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKING.sub(r"\g<0><!-- -->", inert)


def _selftests(asked: Belief) -> str:
    """Say in one line what the self-tests gave, and name those that failed or warned with what to do."""
    lines = [f"{STATUS_SYMBOLS[asked.status]} {in_markdown(asked.sentence)}."]
    for test in (*asked.failed, *asked.warned):
        said = f"{titled(test)} ({test.model}): {test.evidence} {test.advice}"
        lines.append(f"- {in_markdown(said, 2000)}")
    return "\n".join(lines)


def _reconciled(compared: Reconciled | None) -> str:
    """Say in one line how our values compare with the trainer's own loss."""
    return "" if compared is None else f"{STATUS_SYMBOLS[compared.status]} {in_markdown(compared.sentence)}."


def _verdicts(verdicts: Verdicts) -> Iterator[str]:
    """Give alarms as a table, what the data cannot tell as a list, and the titles of what passes."""
    if verdicts.alarms:
        lines = ["| | question | value | evidence |", "|---|---|---|---|"]
        for verdict in verdicts.alarms:
            cells = [_status(verdict), in_markdown(verdict.question), value_text(verdict)]
            lines.append(f"| {' | '.join([*cells, in_markdown(verdict.evidence, 2000)])} |")
        yield "\n".join(lines)
    if verdicts.unknown:
        yield "\n".join(f"- {_status(v)}: {in_markdown(f'{v.question} {v.evidence}')}" for v in verdicts.unknown)
    if verdicts.passed:
        titles = ", ".join(title_of(v.name) for v in verdicts.passed)
        yield f"{_status(verdicts.passed[0])}: {in_markdown(titles, 2000)}"


def _status(verdict: Verdict) -> str:
    return f"{STATUS_SYMBOLS[verdict.status]} {STATUS_WORDS[verdict.status]}"


def _numbers(rows: list[Change]) -> str:
    if not rows:
        return ""
    lines = ["| metric | states | first | last | difference |", "|---|---|---|---|---|"]
    for row in rows:
        title = f"{quantity(row.metric).title} ({quantity(row.metric).unit})"
        lines.append(f"| {title} | {row.states_name} | {row.first} | {row.last} | {row.difference or '–'} |")
    return "\n".join(lines)


def _named(title: str, notes: Sequence[str]) -> str:
    lines = [f"- {in_markdown(note)}" for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"- and {len(notes) - MOST_NOTES} more, in report.html")
    return f"**{title}**\n\n" + "\n".join(lines) if lines else ""
