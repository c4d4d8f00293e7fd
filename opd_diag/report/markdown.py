"""``report.md``: the report in short, fit for a pull-request comment or a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from opd_diag.report.wording import NEAR_LEGEND, ROUGH, ROUGH_LEGEND, one_line
from opd_diag.stats.rounding import NEAR
from opd_diag.text import STATUS_SYMBOLS, status_text
from opd_diag.verdicts.titles import title_of

if TYPE_CHECKING:
    from opd_diag.report.content import Report

MOST_CHARACTERS = 60_000
"""Of the whole: GitHub takes comments of 65,536, and whoever posts it may write something above it."""

SHOWN_METRICS = ("accuracy", *MAIN_METRICS, "forward_kl", "unigram_entropy")

_MORE = "Pictures, rollouts and definitions are in report.html."
_SHORTENED = "Shortened to fit a comment: all of it is in report.html."


@dataclass(frozen=True)
class _Room:
    """How much is said."""

    answer: int = 2000
    """Characters of the evidence of an alarm, or of a self-test."""
    line: int = 500
    """Characters of everything else."""
    rows: int = 1000
    """Alarms, or other answers of one kind, that are told."""
    notes: int = 20
    """Notes of one kind."""


_ROOMS = (_Room(), _Room(1000, 300, 60, 10), _Room(400, 200, 60, 8), _Room(160, 120, 40, 5), _Room(60, 60, 30, 3))
"""The first that fits is taken; the last fits whatever is said."""

_SPECIAL = re.compile(r"[\\`*_|~$]|\](?=[(\[:])|^[#+-]")
_LINKING = re.compile(r"@(?=[\w\\-])|#(?=\w)|://|www(?=\.)|(?<![a-z\d])gh-(?=\d)", re.IGNORECASE)
"""After what GitHub makes mentions, references and links of by itself: ``@me``, ``#12``, ``GH-12``, addresses."""


def report_markdown(report: Report) -> str:
    """Give the report as GitHub-flavoured Markdown: headline, self-tests, verdicts (alarms first), numbers, notes.

    It fits a comment: what would be too long is cut, and the last line says so.
    """
    text = _written(report, _ROOMS[0], "")
    for room in _ROOMS[1:]:
        if len(text) > MOST_CHARACTERS:
            text = _written(report, room, _SHORTENED)
    return text


def _written(report: Report, room: _Room, shortened: str) -> str:
    headline, line = report.headline, room.line
    parts = [
        f"### {STATUS_SYMBOLS[headline.status]} {in_markdown(headline.title, line)}",
        f"Run: **{in_markdown(report.run, line)}**. Students: {in_markdown(checkpoint_span(report), line)}. "
        f"Teacher: **{in_markdown(teacher_names(report), line)}**.",
        "\n".join(f"- {in_markdown(fact, line)}" for fact in headline.facts),
        f"**What to do.** {in_markdown(headline.advice, line)}" if headline.advice else "",
        _selftests(belief(report), room),
        _reconciled(reconciled(report)),
        *_verdicts(sorted_verdicts(report.verdicts), room),
        _numbers(changes(report, SHOWN_METRICS)),
        _named("Conclusions that depend on the average", averages_that_disagree(report), room),
        _named("Notes", report.notes, room),
    ]
    text = "\n\n".join(part for part in parts if part)
    legend = f" {NEAR_LEGEND}." if NEAR in text else ""
    rough = f" {ROUGH_LEGEND}." if f"{ROUGH}[" in text else ""
    end = f"Intervals are 95 %, clustered by prompt.{legend}{rough} {_MORE} {shortened}".rstrip()
    return f"{text}\n\n<sub>{end}</sub>\n"


def in_markdown(text: str, most: int = 500) -> str:
    r"""Write a user's text so that Markdown shows it as it is: on one line, mentioning nobody and linking nothing.

    Examples
    --------
    >>> print(in_markdown("a|b `c` <script> @me"))
    a\|b \`c\` &lt;script&gt; @<!-- -->me
    >>> print(in_markdown("https://example.org/issues/1"))
    https://<!-- -->example.org/issues/1
    """
    flat = _SPECIAL.sub(r"\\\g<0>", one_line(text, most))
    inert = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKING.sub(r"\g<0><!-- -->", inert)


def _selftests(asked: Belief, room: _Room) -> str:
    """Say in one line what the self-tests gave, and name those that failed or warned with what to do."""
    told = [
        f"- {in_markdown(f'{titled(test)} ({test.model}): {test.evidence} {test.advice}', room.answer)}"
        for test in (*asked.failed, *asked.warned)
    ]
    return "\n".join([f"{STATUS_SYMBOLS[asked.status]} {in_markdown(asked.sentence)}.", *_at_most(room.rows, told)])


def _reconciled(compared: Reconciled | None) -> str:
    """Say in one line how our values compare with the trainer's own loss."""
    return "" if compared is None else f"{STATUS_SYMBOLS[compared.status]} {in_markdown(compared.sentence)}."


def _verdicts(verdicts: Verdicts, room: _Room) -> Iterator[str]:
    """Give alarms as a table, what the data cannot tell as a list, and the titles of what passes."""
    if verdicts.alarms:
        lines = ["| | question | value | evidence |", "|---|---|---|---|"]
        for verdict in verdicts.alarms[: room.rows]:
            cells = [_status(verdict), in_markdown(verdict.question, room.line), value_text(verdict)]
            lines.append(f"| {' | '.join([*cells, in_markdown(verdict.evidence, room.answer)])} |")
        yield "\n".join(lines)
        if len(verdicts.alarms) > room.rows:
            yield f"And {len(verdicts.alarms) - room.rows} more alarms, in report.html."
    if verdicts.unknown:
        told = [f"- {_status(v)}: {in_markdown(f'{v.question} {v.evidence}', room.line)}" for v in verdicts.unknown]
        yield "\n".join(_at_most(room.rows, told))
    if verdicts.passed:
        titles = ", ".join(title_of(v.name) for v in verdicts.passed)
        yield f"{_status(verdicts.passed[0])}: {in_markdown(titles, room.answer)}"


def _at_most(most: int, lines: Sequence[str]) -> list[str]:
    """Give lines of a list, and how many are left out."""
    left_out = [f"- and {len(lines) - most} more, in report.html"] if len(lines) > most else []
    return [*lines[:most], *left_out]


def _status(verdict: Verdict) -> str:
    return status_text(verdict.status)


def _numbers(rows: list[Change]) -> str:
    """Give the numbers as a table that is folded: what they say stands above it."""
    if not rows:
        return ""
    lines = ["| metric | states | first | last | difference |", "|---|---|---|---|---|"]
    for row in rows:
        title = f"{quantity(row.metric).title} ({quantity(row.metric).unit})"
        lines.append(f"| {title} | {row.states_name} | {row.first} | {row.last} | {row.difference or '–'} |")
    table = "\n".join(lines)
    return f"<details><summary>Numbers of the first and the last checkpoint</summary>\n\n{table}\n\n</details>"


def _named(title: str, notes: Sequence[str], room: _Room) -> str:
    lines = _at_most(room.notes, [f"- {in_markdown(note, room.line)}" for note in notes])
    return f"**{title}**\n\n" + "\n".join(lines) if lines else ""
