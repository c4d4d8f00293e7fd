"""What the disk says, asked once: names in folders, small text files, sizes; regular files alone are opened."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SMALL = 2**24
"""Bytes; no text file that tells of checkpoints is larger, and none is read beyond it."""


class Entry(NamedTuple):
    """One name in a folder."""

    is_folder: bool
    """Whether it is a folder, or a link that leads to one."""
    is_link: bool


class Disk:
    """What the disk says, remembered: one discovery sees one state of a folder that is being written to.

    Every question costs one system call, or two; nothing is asked twice.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, Entry] | OSError] = {}
        self._texts: dict[str, str | OSError | ValueError] = {}
        self._stats: dict[str, os.stat_result | OSError] = {}

    def entries(self, folder: Path) -> dict[str, Entry]:
        """Give what is in a folder, by name.

        Raises
        ------
        OSError
            It cannot be listed.
        """
        key, above = str(folder), self._folders.get(str(folder.parent))
        if key not in self._folders:
            try:
                if isinstance(above, dict) and folder.name not in (*above, "..", ""):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)  # and not asked for
                with os.scandir(folder) as found:
                    self._folders[key] = {entry.name: _entry(entry) for entry in found}
            except OSError as error:
                self._folders[key] = error
        known = self._folders[key]
        if isinstance(known, OSError):
            raise known
        return known

    def names(self, folder: Path) -> frozenset[str]:
        """Give the names in a folder; none where it cannot be listed."""
        try:
            return frozenset(self.entries(folder))
        except OSError:
            return frozenset()

    def folders(self, folder: Path) -> list[str]:
        """Give the names of the folders in a folder, in order; none where it cannot be listed."""
        try:
            return sorted(name for name, entry in self.entries(folder).items() if entry.is_folder)
        except OSError:
            return []

    def is_empty(self, folder: Path) -> bool:
        """Tell whether nothing is in a folder; one that cannot be listed is not known to be empty."""
        try:
            return not self.entries(folder)
        except OSError:
            return False

    def stat(self, path: Path) -> os.stat_result:
        """Ask for size and times of what is at `path`.

        Raises
        ------
        OSError
            Nothing is there, or it may not be asked for.
        """
        key = str(path)
        if key not in self._stats:
            try:
                self._stats[key] = os.stat(path)
            except OSError as error:
                self._stats[key] = error
        known = self._stats[key]
        if isinstance(known, OSError):
            raise known
        return known

    def text(self, file: Path, limit: int = SMALL) -> str:
        """Read the first `limit` bytes of a text file.

        Raises
        ------
        OSError
            It cannot be read, or is no regular file.
        ValueError
            It is not UTF-8.
        """
        key = f"{limit}:{file}"
        if key not in self._texts:
            try:
                self._texts[key] = _read(file, limit)
            except (OSError, ValueError) as error:
                self._texts[key] = error
        known = self._texts[key]
        if isinstance(known, Exception):
            raise known
        return known

    def json_object(self, file: Path) -> tuple[dict[str, Any], str | None]:
        """Read a JSON object; give it, and what is wrong with the file, one sentence, or None.

        Raises
        ------
        OSError
            It cannot be read.
        """
        try:
            data = json.loads(self.text(file))
        except (ValueError, RecursionError) as error:
            return {}, f"{file.name} is not JSON ({error})."
        return (data, None) if isinstance(data, dict) else ({}, f"{file.name} holds no JSON object.")

    def number(self, file: Path) -> int | None:
        """Read a text file that holds one whole number from 0 and nothing else; None where it does not."""
        try:
            text = self.text(file, 64).strip()
        except (OSError, ValueError):
            return None
        return int(text) if text.isascii() and text.isdigit() else None


def asked(kind: Callable[[], bool]) -> bool:
    """Ask an entry of a folder what it is, as ``asked(entry.is_dir)``; a link that leads in a circle is nothing."""
    try:
        return kind()
    except OSError:
        return False


def _entry(entry: os.DirEntry[str]) -> Entry:
    return Entry(asked(entry.is_dir), entry.is_symlink())


def _read(file: Path, limit: int) -> str:
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(None, "it is no regular file", str(file))
        data = b""
        while len(data) < limit and (piece := os.read(handle, limit - len(data))):
            data += piece
    finally:
        os.close(handle)
    return data.decode("utf-8-sig", errors="strict" if len(data) < limit else "ignore")
