"""Lines of JSON as trainers write them: one record a line, or one line of columns; the last one may be half written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.json_lines import no_json
from opd_diag.runs.recorded.recorded_file import Reading, unreadable

_HEAD = 1 << 20
"""Bytes of a first line that are looked at to tell a format."""
_NAME = re.compile(r'(?<!\\)"(\w+)"\s*:')


def rows(path: Path, reading: Reading, required: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give (place, record) of a JSON lines file, whether its lines are records or columns of records.

    The first line tells which: it holds columns when all its values are lists.

    Parameters
    ----------
    path
        The file.
    reading
        Gets a note when the last line is half written.
    required
        Columns that must be of one length; others of another length are passed over.

    Raises
    ------
    RolloutsError
        The file cannot be read, or a line in it is not what the first line promised.
    """
    columns = None
    for number, record in json_objects(path, reading):
        columns = is_columns(record) if columns is None else columns
        place = f"{path}, line {number}"
        if not columns:
            yield place, record
            continue
        for index, row in enumerate(unfolded(record, required, place), start=1):
            yield f"{place}, row {index}", row


def json_objects(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give (line number from 1, object) of each line; a last line without an end that is no JSON is noted and skipped.

    Raises
    ------
    RolloutsError
        The file cannot be read, or a line that has an end is no JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig"))
                except (ValueError, RecursionError) as problem:
                    if not line.endswith(b"\n"):
                        reading.notes.append(f"{path}: the last line is half written and was left out.")
                        return
                    raise RolloutsError(
                        f"{path}, line {number}: not JSON ({no_json(problem)}). Mend it or leave the file out."
                    ) from problem
                if not isinstance(record, dict):
                    raise RolloutsError(
                        f"{path}, line {number}: expected a JSON object on each line, found {type(record).__name__}. "
                        "Mend it or leave the file out."
                    )
                yield number, record
    except OSError as problem:
        raise unreadable(path, problem) from problem


def is_columns(record: dict[str, Any]) -> bool:
    """Tell whether a line holds columns: all its values are lists.

    Examples
    --------
    >>> is_columns({"step": ["1", "1"], "prompt": ["a", "b"]}), is_columns({"step": 1, "token_ids": [3, 4]})
    (True, False)
    """
    return bool(record) and all(isinstance(value, list) for value in record.values())


def unfolded(record: dict[str, Any], required: Sequence[str], place: str) -> list[dict[str, Any]]:
    """Give the records that a line of columns holds.

    Raises
    ------
    RolloutsError
        A required column is missing or no list, or two of them differ in length.
    """
    absent = [name for name in required if not isinstance(record.get(name), list)]
    if absent:
        found = ", ".join(record) or "none"
        raise RolloutsError(f"{place}: expected a column '{absent[0]}', found {found}. Mend it or leave the file out.")
    lengths = {name: len(record[name]) for name in required}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise RolloutsError(f"{place}: columns of different lengths ({found}). Mend it or leave the file out.")
    length = next(iter(lengths.values()), 0)
    columns = {k: v for k, v in record.items() if isinstance(v, list) and len(v) == length}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def first_fields(path: Path) -> frozenset[str]:
    """Give the names of the fields of the first line, without reading more than a megabyte; none when it is no JSON.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    line, newline, _ = head.lstrip().partition(b"\n")
    if not newline and len(head) == _HEAD:  # a longer line: the names in its head, of whatever depth
        return frozenset(_NAME.findall(line.decode("utf-8", "replace")))
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(record) if isinstance(record, dict) else frozenset()
