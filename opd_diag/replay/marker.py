"""The marker of OUT_DIR: whose run the folder holds, and of every finished part its inputs and its bytes.

The marker has a checksum of its own. Where that is wrong, what can still be read stands: an entry with a flipped byte
fits no name, no key or no file, so its part is made again, and no part is ever taken for another.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opd_diag.errors import StoreError
from opd_diag.records.files import checksum, content_key, write_json
from opd_diag.records.scores import SCORES_VERSION

MARKER = ".opd-diag.json"

VERSIONS = {"store_version": 2, "scores_version": SCORES_VERSION}
"""A folder in which any of these is higher was written by a newer opd-diag, and is left alone. Raise the first when the
marker, or any file but the scores, changes its form. Version 1 had no checksums and no version in it."""


@dataclass(frozen=True)
class Finished:
    """A part that stands on disk."""

    key: str
    """Of the inputs it was made from; empty where every report writes it anew."""
    sha256: str
    """Of its bytes."""
    size: int
    """In bytes."""

    @classmethod
    def of(cls, key: str, path: Path) -> Finished:
        """Note the file as it is now."""
        return cls(key, checksum(path), path.stat().st_size)

    def fits(self, path: Path) -> bool:
        """Whether the file still has these bytes; one that cannot be read has not."""
        try:
            return path.stat().st_size == self.size and checksum(path) == self.sha256
        except OSError:
            return False


@dataclass
class Marker:
    """What the marker says."""

    parts: dict[str, Finished] = field(default_factory=dict)
    """By path within OUT_DIR."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the report must know of how it was read."""


def write_marker(out_dir: Path, run_dir: Path, parts: dict[str, Finished]) -> None:
    """Write the marker, whole or not at all."""
    content = {**VERSIONS, **_identity(run_dir), "parts": {name: asdict(parts[name]) for name in sorted(parts)}}
    write_json(out_dir / MARKER, {**content, "checksum": content_key(content)})


def read_marker(out_dir: Path, run_dir: Path) -> Marker:
    """Read the marker of a folder that has one.

    Raises
    ------
    StoreError
        It cannot be read, is so damaged that it does not tell the run, tells another run, or is of a newer version.
    """
    path = out_dir / MARKER
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Choose another folder with --out.") from error
    content = _parsed(raw)
    noted = content.pop("checksum", None)
    first_version = "run_dir" in content and noted is None and "store_version" not in content
    whole = first_version or noted == content_key(content)
    if whole:
        _refuse_newer(out_dir, content)
    identity = _identity(run_dir)
    if not any(json.dumps(word, ensure_ascii=False).encode() in raw for word in identity.values()):
        _refuse_foreign(out_dir, run_dir, content, whole)
    return Marker(_parts(content), _notes(out_dir, content, whole, first_version))


READ_LATER = ("rollouts/", "states/", "coverage/", "stops/", "fits/", "baselines.parquet", "selftest.json")
"""What is read again without the models."""


REPORT = "report.json"


def report_of(parts: dict[str, Finished]) -> Finished:
    """Give the entry of a report that was made from `parts`: of them alone, as its own bytes tell the time."""
    key = content_key(sorted((name, noted.sha256) for name, noted in parts.items() if name.startswith(READ_LATER)))
    return Finished(key, sha256=key, size=0)


def refuse_damaged(out_dir: Path) -> None:
    """Hold the files that the verdicts of a finished report rest on against what is known of them.

    Raises
    ------
    StoreError
        A file is not the one that was written, or not the one that the report was made from.
    """
    try:
        content = _parsed((out_dir / MARKER).read_bytes())
    except OSError:  # the marker was left behind when the folder was copied: nothing is known
        return
    if content.pop("checksum", None) != content_key(content):
        return
    parts = _parts(content)
    if REPORT in parts and parts[REPORT] != report_of(parts):
        raise StoreError(f"A later report in {out_dir} was begun and not finished. Run report again.")
    for name, noted in parts.items():
        path = out_dir / name
        if name.startswith(READ_LATER) and path.is_file() and not noted.fits(path):
            raise StoreError(f"{path} was damaged (its checksum differs). Run report again.")


def _identity(run_dir: Path) -> dict[str, str]:
    """Give the run's path twice over, so that one flipped byte does not make the folder nobody's."""
    text = str(run_dir.resolve()).encode("utf-8", "replace").decode()
    return {"run_dir": text, "run_key": content_key(text)}


def _parsed(raw: bytes) -> dict[str, Any]:
    """Read the text; where it is no JSON any more, the entries that still look like one."""
    text = raw.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except ValueError:
        content = {
            "parts": {
                found["name"]: {"key": found["key"], "sha256": found["sha256"], "size": int(found["size"])}
                for found in _ENTRY.finditer(text)
            }
        }
    return content if isinstance(content, dict) else {}


_ENTRY = re.compile(
    r'"(?P<name>[^"]+)": \{\s*"key": "(?P<key>[^"]+)",\s*'
    r'"sha256": "(?P<sha256>[0-9a-f]{64})",\s*"size": (?P<size>\d+)\s*\}'
)
"""An entry as `write_marker` writes it."""


def _refuse_newer(out_dir: Path, content: dict[str, Any]) -> None:
    for name, known in VERSIONS.items():
        found = content.get(name, 0)
        if found > known:
            raise StoreError(
                f"The output folder {out_dir} was written by a newer opd-diag ({name.replace('_', ' ')} {found}, this "
                f"one reads {known}). Choose another folder with --out, or install the newer version."
            )


def _refuse_foreign(out_dir: Path, run_dir: Path, content: dict[str, Any], whole: bool) -> None:
    if whole:
        raise StoreError(
            f"The output folder {out_dir} holds a report of {content.get('run_dir')}, not of {run_dir}. "
            "Choose another with --out."
        )
    raise StoreError(
        f"{out_dir / MARKER} is damaged and does not tell whose run the folder holds. Choose another folder with "
        "--out, or delete this one."
    )


def _parts(content: dict[str, Any]) -> dict[str, Finished]:
    parts = content.get("parts")
    if not isinstance(parts, dict):
        return {}
    kinds = {"key": str, "sha256": str, "size": int}
    return {
        name: Finished(**entry)
        for name, entry in parts.items()
        if isinstance(entry, dict) and {field: type(value) for field, value in entry.items()} == kinds
    }


def _notes(out_dir: Path, content: dict[str, Any], whole: bool, first_version: bool) -> list[str]:
    if not whole:
        return [f"The list of finished parts in {out_dir} was damaged. Those it no longer vouched for were made again."]
    if first_version and content.get("parts"):
        return [f"An earlier opd-diag began {out_dir} and kept no checksums. Everything in it was made again."]
    return []
