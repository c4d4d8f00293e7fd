"""The command that holds finished reports against each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.printing import print_study
from opd_diag.cli.terminal import shows_errors


@shows_errors
def compare(
    out_dirs: Annotated[list[Path], typer.Argument(metavar="OUT_A OUT_B …", help="Folders of finished reports.")],
    to: Annotated[Path, typer.Option("--out", help="Output folder.")] = Path("opd-diag/compare"),
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
) -> None:
    """Hold runs against each other, paired where they share prompts; the first is what others are held against."""
    from opd_diag.errors import StoreError
    from opd_diag.replay.marker import MARKER
    from opd_diag.report.study import write_study
    from opd_diag.studies import compare as compare_runs
    from opd_diag.verdicts import load_thresholds

    folder = to.expanduser()
    reports = {os.path.realpath(of.expanduser()) for of in out_dirs}
    if os.path.realpath(folder) in reports or os.path.isfile(folder / MARKER):
        raise StoreError(f"The output folder {to} holds a report. Choose another with --out.")
    limits = load_thresholds(thresholds)
    study = compare_runs(out_dirs, thresholds=limits)
    print_study(study, write_study(study, folder))
    exit_on(study.verdicts, fail_on)
