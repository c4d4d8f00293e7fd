"""The terminal door: parse, call, draw progress, print, exit code."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opd_diag.errors import InputError, OpdDiagError

if TYPE_CHECKING:
    from opd_diag.records.verdict import Verdict
    from opd_diag.replay.replay import Progress
    from opd_diag.report import Report

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="opd-diag",
    help="Diagnose on-policy distillation: replay the checkpoints of a run over the states the student visits.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
UNCUT = 10_000
"""Width at which no cell of a table is cut; the terminal wraps long lines itself."""
out = Console(soft_wrap=True, highlight=False, emoji=False, width=UNCUT)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

INTERRUPTED = 130
COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "unknown": "bright_black"}


class FailOn(StrEnum):
    """Which verdicts make the exit code 1."""

    never = "never"
    fail = "fail"
    warn = "warn"
    unknown = "unknown"


def main() -> None:
    """Run the terminal program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode is no reason for a traceback
            stream.reconfigure(errors="backslashreplace")
    app()


def shows_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one sentence and exit code 2, Ctrl-C into 130."""

    @functools.wraps(command)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except OpdDiagError as error:
            err.print(f"[red]error:[/red] {escape(str(error))}")
            raise typer.Exit(2) from error
        except PermissionError as error:  # of a folder above something that was named
            err.print(f"[red]error:[/red] {escape(f'{error.filename} may not be read. Ask for the permission.')}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            err.print("Interrupted. Run the same command again: what was finished is kept.")
            raise typer.Exit(INTERRUPTED) from error

    return shown


RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run, as the trainer wrote it.")]
OutDir = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of a finished report.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan and no progress.")]
Text = Annotated[str | None, typer.Option(metavar="TEXT")]


@app.command()
@shows_errors
def report(  # noqa: PLR0913 - the options of the contract
    run_dir: RunDir,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Output folder. Default: opd-diag/<run name> here.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="Initial student (step 0): folder or hub id[@revision].")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher: folder or hub id[@revision].")] = None,
    prompts: Annotated[str | None, typer.Option(help="Prompts: JSON lines, parquet, or text, one a line.")] = None,
    rollouts: Annotated[
        str | None, typer.Option(help="Recorded rollouts: JSON lines of an earlier OUT_DIR, a file or their folder.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Model under the adapters.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer: folder or hub id.")] = None,
    states: Annotated[str | None, typer.Option(help="Of on-policy,start,teacher (default) and back.")] = None,
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
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default float32.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Steps or labels to use of those found: 20,40.")] = None,
    layout: Annotated[str | None, typer.Option(help="How the run is laid out: manifest, hf_trainer, single.")] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that shares rollouts and scores between reports.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would cost, do nothing.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.never,
    quiet: Quiet = False,
) -> None:
    """Find checkpoints, replay them, and write the report."""
    from opd_diag.diagnosis import diagnose, plan_report

    options = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    options["chat_template_kwargs"] = _json_option(chat_template_kwargs)
    if plan or not quiet:
        for line in plan_report(run_dir, out=out_dir, **options).description():
            err.print(escape(line))
    if plan:
        return
    with _progress(quiet) as progress:
        finished = diagnose(run_dir, out=out_dir, progress=progress, **options)
    _print_report(finished)
    _exit_on(finished.verdicts, fail_on)


_NOT_SETTINGS = {"run_dir", "out_dir", "plan", "fail_on", "quiet", "diagnose", "plan_report"}


@app.command()
@shows_errors
def check(
    out_dir: OutDir,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the verdicts as JUnit XML.")] = None,
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: name = number.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 if a verdict is as bad as this.")] = FailOn.fail,
) -> None:
    """Judge again what a report left; no model is loaded."""
    from opd_diag.diagnosis import check as check_out_dir
    from opd_diag.report.junit import write_junit
    from opd_diag.verdicts import DEFAULTS, load_thresholds

    limits = DEFAULTS if thresholds is None else load_thresholds(thresholds)
    verdicts = check_out_dir(out_dir, thresholds=limits)
    if junit is not None:
        write_junit(junit, out_dir.name, verdicts, _failing(fail_on))
    _print_verdicts(verdicts)
    _exit_on(verdicts, fail_on)


@app.command()
@shows_errors
def inspect(
    run_dir: RunDir,
    base_model: Annotated[str | None, typer.Option(help="Model under the adapters.")] = None,
    layout: Annotated[str | None, typer.Option(help="How the run is laid out: manifest, hf_trainer, single.")] = None,
) -> None:
    """Show the checkpoints and inputs that a report would use; load nothing."""
    from opd_diag.runs import find_checkpoints, inspection_rows, named_inputs, read_manifest

    manifest = read_manifest(run_dir)
    found = find_checkpoints(run_dir, base_model=base_model, layout=layout, manifest=manifest)
    table = Table("step", "label", "kind", "MB", "loadable", "path", box=None, pad_edge=False)
    rows = inspection_rows(found)
    for row in rows:
        size = "" if row.megabytes is None else f"{row.megabytes:.1f}"
        step = "?" if row.step is None else str(row.step)
        table.add_row(step, escape(row.label), row.kind, size, "yes" if row.loadable else "no", escape(row.path))
    out.print(table)
    for row in rows:
        for text in (f"{row.blocker} {row.way_out}".strip(), row.note):
            if text:
                out.print(f"{escape(row.label)}: {escape(text)}")
    for named in named_inputs(manifest.settings):
        out.print(f"{named.name}: {escape(named.value)} ({named.found})")


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
        with _progress(quiet) as progress:
            finished = diagnose(run_dir, out=out_dir / run_dir.name, progress=progress)
        _print_headline(finished)
        pages.append(finished.out_dir / "report.html")
    for page in pages:
        out.print(f"page: {escape(str(page))}")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Diagnose on-policy distillation."""
    if show:
        from importlib import metadata

        out.print(metadata.version("opd-diag"))
        raise typer.Exit


