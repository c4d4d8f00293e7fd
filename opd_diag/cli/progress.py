"""Long work, drawn while it goes on: a bar on a terminal, one line a task elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opd_diag.cli import terminal

if TYPE_CHECKING:
    from opd_diag.replay.replay import Progress


@contextmanager
def drawn_progress(quiet: bool) -> Iterator[Progress | None]:
    """Draw a bar with rate and time left on a terminal, one line a task elsewhere."""
    if quiet:
        yield None
    elif terminal.err.is_terminal:
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
    with Bars(*columns, console=terminal.err, transient=True) as bars:
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
            terminal.err.print(f"{what}: {total:,} in {seconds:.1f} s", markup=False)

    return draw
