"""What the terminal says of a report: its plan, its cost, its verdicts; on a screen laid out, elsewhere a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opd_diag.cli import screen, terminal
from opd_diag.cli.screen import COLOURS
from opd_diag.cli.terminal import plain
from opd_diag.errors import CheckpointError, ModelError, ServerError
from opd_diag.records.verdict import alarms_first

if TYPE_CHECKING:
    from pathlib import Path

    from opd_diag.records.selftest import SelfTest
    from opd_diag.records.verdict import Verdict
    from opd_diag.replay import ReplayPlan
    from opd_diag.replay.cost import Prediction
    from opd_diag.report import Report
    from opd_diag.studies import Study


def print_plan(plan: ReplayPlan) -> Prediction | None:
    """Print what a report will do and cost; give the prediction, if there is one."""
    from opd_diag.replay.cost import predicted

    for line in plan.description():
        terminal.err.print(plain(line))
    try:
        prediction = predicted(plan)
    except (
        CheckpointError,
        ModelError,
        ServerError,
    ) as error:  # the report may do without this model: it says so itself
        terminal.err.print(plain(f"cost         unknown: {error}"))
        return None
    for line in prediction.lines():
        terminal.err.print(plain(line))
    return prediction


def print_plans(plans: Mapping[str, ReplayPlan], *beyond: str, errors: Mapping[str, Exception] | None = None) -> None:
    """Print what a study will do and cost: of each replay, under its name where there are several, and of all.

    Parameters
    ----------
    plans
        By name.
    beyond
        What else it does that no replay has, one line each.
    errors
        Why others are left out, by name.
    """
    found = []
    for name, plan in plans.items():
        if len(plans) > 1 or errors:
            terminal.err.print(plain(f"== {name}"))
        found.append(print_plan(plan))
    for name, error in (errors or {}).items():
        terminal.err.print(f"[yellow]left out:[/yellow] {plain(name)}: {plain(str(error))}")
    known = [prediction.likely for prediction in found if prediction is not None]
    if len(found) > 1 and len(known) == len(found):
        from opd_diag.replay.cost import total_line

        terminal.err.print(plain(total_line(known)))
    for line in beyond:
        terminal.err.print(plain(f"beyond it    {line}"))


def print_cost(finished: Report) -> None:
    """Print what was predicted beside what it was."""
    from opd_diag.replay.cost import cost_lines

    for line in cost_lines(finished.provenance["cost"]):
        terminal.err.print(plain(line))


def print_headline(finished: Report) -> None:
    """Print the whole in one line."""
    head = finished.headline
    if screen.is_screen(terminal.out):
        screen.show_headline(finished.run, head.status, head.title, head.facts, head.advice)
    else:
        _print_head(finished.run, head.status, head.title)


def _print_head(subject: str, status: str, title: str) -> None:
    terminal.out.print(f"[bold]{plain(subject)}[/bold]: [{COLOURS[status]}]{plain(title)}[/]")


def print_report(finished: Report) -> None:
    """Print headline, failed self-tests, verdicts, what was left out, and where the page is."""
    print_headline(finished)
    print_selftests(finished.selftests)
    print_verdicts(finished.verdicts)
    for checkpoint in finished.checkpoints:
        if not checkpoint.loadable:
            terminal.err.print(
                f"[yellow]left out:[/yellow] {plain(checkpoint.label)}: {plain(checkpoint.blocker or '')}"
            )
    terminal.out.print(f"page: {plain(str(finished.out_dir / 'report.html'))}")


def print_study(study: Study, page: Path) -> None:
    """Print the answer, the verdicts it rests on, and where the page is."""
    if screen.is_screen(terminal.out):
        screen.show_headline(study.subject, study.status, study.headline, study.said, study.advice)
    else:
        _print_head(study.subject, study.status, study.headline)
    print_verdicts(study.verdicts)
    terminal.out.print(f"page: {plain(str(page))}")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts, alarms first; of those that pass only what was seen, without the details."""
    if screen.is_screen(terminal.out):
        screen.show_verdicts(verdicts)
        return
    width = max((len(v.name) for v in verdicts), default=0)
    for verdict in alarms_first(verdicts):
        seen = verdict.evidence.split("; ")[0] if verdict.status == "pass" else verdict.evidence
        status = f"[{COLOURS[verdict.status]}]{verdict.status:<7}[/]"
        terminal.out.print(f"{status}  {plain(f'{verdict.name:<{width}}')}  {plain(seen)}")


def print_selftests(selftests: Sequence[SelfTest]) -> None:
    """Print the self-tests that failed or warned, each with what to do, and how many were asked."""
    if screen.is_screen(terminal.out):
        screen.show_selftests(selftests)
        return
    for status, word in (("fail", "failed"), ("warn", "warned")):
        for test in selftests:
            if test.status == status:
                said = f"{test.name} ({test.model}): {test.evidence} {test.advice}"
                terminal.out.print(f"[{COLOURS[status]}]self-test {word}:[/] {plain(said)}")
    if selftests:
        counts = Counter(test.status for test in selftests)
        warned = f", {counts['warn']} warn" if counts["warn"] else ""
        said = f"{counts['pass']} pass{warned}, {counts['fail']} fail, {counts['unknown']} could not be asked"
        terminal.out.print(f"self-tests: {said}")


def print_every_selftest(selftests: Sequence[SelfTest]) -> None:
    """Print all self-tests, with what to do where one did not pass."""
    if screen.is_screen(terminal.out):
        screen.show_every_selftest(selftests)
        return
    width = max((len(test.name) for test in selftests), default=0)
    for test in selftests:
        status = f"[{COLOURS[test.status]}]{test.status:<7}[/]"
        advice = "" if test.status == "pass" else f" {test.advice}"
        terminal.out.print(f"{status}  {test.name:<{width}}  {plain(test.evidence + advice)}")
