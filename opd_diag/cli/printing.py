"""What the terminal says of a report: its plan, its cost, its verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from opd_diag.cli import terminal
from opd_diag.errors import CheckpointError, ModelError
from opd_diag.records.verdict import alarms_first

if TYPE_CHECKING:
    from pathlib import Path

    from opd_diag.records.selftest import SelfTest
    from opd_diag.records.verdict import Verdict
    from opd_diag.replay import ReplayPlan
    from opd_diag.replay.cost import Prediction
    from opd_diag.report import Report
    from opd_diag.studies import Study

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "unknown": "bright_black"}


def print_plan(plan: ReplayPlan) -> Prediction | None:
    """Print what a report will do and cost; give the prediction, if there is one."""
    from opd_diag.replay.cost import predicted

    for line in plan.description():
        terminal.err.print(escape(line))
    try:
        prediction = predicted(plan)
    except (CheckpointError, ModelError) as error:  # the report may do without this model: it says so itself
        terminal.err.print(escape(f"cost         unknown: {error}"))
        return None
    for line in prediction.lines():
        terminal.err.print(escape(line))
    return prediction


def print_cost(finished: Report) -> None:
    """Print what was predicted beside what it was."""
    from opd_diag.replay.cost import cost_lines

    for line in cost_lines(finished.provenance["cost"]):
        terminal.err.print(escape(line))


def print_headline(finished: Report) -> None:
    """Print the whole in one line."""
    head = finished.headline
    terminal.out.print(f"[bold]{escape(finished.run)}[/bold]: [{COLOURS[head.status]}]{escape(head.title)}[/]")


def print_report(finished: Report) -> None:
    """Print headline, failed self-tests, verdicts, what was left out, and where the page is."""
    print_headline(finished)
    print_selftests(finished.selftests)
    print_verdicts(finished.verdicts)
    for checkpoint in finished.checkpoints:
        if not checkpoint.loadable:
            terminal.err.print(
                f"[yellow]left out:[/yellow] {escape(checkpoint.label)}: {escape(checkpoint.blocker or '')}"
            )
    terminal.out.print(f"page: {escape(str(finished.out_dir / 'report.html'))}")


def print_study(study: Study, page: Path) -> None:
    """Print the answer, the verdicts it rests on, and where the page is."""
    terminal.out.print(f"[bold]{escape(study.subject)}[/bold]: [{COLOURS[study.status]}]{escape(study.headline)}[/]")
    print_verdicts(study.verdicts)
    terminal.out.print(f"page: {escape(str(page))}")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts, one a line, alarms first; of those that pass only what was seen, without the details."""
    width = max((len(v.name) for v in verdicts), default=0)
    for verdict in alarms_first(verdicts):
        seen = verdict.evidence.split("; ")[0] if verdict.status == "pass" else verdict.evidence
        status = f"[{COLOURS[verdict.status]}]{verdict.status:<7}[/]"
        terminal.out.print(f"{status}  {escape(f'{verdict.name:<{width}}')}  {escape(seen)}")


def print_selftests(selftests: Sequence[SelfTest]) -> None:
    """Print the self-tests that failed or warned, each with what to do, and how many were asked."""
    for status, word in (("fail", "failed"), ("warn", "warned")):
        for test in selftests:
            if test.status == status:
                said = f"{test.name} ({test.model}): {test.evidence} {test.advice}"
                terminal.out.print(f"[{COLOURS[status]}]self-test {word}:[/] {escape(said)}")
    if selftests:
        counts = Counter(test.status for test in selftests)
        warned = f", {counts['warn']} warn" if counts["warn"] else ""
        said = f"{counts['pass']} pass{warned}, {counts['fail']} fail, {counts['unknown']} could not be asked"
        terminal.out.print(f"self-tests: {said}")


def print_every_selftest(selftests: Sequence[SelfTest]) -> None:
    """Print all self-tests, one a line, with what to do where one did not pass."""
    width = max((len(test.name) for test in selftests), default=0)
    for test in selftests:
        status = f"[{COLOURS[test.status]}]{test.status:<7}[/]"
        advice = "" if test.status == "pass" else f" {test.advice}"
        terminal.out.print(f"{status}  {test.name:<{width}}  {escape(test.evidence + advice)}")
