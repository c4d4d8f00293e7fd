"""What a shared folder (``--store``) holds, and taking away what nobody uses any more.

Reports may read from the folder and write to it at the same time: a part that is taken away under their hands is made
again. What is not laid out as :mod:`opd_diag.replay.shared` does it is never touched.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from opd_diag.errors import InputError, StoreError

KINDS = {".jsonl": "rollouts", ".safetensors": "scores", ".parquet": "coverage", ".json": "checks"}
"""What a part is, by the ending of its name; others are ``other``."""

LEFTOVER = "leftover"
"""A half-written file. When it is older than a day, the process that wrote it has died."""

DAY = 86_400
"""In seconds."""
GB = 1e9
"""In bytes."""

_PREFIX = re.compile(r"[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-f]{64}")
_WHOLE = re.compile(r"[0-9a-f]{64}(\.[a-z]+)")
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{64}\.[a-z]+\..+\.part")


@dataclass(frozen=True)
class StoredPart:
    """One file of ours in a shared folder."""

    path: Path
    key: str
    """Of the inputs it was made from."""
    kind: str
    """``rollouts``, ``scores``, ``coverage``, ``checks``, ``other``; ``leftover`` of a file that was never finished."""
    size: int
    """In bytes."""
    used: float
    """When it was last found by a report, or made; seconds since 1970."""
    linked: bool
    """Whether an output folder holds it too, so that taking it away here frees nothing yet."""

    def idle(self, now: float, days: float = 1.0) -> bool:
        """Whether nobody has used it for so many days."""
        return now - self.used > days * DAY


@dataclass(frozen=True)
class Contents:
    """What a shared folder holds."""

    folder: Path
    parts: tuple[StoredPart, ...]
    """Whole ones, least recently used first."""
    leftovers: tuple[StoredPart, ...]
    """Half-written files that are older than a day."""
    foreign: int
    """Files and folders that are not laid out as ours, and are left alone."""

    @property
    def size(self) -> int:
        """Bytes of all files of ours."""
        return sum(part.size for part in (*self.parts, *self.leftovers))


def stored_parts(folder: str | Path, now: float | None = None) -> Contents:
    """List what a shared folder holds; read no file and change nothing.

    Parameters
    ----------
    folder
        The folder that reports name with ``--store``.
    now
        Seconds since 1970; default: the time it is.

    Raises
    ------
    StoreError
        The folder does not exist, may not be read, or is none of ours.
    """
    place, now = Path(os.path.expanduser(folder)), time.time() if now is None else now
    ours: list[StoredPart] = []
    foreign = 0
    try:
        for path, in_its_place in _files(place):
            with suppress(FileNotFoundError):  # taken away meanwhile
                part = _part(path) if in_its_place else None
                ours += [part] if part else []
                foreign += part is None
    except PermissionError as error:
        raise StoreError(f"{error.filename} may not be read. Ask for the permission.") from error
    if foreign and not ours:
        raise StoreError(
            f"{place} is no folder of shared parts: nothing in it is laid out as reports with --store do. "
            "Give the folder that they name with --store."
        )
    ours.sort(key=lambda part: (part.used, part.path))
    whole = tuple(part for part in ours if part.kind != LEFTOVER)
    return Contents(place, whole, tuple(p for p in ours if p.kind == LEFTOVER and p.idle(now)), foreign)


def parts_to_delete(
    contents: Contents,
    *,
    older_than: float | None = None,
    max_bytes: float | None = None,
    leftovers: bool = False,
    everything: bool = False,
    now: float | None = None,
) -> list[StoredPart]:
    """Choose what to take away, the least recently used first; each rule adds to the others.

    Parameters
    ----------
    contents
        From :func:`stored_parts`.
    older_than
        Parts that no report has used for so many days.
    max_bytes
        As many of the least recently used parts as it takes to be no larger than this.
    leftovers
        Half-written files that are older than a day.
    everything
        All that is ours.
    now
        Seconds since 1970; default: the time it is.

    Raises
    ------
    InputError
        A number below 0.
    """
    gigabytes = None if max_bytes is None else max_bytes / GB
    for name, value in (("--older-than", older_than), ("--max-size", gigabytes)):
        if value is not None and not value >= 0:
            raise InputError(f"{name} must be at least 0, found {value:g}.")
    if everything:
        return [*contents.parts, *contents.leftovers]
    now = time.time() if now is None else now
    chosen = [*contents.leftovers] if leftovers else []
    size = contents.size - sum(part.size for part in chosen)
    for part in contents.parts:
        too_old = older_than is not None and part.idle(now, older_than)
        too_much = max_bytes is not None and size > max_bytes
        if too_old or too_much:
            chosen.append(part)
            size -= part.size
    return chosen


def delete_parts(contents: Contents, parts: Sequence[StoredPart]) -> int:
    """Take parts away, and the folders that become empty; give how many bytes of the disk that freed.

    Raises
    ------
    StoreError
        One may not be deleted.
    """
    freed = 0
    for part in parts:
        try:
            links = os.lstat(part.path).st_nlink
            part.path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            raise StoreError(f"{part.path} cannot be deleted: {error.strerror}. Ask for the permission.") from error
        freed += part.size if links == 1 else 0
        with suppress(OSError):  # not empty
            part.path.parent.rmdir()
            part.path.parent.parent.rmdir()
    return freed


def _files(place: Path) -> Iterator[tuple[Path, bool]]:
    """Give what lies in the folder, and whether it lies where parts do; what is not ours is not looked into."""
    if not os.path.isdir(place):
        found = "is a file" if os.path.exists(place) else "does not exist"
        raise StoreError(f"{place} {found}. Give the folder that reports name with --store.")
    for prefix in _entries(place):
        if not (_PREFIX.fullmatch(prefix.name) and _is_folder(prefix)):
            yield prefix, False
            continue
        for home in _entries(prefix):
            if _KEY.fullmatch(home.name) and home.name.startswith(prefix.name) and _is_folder(home):
                yield from ((path, True) for path in _entries(home))
            else:
                yield home, False


def _entries(folder: Path) -> list[Path]:
    """Give what lies in a folder, in order; a folder that was taken away meanwhile holds nothing."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()  # what a link points to is not ours


def _part(path: Path) -> StoredPart | None:
    """Tell what a file is from its name; None of what is not ours."""
    whole, half = _WHOLE.fullmatch(path.name), _HALF_WRITTEN.fullmatch(path.name)
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode) or not (whole or half):
        return None
    kind = KINDS.get(whole[1], "other") if whole else LEFTOVER
    # a half-written file may be a link to an old one: only the time of the link tells when it was made
    used = about.st_mtime if whole else about.st_ctime
    return StoredPart(path, path.parent.name, kind, about.st_size, used, about.st_nlink > 1)
