"""The command that holds teachers side by side before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.options import OF_MODELS, Command, takes_options_of
from opd_diag.cli.printing import print_plans, print_study
from opd_diag.cli.progress import drawn_progress


def teachers_with_options_of(report: Command) -> Command:
    """Give the command, which takes the options of `report` that make sense of models."""

    @takes_options_of(report, (*OF_MODELS, "store"))
    def teachers(
        student: Annotated[str, typer.Option(help="Student: folder or hub id[@revision].")],
        teacher: Annotated[
            list[str], typer.Option(help="Teacher: folder, hub id, or server as vllm=URL#NAME; give it once for each.")
        ],
        before: Annotated[
            str | None,
            typer.Option(help="The student before its RL: says who would pull it back there (reverse distillation)."),
        ] = None,
        out_dir: Annotated[
            Path | None, typer.Option("--out", help="Output folder. Default: opd-diag/teachers/<student name> here.")
        ] = None,
        thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
        fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
        **options: Any,
    ) -> None:
        """Hold teachers side by side before training: who fits the student, who brings something new, who is one."""
        from opd_diag.report.study import write_study
        from opd_diag.studies import teachers as study_teachers
        from opd_diag.studies.naming import study_folder
        from opd_diag.studies.teachers import plan_teachers
        from opd_diag.verdicts import load_thresholds

        limits = load_thresholds(thresholds)
        folder = study_folder("teachers", student, out_dir)
        plan, quiet = (options.pop(name) for name in ("plan", "quiet"))
        if plan:
            planned = plan_teachers(student, teacher, before=before, out=folder, **options)
            print_plans(planned.plans, errors=planned.errors)
            return
        with drawn_progress(quiet) as progress:
            study = study_teachers(
                student, teacher, before=before, out=folder, progress=progress, thresholds=limits, **options
            )
        print_study(study, write_study(study, folder))
        exit_on(study.verdicts, fail_on)

    return teachers
