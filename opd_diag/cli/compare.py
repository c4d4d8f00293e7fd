"""The command that holds finished reports against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_diag.cli.printing import print_study
from opd_diag.cli.terminal import shows_errors


@shows_errors
def compare(
    out_dirs: Annotated[list[Path], typer.Argument(metavar="OUT_A OUT_B …", help="Folders of finished reports.")],
    to: Annotated[Path, typer.Option("--out", help="Output folder.")] = Path("opd-diag/compare"),
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
) -> None:
    """Hold runs against each other, paired where they share prompts; the first is what others are held against."""
    from opd_diag.report.study import write_study
    from opd_diag.studies import compare as compare_runs
    from opd_diag.verdicts import DEFAULTS, load_thresholds

    limits = DEFAULTS if thresholds is None else load_thresholds(thresholds)
    study = compare_runs(out_dirs, thresholds=limits)
    print_study(study, write_study(study, to))
