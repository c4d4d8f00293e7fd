"""The command that looks after a shared folder of parts: how large it is, what it holds, and taking away."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from opd_diag.cli import terminal
from opd_diag.cli.terminal import shows_errors
from opd_diag.errors import InputError
from opd_diag.records.files import readable_size

if TYPE_CHECKING:
    from opd_diag.replay.upkeep import Contents, StoredPart


@shows_errors
def store(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that reports name with --store.")],
    list_parts: Annotated[bool, typer.Option("--list", help="Name every part: last use, kind, size, key.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Delete parts that no report has used for so many days.")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(metavar="GB", help="Delete the least recently used parts down to this size.")
    ] = None,
    leftovers: Annotated[
        bool, typer.Option("--leftovers", help="Delete half-written files that are older than a day.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Delete all parts.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be deleted.")] = False,
) -> None:
    """Show what a shared folder (report --store) holds, or delete from it.

    Output folders keep their own copies or links; a report that wants a deleted part again makes it again.
    """
    from opd_diag.replay.upkeep import GB, delete_parts, parts_to_delete, stored_parts

    some = leftovers or older_than is not None or max_size is not None
    _refuse_unclear(everything, some, yes)
    contents = stored_parts(folder)
    chosen = parts_to_delete(
        contents,
        older_than=older_than,
        max_bytes=None if max_size is None else max_size * GB,
        leftovers=leftovers,
        everything=everything,
    )
    _print_contents(contents)
    if list_parts:
        _print_parts([*contents.parts, *contents.leftovers], chosen)
    if not (everything or some):
        return
    what = f"{_files(len(chosen))}, {readable_size(sum(part.size for part in chosen))}"
    held = " (output folders hold the rest)" if any(part.linked for part in chosen) else ""
    if yes:
        freed = delete_parts(contents, chosen)
        terminal.out.print(f"deleted       {what}; this freed {readable_size(freed)}{held}")
    else:
        free = readable_size(sum(part.size for part in chosen if not part.linked))
        terminal.out.print(f"would delete  {what}; this would free {free}{held}. Add --yes to do it.")


def _refuse_unclear(everything: bool, some: bool, yes: bool) -> None:
    if everything and some:
        raise InputError("--all deletes every part. Leave it out, or leave the other rules out.")
    if yes and not (everything or some):
        raise InputError("--yes alone deletes nothing. Add --older-than, --max-size, --leftovers or --all.")


def _print_contents(contents: Contents) -> None:
    size = readable_size(sum(part.size for part in contents.parts))
    linked = readable_size(sum(part.size for part in contents.parts if part.linked))
    terminal.out.print(
        f"{escape(str(contents.folder))}: {len(contents.parts)} parts, {size} ({linked} of it also in output folders)"
    )
    if contents.parts:
        table = Table("kind", "parts", "size", "oldest use", "newest use", box=None, pad_edge=False)
        for kind in sorted({part.kind for part in contents.parts}):
            same = [part for part in contents.parts if part.kind == kind]
            size = readable_size(sum(part.size for part in same))
            table.add_row(kind, str(len(same)), size, _time(same[0]), _time(same[-1]))
        terminal.out.print(table)
    if contents.leftovers:
        size = readable_size(sum(part.size for part in contents.leftovers))
        terminal.out.print(f"half written  {_files(len(contents.leftovers))}, {size} (--leftovers deletes them)")
    if contents.foreign:
        terminal.out.print(f"not ours      {_files(contents.foreign)}, never touched")


def _print_parts(parts: Sequence[StoredPart], chosen: Sequence[StoredPart]) -> None:
    table = Table("last use", "kind", "bytes", "key", *([""] if chosen else []), box=None, pad_edge=False)
    doomed = {part.path for part in chosen}
    for part in parts:
        mark = ["to delete" if part.path in doomed else ""] if chosen else []
        table.add_row(_time(part), part.kind, str(part.size), part.key, *mark)
    terminal.out.print(table)


def _files(n: int) -> str:
    return f"{n} file{'' if n == 1 else 's'}"


def _time(part: StoredPart) -> str:
    return datetime.datetime.fromtimestamp(part.used).strftime("%Y-%m-%d %H:%M")
