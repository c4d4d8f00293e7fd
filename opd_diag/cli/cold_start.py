"""The command that tells whether a pair needs a cold start, writes data for one, and tells what one did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.options import OF_MODELS, takes_options_of
from opd_diag.cli.printing import print_plans, print_study
from opd_diag.cli.progress import drawn_progress


def cold_start_with_options_of(report: Callable[..., None]) -> Callable[..., None]:
    """Make the command; it takes those options of ``report`` that tell of models."""

    @takes_options_of(report, OF_MODELS)
    def cold_start(
        student: Annotated[str, typer.Option(help="Student before any cold start: folder or hub id[@revision].")],
        teacher: Annotated[str, typer.Option(help="Teacher: folder, hub id[@revision], or server as vllm=URL#NAME.")],
        prompts: Annotated[str, typer.Option(help="Prompts: JSON lines, parquet, or text, one a line.")],
        after: Annotated[str | None, typer.Option(help="The student after a cold start; then: what it did.")] = None,
        out: Annotated[
            Path | None, typer.Option(help="Output folder. Default: opd-diag/cold-start/<student> here.")
        ] = None,
        responses: Annotated[
            int | None,
            typer.Option(help="Teacher responses to sample as data, to more prompts. Default: those measured."),
        ] = None,
        only_correct: Annotated[
            bool, typer.Option("--only-correct", help="Keep as data only what is graded as correct.")
        ] = False,
        thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
        fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
        **options: Any,
    ) -> None:
        """Tell whether a pair needs a cold start, write the data for one, and tell what one did (--after)."""
        from opd_diag.report.study import write_study
        from opd_diag.studies.cold_start import cold_start as study_of
        from opd_diag.studies.cold_start import plan_cold_start
        from opd_diag.studies.naming import study_folder
        from opd_diag.verdicts import load_thresholds

        limits = load_thresholds(thresholds)
        folder = study_folder("cold-start", student, out)
        named: dict[str, Any] = {"after": after, "out": folder, "responses": responses, "only_correct": only_correct}
        plan, quiet = (options.pop(name) for name in ("plan", "quiet"))
        if plan:
            more = () if responses is None else (f"{responses} more responses of the teacher, as data",)
            print_plans({folder.name: plan_cold_start(student, teacher, prompts, **named, **options)}, *more)
            return
        with drawn_progress(quiet) as progress:
            study = study_of(student, teacher, prompts, progress=progress, thresholds=limits, **named, **options)
        print_study(study, write_study(study, folder))
        exit_on(study.verdicts, fail_on)

    return cold_start
