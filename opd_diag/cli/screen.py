"""What verdicts and self-tests look like on a screen: alarms first and in full, wrapped to its width; passes short."""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from opd_diag.cli import terminal
from opd_diag.cli.terminal import inert
from opd_diag.records.verdict import BY_URGENCY, alarms_first
from opd_diag.text import STATUS_SYMBOLS as SYMBOLS

if TYPE_CHECKING:
    from opd_diag.records.selftest import SelfTest
    from opd_diag.records.verdict import Verdict

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "unknown": "bright_black"}
FAINT, ADVICE = "bright_black", "cyan"

WIDEST = 120
"""Columns: longer lines are hard to follow."""
_NARROWEST, _WIDEST_NAME = 40, 36


def is_screen(console: Console) -> bool:
    """Whether a person looks at `console` as it is written, and neither a file, a pipe, nor the log of a CI job."""
    in_a_log = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return console.is_terminal and not console.is_dumb_terminal and not in_a_log


def show(what: RenderableType) -> None:
    """Print to the screen, wrapped to its width."""
    columns = shutil.get_terminal_size().columns
    terminal.out.print(what, width=max(_NARROWEST, min(WIDEST, columns)), soft_wrap=False)


def show_headline(subject: str, status: str, title: str, facts: Iterable[str] = (), advice: str = "") -> None:
    """Print the whole in one line, what it rests on, and what to do."""
    answer = f"{SYMBOLS[status]} {inert(title)}", f"bold {COLOURS[status]}"
    head = Text.assemble((f"{inert(subject)}: ", "bold"), answer)
    show(head)
    table = _grid(2)
    for fact in facts:
        table.add_row(" •", Text(inert(fact)))
    if advice:
        table.add_row(" →", Text(inert(advice), ADVICE))
    show(table)
    show(Text())


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print alarms and what cannot be told, each with its evidence and what to do; then what passes, a line each."""
    ordered = alarms_first(verdicts)
    for verdict in ordered:
        if verdict.status != "pass":
            value = "" if math.isnan(verdict.value) else _value(verdict)
            _show_answer(verdict.status, verdict.question, verdict.name, value, verdict.evidence, verdict.advice)
    passed = [verdict for verdict in ordered if verdict.status == "pass"]
    if passed:
        table = _grid(len(_status("pass")), min(_WIDEST_NAME, max(len(inert(v.name)) for v in passed)))
        table.columns[-1].no_wrap, table.columns[-1].overflow = True, "ellipsis"
        for verdict in passed:
            seen = Text(inert(verdict.evidence.split("; ")[0]), FAINT)
            table.add_row(_status(verdict.status), Text(inert(verdict.name)), seen)
        show(table)
        show(Text())
    show(_counted(verdicts))


def show_selftests(selftests: Sequence[SelfTest]) -> None:
    """Print self-tests that failed or warned, each with what to do, and how many were asked."""
    for test in alarms_first(selftests):
        if test.status in ("fail", "warn"):
            _show_answer(test.status, f"Self-test: {test.name}", test.model, "", test.evidence, test.advice)
    if selftests:
        show(Text("self-tests: ", FAINT) + _counted(selftests, {"unknown": "could not be asked"}))
        show(Text())


def show_every_selftest(selftests: Sequence[SelfTest]) -> None:
    """Print all self-tests, those that did not pass first and with what to do."""
    table = _grid(len(_status("unknown")), max((len(inert(test.name)) for test in selftests), default=0))
    for test in alarms_first(selftests):
        said = Text(inert(test.evidence), FAINT if test.status == "pass" else "")
        if test.status != "pass" and test.advice:
            said.append(f"\n→ {inert(test.advice)}", ADVICE)
        table.add_row(_status(test.status), Text(inert(test.name)), said)
    show(table)
    show(Text())
    show(_counted(selftests, {"unknown": "could not be asked"}))


def _show_answer(status: str, question: str, name: str, value: str, evidence: str, advice: str) -> None:
    lines = [Text.assemble((inert(question), "bold"), "  ", (inert(name), FAINT))]
    lines.append(Text.assemble((f"{value}   " if value else "", f"bold {COLOURS[status]}"), inert(evidence)))
    if advice:
        lines.append(Text(f"→ {inert(advice)}", ADVICE))
    table = _grid(len(_status(status)))
    table.add_row(_status(status), Group(*lines))
    show(table)
    show(Text())


def _grid(*widths: int) -> Table:
    """Make columns of these widths, and one more that takes what is left."""
    table = Table.grid(padding=(0, 2), expand=True)
    for width in widths:
        table.add_column(width=width, no_wrap=True)
    table.add_column(ratio=1)
    return table


def _value(verdict: Verdict) -> str:
    from opd_diag.stats.rounding import with_interval

    return with_interval(verdict.value, verdict.ci_low, verdict.ci_high, near=verdict.within_floor)


def _status(status: str) -> Text:
    return Text(f"{SYMBOLS[status]} {status:<7}", f"bold {COLOURS[status]}")


def _counted(answers: Iterable[Verdict | SelfTest], words: dict[str, str] | None = None) -> Text:
    """Say how many there are of each status, alarms first."""
    counts = Counter(answer.status for answer in answers)
    said = [(f"{counts[s]} {(words or {}).get(s, s)}", f"bold {COLOURS[s]}") for s in BY_URGENCY if counts[s]]
    return Text(" · ", FAINT).join(Text(*one) for one in said)
