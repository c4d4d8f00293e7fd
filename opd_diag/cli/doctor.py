"""The command that runs the self-tests alone, with the options of a report."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from opd_diag.cli.options import Command, takes_options_of
from opd_diag.cli.printing import print_every_selftest
from opd_diag.cli.progress import drawn_progress

OF_REPORTS_ALONE = ("plan", "fail_on")
"""Options of ``report`` that say nothing to self-tests."""


def doctor_with_options_of(report: Command) -> Command:
    """Give the command, which takes every option of `report` that makes sense: what it makes, that report finds."""
    wanted = [name for name in inspect.signature(report).parameters if name not in OF_REPORTS_ALONE]

    @takes_options_of(report, wanted)
    def doctor(**options: Any) -> None:
        """Ask the measurement itself: self-tests on a few responses of the first checkpoint, and the teacher.

        Exit with 1 if one fails. A report with the same options asks them of every checkpoint.
        """
        from opd_diag.diagnosis import ask, plan_report

        run_dir, out_dir, quiet = (options.pop(name) for name in ("run_dir", "out_dir", "quiet"))
        planned = plan_report(run_dir, out=out_dir, **options)
        with drawn_progress(quiet) as progress:
            tests = ask(planned, out=out_dir, progress=progress)
        print_every_selftest(tests)
        if any(test.status == "fail" for test in tests):
            raise typer.Exit(1)

    return doctor
