"""OUT_DIR: whose run it holds, who writes to it, and which parts of it are finished.

A *part* is a file with the key of its inputs. One way to it serves the whole replay: :meth:`Store.part` reads it where
it stands whole and made from the same inputs, takes it from the shared folder where it lies there, and makes it
otherwise. Long parts are made in *shards*, which are parts too; a killed replay goes on at the shard where it was.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import filelock

from opd_diag.errors import StoreError
from opd_diag.inference import Keep, Shard
from opd_diag.records.files import ELSEWHERE, LEFTOVER, content_key, unwritable
from opd_diag.replay.account import Account
from opd_diag.replay.marker import MARKER, REPORT, Finished, Marker, read_marker, report_of, write_marker
from opd_diag.replay.shared import SharedFolder, refuse_unfit_shared
from opd_diag.runs.digests import DIGESTS, Digests

T = TypeVar("T")
LOCK = ".lock"
SHARDS = ".shards"
"""Holds the finished shards of parts that are under way, below the key of the part."""


@dataclass
class Store:
    """An OUT_DIR that this process may write to."""

    out_dir: Path
    run_dir: Path
    parts: dict[str, Finished] = field(default_factory=dict)
    """What is finished, by its path within OUT_DIR."""
    shared: SharedFolder | None = None
    """Where parts are also kept for other OUT_DIRs."""
    notes: list[str] = field(default_factory=list)
    """What of it was damaged and made again."""
    account: Account = field(default_factory=Account)
    """What it cost to fill it."""
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    """Parts may be made at the same time; what is noted of them is written by one at a time."""

    def path(self, name: str) -> Path:
        """Give the path of a part, as ``rollouts/start.jsonl``."""
        return self.out_dir / name

    def part(
        self,
        name: str,
        key: str,
        *,
        make: Callable[[], T],
        save: Callable[[Path, T], None],
        load: Callable[[Path], T],
        share: bool = True,
    ) -> T:
        """Give a part: read if it is finished, else made, saved and noted.

        Parameters
        ----------
        name
            Its path within OUT_DIR.
        key
            Of everything it is made from.
        make, save, load
            Make it; write it to a path, whole or not at all; read it from there.
        share
            Whether other OUT_DIRs can use it.
        """
        if self._has(name, key) or (share and self._taken(name, key)):
            part = self._loaded(name, load)
            found = True
        else:
            part = make()
            self._claim()
            save(self.path(name), part)
            self._finished(name, key)
            found = False
        if share:  # shards are parts of parts
            self.account.part(found=found)
        if share and self.shared is not None:
            self.shared.keep(key, self.path(name), self.parts[name].sha256)
        return part

    def shards(
        self,
        key: str,
        suffix: str,
        *,
        save: Callable[[Path, T], None],
        load: Callable[[Path], T],
        part_of_nothing: bool = False,
    ) -> Keep[T]:
        """Give what keeps the shards of the part with this key.

        A part of one shard is that shard, and is not kept twice; shards that are part of nothing are always kept, until
        the replay is over.
        """

        def kept(shard: Shard, make: Callable[[], T]) -> T:
            if shard.count == 1 and not part_of_nothing:
                return make()
            name = f"{SHARDS}/{key}/{shard.number:04d}{suffix}"
            return self.part(
                name,
                content_key([key, shard.number, shard.count, shard.rows]),
                make=make,
                save=save,
                load=load,
                share=False,
            )

        return kept

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give an empty folder on the disk of OUT_DIR, which is taken away with the block.

        What a killed process leaves there is taken away when OUT_DIR is opened next.

        Raises
        ------
        StoreError
            It cannot be made.
        """
        self._claim()
        shards = self.path(SHARDS)
        try:
            shards.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix="scratch-", dir=shards)
        except OSError as error:
            raise unwritable(shards, error) from error
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are under way
                shards.rmdir()

    def note(self, *names: str) -> None:
        """Note files that every report writes anew, so that who reads them later can tell whether they are whole."""
        with self._lock:
            self.parts |= {name: Finished.of("", self.path(name)) for name in names}
            write_marker(self.out_dir, self.run_dir, self.parts)

    def note_report(self) -> None:
        """Note that the report which now stands was made from the parts there are; forget files that are gone.

        A name that a flipped byte changed in the marker would else stay for ever, as no report writes it again.
        """
        self.parts = {name: noted for name, noted in self.parts.items() if self.path(name).is_file()}
        self.parts[REPORT] = report_of(self.parts)
        write_marker(self.out_dir, self.run_dir, self.parts)

    def keep_digests(self, digests: Digests) -> None:
        """Keep what was learned of weight files, so that the next process need not read them all again."""
        with self._lock:
            if digests.unsaved:
                self._claim()
                digests.save(self.path(DIGESTS))

    def drop_shards(self) -> None:
        """Take away the shards of parts that nobody asked for any more."""
        if (self.out_dir / SHARDS).is_dir():
            self._drop(f"{SHARDS}/")

    def _has(self, name: str, key: str) -> bool:
        """Whether the part is finished, made from these very inputs, and still has the bytes it had then."""
        noted = self.parts.get(name)
        if noted is None or noted.key != key or not self.path(name).is_file():
            return False
        if not noted.fits(self.path(name)):
            self.notes.append(f"{self.path(name)} was damaged (its checksum differs). It was made again.")
            return False
        return True

    def _loaded(self, name: str, load: Callable[[Path], T]) -> T:
        """Read a part that has the bytes it should have; what they say may still be nothing of ours."""
        try:
            return load(self.path(name))
        except (TypeError, ValueError, KeyError) as error:
            raise StoreError(
                f"{self.path(name)} cannot be read: {error!r}. Delete it, and leave --store out if it came from there."
            ) from error

    def _claim(self) -> None:
        """Mark OUT_DIR as ours before the first file of ours stands in it: a killed process must find it again."""
        with self._lock:
            if not (self.out_dir / MARKER).is_file():
                write_marker(self.out_dir, self.run_dir, self.parts)

    def _finished(self, name: str, key: str) -> None:
        """Note that a part now stands on disk; its shards have served."""
        finished = Finished.of(key, self.path(name))
        with self._lock:
            self.parts[name] = finished
            self._drop(f"{SHARDS}/{key}/")

    def _drop(self, prefix: str) -> None:
        with self._lock:
            self.parts = {name: noted for name, noted in self.parts.items() if not name.startswith(prefix)}
            write_marker(self.out_dir, self.run_dir, self.parts)
        shutil.rmtree(self.out_dir / prefix, ignore_errors=True)  # what stays is taken away when it is opened next

    def _taken(self, name: str, key: str) -> bool:
        """Take a part over from the shared folder, if it lies there."""
        found = None if self.shared is None else self.shared.find(key, Path(name).suffix)
        if self.shared is None or found is None:
            return False
        self._claim()
        if not self.shared.take(found, self.path(name), ELSEWHERE):
            return False
        self._finished(name, key)
        return True


