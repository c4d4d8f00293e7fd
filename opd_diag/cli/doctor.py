"""The command that runs the self-tests alone, with the options of a report."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from opd_diag.cli.printing import print_every_selftest
from opd_diag.cli.progress import drawn_progress
from opd_diag.cli.terminal import shows_errors
from opd_diag.errors import InputError

OF_REPORTS_ALONE = ("plan", "fail_on")
"""Options of ``report`` that say nothing to self-tests."""


def doctor_with_options_of(report: Callable[..., None]) -> Callable[..., None]:
    """Give the command, which takes every option of `report` that makes sense: what it makes, that report finds."""
    of_report = inspect.signature(report, eval_str=True)
    wanted = [p for name, p in of_report.parameters.items() if name not in OF_REPORTS_ALONE]

    @shows_errors
    def doctor(run_dir: Path, out_dir: Path | None, quiet: bool, **options: Any) -> None:
        """Ask the measurement itself: self-tests on a few responses of the first checkpoint, and the teacher.

        Exit with 1 if one fails. A report with the same options asks them of every checkpoint.
        """
        from opd_diag.diagnosis import ask, plan_report

        options["chat_template_kwargs"] = json_option(options["chat_template_kwargs"])
        planned = plan_report(run_dir, out=out_dir, **options)
        with drawn_progress(quiet) as progress:
            tests = ask(planned, out=out_dir, progress=progress)
        print_every_selftest(tests)
        if any(test.status == "fail" for test in tests):
            raise typer.Exit(1)

    doctor.__signature__ = of_report.replace(parameters=wanted)  # type: ignore[attr-defined]
    doctor.__annotations__ = {p.name: p.annotation for p in wanted}
    return doctor


def json_option(text: str | None) -> dict[str, Any] | None:
    """Read ``--chat-template-kwargs``.

    Raises
    ------
    InputError
        It is no JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--chat-template-kwargs must be JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"--chat-template-kwargs must be a JSON object, found {type(value).__name__}.")
    return value
