"""Writing a file whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opd_diag.errors import StoreError


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; move it onto `path` only if the block succeeds.

    Raises
    ------
    StoreError
        The folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror}. Choose another folder with --out.") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        os.replace(part, path)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}. Choose another folder with --out."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; lone surrogates become replacement characters."""
    with replaced_whole(path) as part:
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
