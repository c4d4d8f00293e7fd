"""The command that tells how long responses may be, with the options of a report."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from opd_diag.cli.doctor import OF_REPORTS_ALONE
from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.options import Command, takes_options_of
from opd_diag.cli.printing import print_plans, print_study
from opd_diag.cli.progress import drawn_progress
from opd_diag.errors import InputError


def horizon_with_options_of(report: Command) -> Command:
    """Give the command, which takes every option of `report` that makes sense: what that stored is found."""
    wanted = [name for name in inspect.signature(report).parameters if name == "plan" or name not in OF_REPORTS_ALONE]

    @takes_options_of(report, wanted)
    def horizon(
        run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run, as the trainer wrote it.")],
        cohort_length: Annotated[
            int | None, typer.Option(help="Tokens that a rollout must have to be counted. Default: the median.")
        ] = None,
        depths: Annotated[
            str | None, typer.Option(metavar="N,…", help="Lengths of the prefixes that are continued. Default: five.")
        ] = None,
        continuations: Annotated[int, typer.Option(help="Of each prefix by each model.")] = 2,
        continuation_prompts: Annotated[int, typer.Option(help="Most prompts whose responses are continued.")] = 64,
        no_continuations: Annotated[bool, typer.Option("--no-continuations", help="Continue nothing.")] = False,
        grader: Annotated[
            str | None,
            typer.Option(metavar="MODULE:FUNCTION", help="Python function (text, answer) that grades responses."),
        ] = None,
        thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
        fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
        **options: Any,
    ) -> None:
        """Tell how long responses may be: how deep the signal reaches, where instability starts, what teachers add."""
        from opd_diag.cli.grading import function_named
        from opd_diag.replay.planning import default_out
        from opd_diag.report.study import write_study
        from opd_diag.studies import horizon as horizon_of
        from opd_diag.studies.horizon import beyond, depths_of, plan_horizon
        from opd_diag.verdicts import DEFAULTS, load_thresholds

        out_dir, quiet, plan = (options.pop(name) for name in ("out_dir", "quiet", "plan"))
        asked: dict[str, Any] = {
            "cohort_length": cohort_length,
            "depths": _numbers(depths),
            "continuations": 0 if no_continuations else continuations,
            "continuation_prompts": continuation_prompts,
        }
        if plan:
            planned = plan_horizon(run_dir, depths_of(**asked), out=out_dir, **options)
            print_plans({planned.run: planned}, *beyond(planned, depths_of(**asked)))
            return
        with drawn_progress(quiet) as progress:
            study = horizon_of(
                run_dir,
                out=out_dir,
                progress=progress,
                thresholds=DEFAULTS if thresholds is None else load_thresholds(thresholds),
                grader=None if grader is None else function_named(grader),
                **asked,
                **options,
            )
        print_study(study, write_study(study, default_out(run_dir, out_dir) / study.name))
        exit_on(study.verdicts, fail_on)

    return horizon


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--depths must be whole numbers separated by commas, found '{text}'.")
    return tuple(map(int, parts))