def _json_option(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--chat-template-kwargs must be JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"--chat-template-kwargs must be a JSON object, found {type(value).__name__}.")
    return value


def _failing(fail_on: FailOn) -> tuple[str, ...]:
    return {
        FailOn.never: (),
        FailOn.fail: ("fail",),
        FailOn.warn: ("fail", "warn"),
        FailOn.unknown: ("fail", "warn", "unknown"),
    }[fail_on]


def _exit_on(verdicts: Sequence[Verdict], fail_on: FailOn) -> None:
    if any(v.status in _failing(fail_on) for v in verdicts):
        raise typer.Exit(1)


def _print_headline(finished: Report) -> None:
    head = finished.headline
    out.print(f"[bold]{escape(finished.run)}[/bold]: [{COLOURS[head.status]}]{escape(head.title)}[/]")


def _print_report(finished: Report) -> None:
    _print_headline(finished)
    _print_verdicts(finished.verdicts)
    for checkpoint in finished.checkpoints:
        if not checkpoint.loadable:
            err.print(f"[yellow]left out:[/yellow] {escape(checkpoint.label)}: {escape(checkpoint.blocker or '')}")
    out.print(f"page: {escape(str(finished.out_dir / 'report.html'))}")


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    width = max(len(v.name) for v in verdicts)
    for verdict in verdicts:
        status = f"[{COLOURS[verdict.status]}]{verdict.status:<7}[/]"
        out.print(f"{status}  {verdict.name:<{width}}  {escape(verdict.evidence)}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """Draw a bar with rate and time left on a terminal, one line a task elsewhere."""
    if quiet:
        yield None
    elif err.is_terminal:
        with _bars() as progress:
            yield progress
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<38}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=err, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def draw(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=total, rate="")
            speed = bars.tasks[tasks[what]].speed
            bars.update(tasks[what], completed=done, rate="" if speed is None else f"{speed:,.0f}/s")

        yield draw


def _lines() -> Progress:
    import time

    started: dict[str, float] = {}
    told: set[str] = set()

    def draw(what: str, done: int, total: int) -> None:
        begin = started.setdefault(what, time.monotonic())
        if done == total and what not in told:
            told.add(what)
            seconds = time.monotonic() - begin
            err.print(f"{what}: {total:,} in {seconds:.1f} s", markup=False)

    return draw
