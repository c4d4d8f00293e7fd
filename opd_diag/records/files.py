"""Writing a file whole or not at all, and knowing its content again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opd_diag.errors import StoreError

ELSEWHERE = "Choose another folder with --out."
"""What to do where OUT_DIR cannot be written to."""

FREE_SPACE = "Free some space and run the same command again: what was finished is kept."

LEFTOVER = ".*.part"
"""What a process that was killed while it wrote leaves beside the file."""


@contextmanager
def replaced_whole(path: Path, way_out: str = ELSEWHERE) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; move it onto `path` only if the block succeeds.

    Nothing is synced to the disk: a power cut may tear a file, which its checksum then shows.

    Parameters
    ----------
    path
        The file.
    way_out
        What the user can do when the folder cannot be written to.

    Raises
    ------
    StoreError
        The folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise unwritable(path, error, way_out) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)  # only now: a library may have put a file of its own there
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path, error, way_out) from error
    finally:
        part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError, way_out: str = ELSEWHERE) -> StoreError:
    """Give the error that says why `path` could not be written and what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error.strerror or error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreError(f"Cannot write {path}: {reason}. {FREE_SPACE if full else way_out}")


def take_away(path: Path) -> None:
    """Delete a file, if it is there.

    Raises
    ------
    StoreError
        It cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str, way_out: str = ELSEWHERE) -> None:
    """Write `text` as UTF-8, whole or not at all; lone surrogates become replacement characters."""
    with replaced_whole(path, way_out) as part:
        part.write_text(text.encode("utf-8", "replace").decode("utf-8"), encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, whole or not at all; NaN is refused (callers write it as null)."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def content_key(data: Any) -> str:
    """Give the SHA-256 of `data` written as canonical JSON: equal inputs, equal key.

    Examples
    --------
    >>> content_key({"b": 1, "a": [2]}) == content_key({"a": [2], "b": 1})
    True
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(path: Path) -> str:
    """Give the SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable_size(size: float) -> str:
    """Give a number of bytes with a unit.

    Examples
    --------
    >>> [readable_size(n) for n in (999, 1000, 43_878_465, 2.1e9)]
    ['999 B', '1.0 kB', '43.9 MB', '2.1 GB']
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size:.0f} B"
