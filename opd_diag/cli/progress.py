"""Long work, drawn while it goes on: a bar on a screen; elsewhere a line a task, and one a minute of a long one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opd_diag.cli import terminal
from opd_diag.cli.screen import is_screen
from opd_diag.cli.terminal import inert

if TYPE_CHECKING:
    from opd_diag.replay.replay import Progress


@contextmanager
def drawn_progress(quiet: bool) -> Iterator[Progress | None]:
    """Draw a bar with rate and time left on a screen; elsewhere a line when a task is done, and one a minute before."""
    if quiet:
        yield None
    elif is_screen(terminal.err):
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
            what = inert(what)
            if what not in tasks:
                for task in (task for task in tasks.values() if bars.tasks[task].finished):
                    bars.update(task, visible=False)  # others may go on beside the new one
                tasks[what] = bars.add_task(what, total=total, rate="")
            speed = bars.tasks[tasks[what]].speed
            bars.update(tasks[what], completed=done, rate="" if speed is None else f"{speed:,.0f}/s")

        yield draw


EVERY = 60.0
"""Seconds between the lines of one task in a log."""


def _lines() -> Progress:
    import time

    started: dict[str, float] = {}
    told_at: dict[str, float] = {}
    finished: set[str] = set()

    def draw(what: str, done: int, total: int) -> None:
        what, now = inert(what), time.monotonic()
        begin = started.setdefault(what, now)
        if what in finished:
            return
        if done == total:
            finished.add(what)
            terminal.err.print(f"{what}: {total:,} in {now - begin:.1f} s", markup=False)
        elif now - told_at.setdefault(what, begin) >= EVERY:
            told_at[what] = now
            left = "" if done == 0 else f", some {(now - begin) * (total - done) / done / 60:.0f} min left"
            terminal.err.print(f"{what}: {done:,} of {total:,} after {(now - begin) / 60:.0f} min{left}", markup=False)

    return draw
