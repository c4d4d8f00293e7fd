"""Reading text and JSON lines, with errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError


def json_lines(path: Path, error: type[InputError]) -> list[tuple[int, dict[str, Any]]]:
    """Read one JSON object a line; give (line number from 1, object) and raise `error` naming a broken line.

    Lone surrogates, which JSON can spell and no file or table can hold, become replacement characters.
    """
    records = []
    for number, line in text_lines(path, error):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise error(f"{path}, line {number}: not JSON ({no_json(problem)}). Mend or delete the line.") from problem
        if not isinstance(record, dict):
            found = type(record).__name__
            raise error(f"{path}, line {number}: expected a JSON object on each line, found {found}. Save JSON lines.")
        records.append((number, _well_formed(record)))
    return records


def text_lines(path: Path, error: type[InputError]) -> list[tuple[int, str]]:
    """Read the lines of a UTF-8 file with their numbers, from 1; raise `error` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}). Save it as UTF-8.") from problem
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}. Check the file and its permissions.") from problem
    return list(enumerate(text.split("\n"), start=1))


def no_json(problem: ValueError | RecursionError) -> str:
    """Say in a few words why bytes or text could not be read as JSON."""
    if isinstance(problem, json.JSONDecodeError):
        return f"{problem.msg.removesuffix(' at')} at column {problem.colno}"
    if isinstance(problem, UnicodeDecodeError):
        return f"byte {problem.start + 1} is not UTF-8"
    return "nested too deeply" if isinstance(problem, RecursionError) else "a number of too many digits"


def without_surrogates(text: str) -> str:
    """Give text in which lone surrogates are replacement characters: JSON can spell them, no file or table holds them.

    Examples
    --------
    >>> without_surrogates("a" + chr(0xD83D)) == "a" + chr(0xFFFD)
    True
    >>> without_surrogates(chr(0xD83D) + chr(0xDE00)) == chr(0x1F600)
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_well_formed(part) for part in value]
    if isinstance(value, dict):
        return {_well_formed(name): _well_formed(part) for name, part in value.items()}
    return value
