"""Digests of files, remembered: a file of weights is read once, and again only when something wrote to it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opd_diag.records.files import content_key, write_json
from opd_diag.runs.contents import FileContent, Stamp, Stop, StoredTensor, read_content

DIGESTS = ".digests.json"
"""Their file in OUT_DIR."""

VERSION = 1
"""Raised whenever the file changes its form, or equal bytes would have other digests."""

_SAMPLES, _SAMPLE = 64, 2**16


@dataclass(frozen=True)
class _Known:
    """What was read of a file, and pieces of it, hashed: cheap to look at again."""

    sample: str
    content: FileContent


class Digests:
    """What files hold, read when first asked for.

    What was read stands as long as the system's stamp of the file is equal (size, inode, times) *and* 64 pieces spread
    over it are. A file that is no larger than these pieces together is read each time.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.unsaved = False
        """Whether something was learned since it was saved."""

    def of(self, file: Path, stop: Stop = lambda: False) -> FileContent:
        """Give what a file holds; whoever asks while another thread reads it waits for that one.

        Raises
        ------
        OSError, CheckpointError, Stopped
            As :func:`~opd_diag.runs.contents.read_content`.
        """
        path = os.path.realpath(file)
        with self._lock(path):
            size = os.stat(path).st_size
            if size <= _SAMPLES * _SAMPLE:
                return read_content(file, stop)
            sample = _sampled(path, size)
            known = self._known.get(path)
            if known is None or known.sample != sample or known.content.stamp != Stamp.of(path):
                known = _Known(sample, read_content(file, stop))
                self._known[path] = known
                self.unsaved = True
            return known.content

    def __getstate__(self) -> dict[str, Any]:
        return {"known": dict(self._known)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._known = state["known"]

    def excerpt(self, files: Iterable[Path]) -> dict[str, Any]:
        """Give what is known of some files, to be sent to another process."""
        paths = {os.path.realpath(file) for file in files}
        return {path: known for path, known in list(self._known.items()) if path in paths}

    def learn(self, excerpt: Mapping[str, Any]) -> None:
        """Take over what another process knew; a file that is another one here is read all the same."""
        self._known |= {path: known for path, known in excerpt.items() if path not in self._known}

    def save(self, path: Path) -> None:
        """Write what is known of the files that are still there, whole or not at all.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        files = {name: asdict(known) for name, known in sorted(self._known.items()) if os.path.exists(name)}
        write_json(path, {"version": VERSION, "sha256": content_key(files), "files": files})
        self.unsaved = False

    @classmethod
    def saved(cls, path: Path) -> Digests:
        """Give what `path` says; nothing where it is missing, damaged or of another version: files are then read."""
        digests = cls()
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] == VERSION and data["sha256"] == content_key(data["files"]):
                digests._known = {name: _known(entry) for name, entry in data["files"].items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            pass
        return digests

    def _lock(self, path: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(path, threading.Lock())


def _known(entry: Any) -> _Known:
    content = entry["content"]
    tensors = {
        name: StoredTensor(**(tensor | {"shape": tuple(tensor["shape"])}))
        for name, tensor in content["tensors"].items()
    }
    return _Known(entry["sample"], FileContent(Stamp(*content["stamp"]), content["digest"], tensors))


def _sampled(path: str, size: int) -> str:
    """Hash pieces spread over a file: what a clock or a copying program gets wrong is seen all the same."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for i in range(_SAMPLES):
            handle.seek(i * (size - _SAMPLE) // (_SAMPLES - 1))
            digest.update(handle.read(_SAMPLE))
    return digest.hexdigest()
