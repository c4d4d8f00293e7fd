"""The command that scores prompts, chooses some, and compares templates or sets of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from opd_diag.cli.exits import FailOn, exit_on
from opd_diag.cli.options import OF_MODELS, takes_options_of
from opd_diag.cli.printing import print_plans, print_study
from opd_diag.cli.progress import drawn_progress


def prompts_with_options_of(report: Callable[..., None]) -> Callable[..., None]:
    """Make the command; it takes those options of ``report`` that tell of models."""

    @takes_options_of(report, OF_MODELS)
    def prompts(  # noqa: PLR0913 - the options of the contract
        student: Annotated[str, typer.Option(help="Student: folder or hub id[@revision].")],
        teacher: Annotated[str, typer.Option(help="Teacher: folder, hub id[@revision], or server as vllm=URL#NAME.")],
        prompts: Annotated[str, typer.Option(help="Prompts: JSON lines, parquet, or text, one a line.")],
        select: Annotated[int | None, typer.Option(metavar="N", help="Choose N prompts and write them.")] = None,
        by: Annotated[
            str | None,
            typer.Option(
                help="What ranks them: teacher_lead (default where prompts have answers), reverse_kl_of_response "
                "(default elsewhere) or student_overlap_mass."
            ),
        ] = None,
        min_entropy: Annotated[
            float | None,
            typer.Option(help="Least student entropy of a chosen prompt, nats. Default: leave out the lowest tenth."),
        ] = None,
        out_of_distribution: Annotated[
            float, typer.Option(help="Share of the chosen that is drawn at random from the rest.")
        ] = 0.2,
        template: Annotated[
            list[Path] | None,
            typer.Option(
                "--template",
                "--against-template",
                metavar="FILE",
                help="Chat template (jinja) to hold against the tokenizer's; may be given more than once.",
            ),
        ] = None,
        against: Annotated[
            str | None, typer.Option(metavar="FILE", help="Other prompts, or other wordings under the same ids.")
        ] = None,
        rollouts_per_prompt: Annotated[int | None, typer.Option(help="Default 4.")] = None,
        max_prompts: Annotated[int | None, typer.Option(help="Default: all.")] = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Output folder. Default: opd-diag/prompts/<student> here.")
        ] = None,
        thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
        fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
        **options: Any,
    ) -> None:
        """Score prompts by how both models agree on them; choose some (--select); compare templates or sets."""
        from opd_diag.report.study import write_study
        from opd_diag.studies.naming import study_folder
        from opd_diag.studies.prompts import plan_prompts
        from opd_diag.studies.prompts import prompts as study_of
        from opd_diag.verdicts import load_thresholds

        limits = load_thresholds(thresholds)
        folder = study_folder("prompts", student, out)
        plan, quiet = (options.pop(name) for name in ("plan", "quiet"))
        asked: dict[str, Any] = {
            "select": select,
            "by": by,
            "min_entropy": min_entropy,
            "out_of_distribution": out_of_distribution,
            "templates": template or (),
            "against": against,
            "rollouts_per_prompt": rollouts_per_prompt,
            "max_prompts": max_prompts,
            "out": folder,
            **options,
        }
        if plan:
            print_plans(plan_prompts(student, teacher, prompts, **asked)[1])
            return
        with drawn_progress(quiet) as progress:
            study = study_of(student, teacher, prompts, progress=progress, thresholds=limits, **asked)
        print_study(study, write_study(study, folder))
        exit_on(study.verdicts, fail_on)

    return prompts
