"""The command that tells what came of a run at its task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.printing import print_study
from opd_diag.cli.terminal import shows_errors


@shows_errors
def outcome(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of a finished report.")],
    to: Annotated[Path | None, typer.Option("--out", help="Output folder. Default: OUT_DIR/outcome.")] = None,
    grader: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Python function (text, answer) that grades responses anew."),
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
) -> None:
    """Tell what came of a run at its task: pass@k, prompts solved and forgotten, what of the teacher's lead arrived."""
    from opd_diag.cli.grading import function_named
    from opd_diag.report.study import write_study
    from opd_diag.studies import outcome as outcome_of
    from opd_diag.verdicts import load_thresholds

    limits = load_thresholds(thresholds)
    study = outcome_of(out_dir, grader=None if grader is None else function_named(grader), thresholds=limits)
    print_study(study, write_study(study, to or out_dir / "outcome"))
    exit_on(study.verdicts, fail_on)
