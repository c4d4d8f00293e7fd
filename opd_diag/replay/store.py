"""OUT_DIR: whose run it holds, who writes to it, and which parts of it are finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from opd_diag.errors import StoreError
from opd_diag.records.files import write_json

MARKER = ".opd-diag.json"
"""Says that a folder is ours, of which run, and with which inputs each part of it was made."""
LOCK = ".lock"


@dataclass
class Store:
    """An OUT_DIR that this process may write to."""

    out_dir: Path
    run_dir: Path
    parts: dict[str, str] = field(default_factory=dict)
    """Key of the inputs of every finished part, by its path within OUT_DIR."""

    def path(self, name: str) -> Path:
        """Give the path of a part, as ``rollouts/start.jsonl``."""
        return self.out_dir / name

    def has(self, name: str, key: str) -> bool:
        """Whether the part was finished with these very inputs."""
        return self.parts.get(name) == key and self.path(name).is_file()

    def finished(self, name: str, key: str) -> None:
        """Note that a part now stands on disk."""
        self.parts[name] = key
        self._write_marker()

    def _write_marker(self) -> None:
        write_json(self.out_dir / MARKER, {"run_dir": str(self.run_dir), "parts": dict(sorted(self.parts.items()))})


def refuse_unfit(out_dir: Path, run_dir: Path) -> dict[str, Any]:
    """Give what the marker of OUT_DIR says (nothing, if there is none yet), or refuse the folder; writes nothing.

    Raises
    ------
    StoreError
        OUT_DIR lies inside the run folder, is a file, holds another run, or holds files that are not ours.
    """
    out, run = out_dir.resolve(), run_dir.resolve()
    if out == run or run in out.parents:
        raise StoreError(
            f"The output folder {out_dir} lies inside the run folder {run_dir}, which opd-diag never writes to. "
            "Choose another with --out."
        )
    if out.exists() and not out.is_dir():
        raise StoreError(f"The output folder {out_dir} is a file. Choose another with --out.")
    if not (out / MARKER).is_file():
        if out.is_dir() and any(entry.name != LOCK for entry in out.iterdir()):
            raise StoreError(
                f"The output folder {out_dir} holds files that are not of opd-diag. Choose an empty one with --out."
            )
        return {}
    marker = _marker(out / MARKER)
    if marker.get("run_dir") != str(run):
        raise StoreError(
            f"The output folder {out_dir} holds a report of {marker.get('run_dir')}, not of {run_dir}. "
            "Choose another with --out."
        )
    return marker


@contextmanager
def open_store(out_dir: Path, run_dir: Path) -> Iterator[Store]:
    """Lock OUT_DIR, making it if need be; take it away again if nothing was finished in it.

    Raises
    ------
    StoreError
        As :func:`refuse_unfit`; another process writes to it; or it cannot be made.
    """
    refuse_unfit(out_dir, run_dir)
    made = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {out_dir}: {error.strerror}. Choose another folder with --out.") from error
    lock = filelock.FileLock(out_dir / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(
            f"Another process writes to {out_dir}. Wait for it, or choose another folder with --out."
        ) from error
    except OSError as error:
        raise StoreError(f"Cannot write to {out_dir}: {error.strerror}. Choose another folder with --out.") from error
    store = Store(out_dir, run_dir.resolve(), refuse_unfit(out_dir, run_dir).get("parts", {}))
    try:
        yield store
    finally:
        lock.release()
        if made and not store.parts:
            _remove_if_empty(made)


def _marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Delete the folder or choose another with --out.") from error
    if not isinstance(marker, dict) or not isinstance(marker.get("parts", {}), dict):
        raise StoreError(f"{path} is damaged. Delete the folder or choose another with --out.")
    return marker


def _remove_if_empty(made: list[Path]) -> None:
    """Take away the folders that were made for nothing: OUT_DIR, and those above it that were not there before."""
    if {entry.name for entry in made[0].iterdir()} <= {LOCK}:
        (made[0] / LOCK).unlink(missing_ok=True)
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()
