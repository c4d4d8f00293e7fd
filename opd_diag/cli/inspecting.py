"""What ``opd-diag inspect`` prints: the checkpoints, what blocks them and what mends it, and the inputs named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from opd_diag.cli import terminal
from opd_diag.cli.terminal import plain
from opd_diag.errors import InputError
from opd_diag.runs import FoundRun, inspection_rows, named_inputs
from opd_diag.runs.inspection import nothing_recorded, recorded_rows
from opd_diag.runs.logged import find_logs
from opd_diag.runs.notes import missing_tokenizer
from opd_diag.runs.recorded import find_recorded


def print_found(found: FoundRun) -> None:
    """Print the table of checkpoints, then, one line each, what blocks them and what to know of the run."""
    table = Table("step", "label", "kind", "MB", "loadable", "path", box=None, pad_edge=False)
    rows = inspection_rows(found.checkpoints)
    for row in rows:
        size = "" if row.megabytes is None else f"{row.megabytes:.1f}"
        step = "?" if row.step is None else str(row.step)
        loadable = "yes" if row.loadable else row.code
        table.add_row(step, plain(row.label), row.kind, size, loadable, plain(row.path))
    terminal.out.print(table)
    for row in rows:
        for text in (f"{row.blocker} {row.way_out}".strip(), row.note):
            if text:
                terminal.out.print(f"{plain(row.label)}: {plain(text)}")
    for note in filter(None, (*found.notes, missing_tokenizer(found.checkpoints))):
        terminal.out.print(f"run: {plain(note)}")
    terminal.out.print(f"layout: {found.layout}")


def print_recorded(folder: Path, layout: str) -> None:
    """Print what the trainer recorded and logged in its folder; what cannot be read there is said, and no error."""
    try:
        rows, logs = recorded_rows(find_recorded(folder)), find_logs(folder)
    except InputError as error:
        terminal.out.print(f"recorded: {plain(str(error))}")
        return
    if rows:
        table = Table("recorded", "steps", "files", "exactness", "folder", box=None, pad_edge=False)
        for row in rows:
            name = f"{row.format} (evaluation)" if row.evaluation else row.format
            table.add_row(name, row.steps, str(row.files), row.exactness, plain(row.folder))
        terminal.out.print(table)
    else:
        terminal.out.print(f"recorded: {nothing_recorded(layout)}")
    if logs:
        table = Table("log", "path", box=None, pad_edge=False)
        for log in logs:
            table.add_row(log.format, plain(str(log.path)))
        terminal.out.print(table)


def print_inputs(settings: Mapping[str, Any]) -> None:
    """Print the models and files that the manifest names, and whether they are there."""
    for named in named_inputs(settings):
        terminal.out.print(f"{named.name}: {plain(named.value)} ({named.found})")
