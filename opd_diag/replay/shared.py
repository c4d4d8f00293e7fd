"""A folder that several OUT_DIRs share: results are found in it by the key of their inputs.

``DIR/<first two digits of the key>/<key>/<SHA-256 of the file><suffix>``. A file that does not have the bytes its name
says is not used. Files appear whole, so any number of processes may read and write at once; who comes last replaces a
file by an equal one. When a part is used, its modification time becomes the time of that use: what nobody has used for
long can be taken away (:mod:`opd_diag.replay.upkeep`), also while others read.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from opd_diag.errors import StoreError
from opd_diag.records.files import checksum, replaced_whole

ELSEWHERE = "Choose another folder with --store, or leave it out."


class SharedFolder:
    """The folder named by ``--store``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[Path] = []
        """Files that were found with other bytes than their names say."""

    @classmethod
    def at(cls, folder: str | Path) -> SharedFolder:
        """Give the folder of an option; of ``--store=~/x`` no shell expands the ``~``."""
        return cls(Path(os.path.expanduser(folder)))

    def find(self, key: str, suffix: str) -> Path | None:
        """Give a file with this key that is whole; None if there is none."""
        try:
            candidates = sorted(self._home(key).glob(f"*{suffix}"))
        except FileNotFoundError:  # the folder was taken away while it was looked into
            return None
        for path in candidates:
            if _is_whole(path):
                return path
            self.damaged.append(path)
        return None

    def take(self, found: Path, target: Path, way_out: str) -> bool:
        """Put what was found at `target`; tell whether it was still there."""
        try:
            link_or_copy(found, target, way_out)
        except StoreError:
            if found.exists():
                raise
            return False
        return True

    def keep(self, key: str, path: Path, sha256: str) -> None:
        """Keep a finished file of OUT_DIR under its key, unless it is there already, and note that it is used now."""
        place = self._home(key) / f"{sha256}{path.suffix}"
        if not place.is_file() or place in self.damaged:
            _put(path, place)
        with suppress(OSError):  # another user's perhaps; then it stays as old as it is
            os.utime(place)

    def _home(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _is_whole(path: Path) -> bool:
    """Whether a file has the bytes that its name says; a symbolic link is none of ours, wherever it points."""
    try:
        return not path.is_symlink() and checksum(path) == path.stem
    except OSError:
        return False


def _put(path: Path, place: Path, tries: int = 9) -> None:
    """Put a file into the shared folder; again, where its place was taken away between being made and being used."""
    try:
        link_or_copy(path, place, ELSEWHERE)
    except StoreError as error:
        # gone before it was used; or there when it was made, and gone when that was looked at
        if tries == 1 or not isinstance(error.__cause__, (FileNotFoundError, FileExistsError)):
            raise
        _put(path, place, tries - 1)


def link_or_copy(source: Path, target: Path, way_out: str) -> None:
    """Put a file at `target` whole or not at all, as a hard link where the disk allows it.

    Files of ours are replaced and never changed in place, so that a link is as good as a copy.
    """
    with replaced_whole(target, way_out) as part:
        part.unlink()
        try:
            os.link(source, part)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, part)


def refuse_unfit_shared(folder: Path, run_dir: Path, out_dir: Path) -> None:
    """Refuse a shared folder that lies inside the run or OUT_DIR, or cannot be written to; write nothing.

    Raises
    ------
    StoreError
        As said.
    """
    place = folder.resolve()
    for other, why in ((run_dir, "the run folder, which opd-diag never writes to"), (out_dir, "the output folder")):
        if other.resolve() in (place, *place.parents):
            raise StoreError(f"The store {folder} lies inside {other}, {why}. Choose another with --store.")
    there = next(p for p in (place, *place.parents) if os.path.exists(p))
    if not there.is_dir():
        raise StoreError(f"The store {folder} cannot be a folder: {there} is a file. Choose another with --store.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"The store {folder} cannot be written to. {ELSEWHERE}")
