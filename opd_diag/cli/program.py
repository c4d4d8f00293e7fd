"""The commands that make, judge and show reports: parse, call, print, exit code."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from opd_diag.cli import terminal
from opd_diag.cli.cold_start import cold_start_with_options_of
from opd_diag.cli.compare import compare
from opd_diag.cli.doctor import doctor_with_options_of
from opd_diag.cli.exits import FailOn, exit_on, failing
from opd_diag.cli.horizon import horizon_with_options_of
from opd_diag.cli.options import json_option
from opd_diag.cli.outcome import outcome
from opd_diag.cli.printing import (
    print_cost,
    print_headline,
    print_plan,
    print_report,
    print_selftests,
    print_verdicts,
)
from opd_diag.cli.progress import drawn_progress
from opd_diag.cli.prompts import prompts_with_options_of
from opd_diag.cli.store import store
from opd_diag.cli.teachers import teachers_with_options_of
from opd_diag.cli.terminal import shows_errors

app = typer.Typer(
    name="opd-diag",
    help="Diagnose on-policy distillation: replay the checkpoints of a run over the states the student visits.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the terminal program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode is no reason for a traceback
            stream.reconfigure(errors="backslashreplace")
    app()


RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run, as the trainer wrote it.")]
OutDir = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of a finished report.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan, no progress, no cost. What was left out is still said.")]
Text = Annotated[str | None, typer.Option(metavar="TEXT")]
Layout = Annotated[
    str | None, typer.Option(help="How the run is laid out, as hf_trainer or verl_fsdp; inspect says which was taken.")
]
Steps = Annotated[
    str | None, typer.Option(metavar="STEP=FOLDER,…", help="The checkpoints, in place of looking for them.")
]
StepBase = Annotated[
    int | None, typer.Option(min=0, max=1, help="What the trainer numbers the first update. Default: by its layout.")
]


@app.command()
@shows_errors
def report(  # noqa: PLR0913 - the options of the contract
    run_dir: RunDir,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Output folder. Default: opd-diag/<run name> here.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="Initial student (step 0): folder or hub id[@revision].")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher: folder, hub id[@revision], or server as vllm=URL#NAME.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="Prompts: JSON lines, parquet, or text, one a line.")] = None,
    rollouts: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Recorded rollouts, of a trainer or an earlier OUT_DIR: file or folder."),
    ] = None,
    max_staleness: Annotated[
        int | None,
        typer.Option(
            help="Most updates from a checkpoint to the weights that wrote recorded rollouts. Default: less than "
            "between two checkpoints."
        ),
    ] = None,
    teacher_model: Annotated[
        str | None,
        typer.Option(help="What the teacher's server calls it, as #NAME in its address. Default: the one it has."),
    ] = None,
    teacher_top: Annotated[
        int | None,
        typer.Option(help="Most probable ids asked of the teacher's server; -1: all. Default: 128, or what it allows."),
    ] = None,
    teacher_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a teacher behind a server.")] = None,
    requests: Annotated[int | None, typer.Option(help="Given to the teacher's server at once. Default 16.")] = None,
    allow_pickle: Annotated[
        bool | None,
        typer.Option(
            "--allow-pickle", help="Read recorded rollouts that may run code; pickled weights under torch < 2.10."
        ),
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Model under the adapters.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer: folder or hub id.")] = None,
    states: Annotated[
        str | None, typer.Option(help="Of on-policy,start,teacher (default), back, near-on-policy.")
    ] = None,
    k: Annotated[int | None, typer.Option(help="Tokens compared, 1 to 32. Default 16.")] = None,
    rollouts_per_prompt: Annotated[int | None, typer.Option(help="Default 2.")] = None,
    max_prompts: Annotated[int | None, typer.Option(help="Default 64.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default 256.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of sampling; 0 is greedy. Default 1.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of sampling. Default 1.")] = None,
    student_temperature: Annotated[float | None, typer.Option(help="Of the scored student. Default 1.")] = None,
    teacher_temperature: Annotated[float | None, typer.Option(help="Of the scored teacher. Default 1.")] = None,
    teacher_template: Annotated[str | None, typer.Option(help="Chat template file for what the teacher sees.")] = None,
    teacher_system_prompt: Annotated[str | None, typer.Option(help="System message the teacher sees.")] = None,
    chat_template_kwargs: Annotated[
        str | None, typer.Option(help='JSON for the chat template: {"enable_thinking": false}.')
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampling. Default 0.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, … Default auto.")] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            help="Spread models over GPUs and the CPU's memory: auto, balanced, sequential, JSON of {module: device}, "
            'or of {"student": …, "teacher": …}, or its file. Needs accelerate.'
        ),
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(metavar="N", help="Load the teacher in N shards, each in a process and on a GPU of its own."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default float32.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Steps or labels to use of those found: 20,40.")] = None,
    layout: Layout = None,
    steps: Steps = None,
    step_base: StepBase = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = None,
    logs: Annotated[
        str | None, typer.Option(metavar="PATH", help="The trainer's log or its folder. Default: those in RUN_DIR.")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Of the trainer's loss: 1 is reverse KL, 0 forward KL.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that shares rollouts and scores between reports.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Who samples responses: local (default), or vllm, in a process for each model.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local, or ray: workers on one machine or many.")] = None,
    workers: Annotated[int | None, typer.Option(help="Of ray. Default: as many as fit the cluster.")] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(help="CPUs, and threads, of each. Default 1.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="GPUs of each, as 0.5. Default: 1 where there are any.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would cost, do nothing.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
    quiet: Quiet = False,
) -> None:
    """Find checkpoints, replay them, and write the report."""
    from opd_diag.diagnosis import carry_out, plan_report

    options = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    options["chat_template_kwargs"] = json_option(chat_template_kwargs)
    planned = plan_report(run_dir, out=out_dir, **options)
    if planned.other_dtype:
        terminal.err.print(f"[yellow]precision:[/yellow] {escape(planned.other_dtype)}")
    prediction = print_plan(planned) if plan or not quiet else None
    if plan:
        return
    with drawn_progress(quiet) as progress:
        finished = carry_out(planned, out=out_dir, progress=progress, prediction=prediction)
    if not quiet:
        print_cost(finished)
    print_report(finished)
    exit_on([*finished.verdicts, *finished.selftests], fail_on)


_NOT_SETTINGS = {"run_dir", "out_dir", "plan", "fail_on", "quiet", "carry_out", "plan_report"}


@app.command()
@shows_errors
def check(
    out_dir: OutDir,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write verdicts and self-tests as JUnit XML.")
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.fail,
) -> None:
    """Judge again what a report left; no model is loaded. A self-test counts as a verdict of its status."""
    from opd_diag.diagnosis import check as check_out_dir
    from opd_diag.replay.selftests import load_selftests
    from opd_diag.report.junit import write_junit
    from opd_diag.verdicts import load_thresholds

    limits = load_thresholds(thresholds)
    verdicts = check_out_dir(out_dir, thresholds=limits)
    selftests = load_selftests(out_dir)
    if junit is not None:
        write_junit(junit, out_dir.resolve().name, verdicts, failing(fail_on), selftests)
    print_selftests(selftests)
    print_verdicts(verdicts)
    exit_on([*verdicts, *selftests], fail_on)


@app.command()
@shows_errors
def inspect(
    run_dir: RunDir,
    base_model: Annotated[str | None, typer.Option(help="Model under the adapters.")] = None,
    student: Annotated[str | None, typer.Option(help="Initial student, whose config serves bare weights.")] = None,
    layout: Layout = None,
    steps: Steps = None,
    step_base: StepBase = None,
) -> None:
    """Show the checkpoints and inputs that a report would use; load nothing."""
    from opd_diag.cli.inspecting import print_found, print_inputs, print_recorded
    from opd_diag.runs import find_run, read_manifest

    manifest = read_manifest(run_dir)
    found = find_run(
        run_dir,
        base_model=base_model,
        student=student,
        layout=layout,
        manifest=manifest,
        steps=steps,
        step_base=step_base,
    )
    print_found(found)
    print_recorded(found.folder, found.layout)
    print_inputs(manifest.settings)


@app.command()
@shows_errors
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the reports.")] = Path("opd-diag/demo"),
    quiet: Quiet = False,
) -> None:
    """Replay the bundled runs and make their reports; nothing is downloaded."""
    import torch

    from opd_diag.diagnosis import demo_runs, diagnose

    torch.set_num_threads(1)  # models this small lose more to threads that wait for each other than they gain
    pages = []
    for run_dir in demo_runs():
        with drawn_progress(quiet) as progress:
            finished = diagnose(run_dir, out=out_dir / run_dir.name, progress=progress)
        print_headline(finished)
        pages.append(finished.out_dir / "report.html")
    for page in pages:
        terminal.out.print(f"page: {escape(str(page))}")


app.command()(doctor_with_options_of(report))
app.command()(horizon_with_options_of(report))
app.command()(outcome)
app.command()(compare)
app.command("cold-start")(cold_start_with_options_of(report))
app.command()(teachers_with_options_of(report))
app.command()(prompts_with_options_of(report))
app.command()(store)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Diagnose on-policy distillation."""
    if show:
        from importlib import metadata

        terminal.out.print(metadata.version("opd-diag"))
        raise typer.Exit