def refuse_unfit(out_dir: Path, run_dir: Path, shared: str | Path | None = None) -> Marker:
    """Give what the marker of OUT_DIR says (nothing, if there is none yet), or refuse the folder; writes nothing.

    Raises
    ------
    StoreError
        OUT_DIR lies inside the run folder, is a file, holds another run, holds files that are not ours, or is of a
        newer version; or the shared folder lies inside either, or cannot be written to.
    """
    out, run = out_dir.resolve(), run_dir.resolve()
    if out == run or run in out.parents:
        raise StoreError(
            f"The output folder {out_dir} lies inside the run folder {run_dir}, which opd-diag never writes to. "
            "Choose another with --out."
        )
    if os.path.exists(out) and not out.is_dir():  # Path.exists raises below a folder that may not be read
        raise StoreError(f"The output folder {out_dir} is a file. Choose another with --out.")
    if shared is not None:
        refuse_unfit_shared(SharedFolder.at(shared).folder, run_dir, out_dir)
    if os.path.isfile(out / MARKER):
        return read_marker(out_dir, run_dir)
    if os.path.isdir(out) and any(entry.name != LOCK and not entry.match(LEFTOVER) for entry in out.iterdir()):
        raise StoreError(
            f"The output folder {out_dir} holds files that are not of opd-diag. Choose an empty one with --out."
        )
    return Marker()


def refuse_inside(out_dir: Path, *models: str | Path | None) -> None:
    """Refuse an OUT_DIR that is the folder of a model, or lies inside one; hub ids are none. Writes nothing.

    Raises
    ------
    StoreError
        It is, or lies inside, one of them.
    """
    out = out_dir.resolve()
    for model in models:
        folder = None if model is None else os.path.expanduser(model)
        if folder is None or not os.path.isdir(folder):
            continue
        if (place := Path(folder).resolve()) == out or place in out.parents:
            raise StoreError(
                f"The output folder {out_dir} lies inside the model folder {model}, which opd-diag never writes to. "
                "Choose another with --out."
            )


@contextmanager
def open_store(out_dir: Path, run_dir: Path, shared: str | Path | None = None) -> Iterator[Store]:
    """Lock OUT_DIR, making it if need be; take it away again if nothing was finished in it.

    Parameters
    ----------
    out_dir, run_dir
        Folder of the report, folder of the run.
    shared
        Folder in which parts are also kept, and found, for other OUT_DIRs.

    Raises
    ------
    StoreError
        As :func:`refuse_unfit`; another process writes to it; or it cannot be made.
    """
    refuse_unfit(out_dir, run_dir, shared)
    made = [folder for folder in (out_dir, *out_dir.parents) if not os.path.exists(folder)]
    with _locked(out_dir):
        marker = refuse_unfit(out_dir, run_dir, shared)
        _clear(out_dir, marker)
        if marker.notes:  # damaged or old: from here on it is neither
            write_marker(out_dir, run_dir, marker.parts)
        store = Store(out_dir, run_dir, marker.parts, SharedFolder.at(shared) if shared else None, marker.notes)
        try:
            yield store
        finally:
            if made and not store.parts:
                _remove_if_empty(made)  # while it is locked: who comes next may have begun in it


@contextmanager
def _locked(out_dir: Path) -> Iterator[None]:
    """Hold the lock of OUT_DIR; the system gives it back when a process dies."""
    lock = filelock.FileLock(out_dir / LOCK)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(
            f"Another process writes to {out_dir}. Wait for it, or choose another folder with --out."
        ) from error
    except OSError as error:
        raise unwritable(out_dir, error) from error
    try:
        yield
    finally:
        lock.release()


def _clear(out_dir: Path, marker: Marker) -> None:
    """Take away what a killed process left: half-written files, and shards that were not noted any more."""
    for path in out_dir.rglob(LEFTOVER):
        path.unlink(missing_ok=True)
    shards = out_dir / SHARDS
    if shards.is_symlink():  # what it points to is not ours
        shards.unlink()
    for path in sorted(shards.rglob("*"), reverse=True):  # what lies in a folder comes before it
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif str(path.relative_to(out_dir)) not in marker.parts:
            path.unlink()


def _remove_if_empty(made: list[Path]) -> None:
    """Take away the folders that were made for nothing: OUT_DIR, and those above it that were not there before."""
    if {entry.name for entry in made[0].iterdir()} <= {LOCK, MARKER, DIGESTS}:
        for name in (DIGESTS, MARKER, LOCK):  # the lock last: what stands there after it is another's
            (made[0] / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()
