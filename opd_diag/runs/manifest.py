"""Reading ``opd-diag.toml``, where a run folder names its teacher, prompts, sampling and, if need be, checkpoints."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from opd_diag.errors import RunFolderError
from opd_diag.records.sampling import Sampling
from opd_diag.records.settings import SETTING_NAMES, type_problem
from opd_diag.runs.holdings import is_local

MANIFEST_NAME = "opd-diag.toml"

SAMPLING_NAMES = ("max_prompts", *(f.name for f in fields(Sampling)))
"""What the table ``[sampling]`` may hold; at the top level they mean the same."""

MODELS = ("student", "teacher", "base_model", "tokenizer")
"""Settings that name a folder or a hub id."""

_FILES = ("prompts", "rollouts", "teacher_template", "logs", "store")


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a run says."""

    path: Path | None = None
    """The file; None when the run has none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings by field name of ``Settings``; paths resolved against the folder of the file."""
    checkpoints: tuple[tuple[int, Path], ...] = ()
    """(step, folder) of each ``[[checkpoints]]``, in the order of the file."""


def read_manifest(run_dir: str | Path) -> Manifest:
    """Read ``opd-diag.toml`` of a run folder; an empty manifest when there is none.

    ``checkpoints`` may be a list of tables with ``step`` and ``path`` (where the checkpoints are), or a list of steps
    and labels (which of those found to use). Folders in ``steps``, prompts, rollouts, the template, logs and the store
    are relative to the manifest; models and tokenizer are too where such a folder exists there, and hub ids otherwise.

    Raises
    ------
    RunFolderError
        The file is no TOML, or has an unknown key, a value of the wrong type, or a setting twice.
    """
    path = Path(os.path.expanduser(run_dir)) / MANIFEST_NAME
    if not os.path.lexists(path):
        return Manifest()
    data = _toml(path)
    sampling = data.pop("sampling", {})
    if not isinstance(sampling, dict):
        raise _error(path, "sampling", "a table [sampling]", sampling)
    checkpoints = _checkpoints(path, data)
    _refuse_unknown(path, data, SETTING_NAMES, "")
    _refuse_unknown(path, sampling, SAMPLING_NAMES, "in [sampling] ")
    twice = sorted(set(data) & set(sampling))
    if twice:
        raise RunFolderError(
            f"{path}: {', '.join(twice)} stands both in [sampling] and outside it. Delete one of them."
        )
    settings = {**data, **sampling}
    for name, value in settings.items():
        problem = type_problem(name, value)
        if problem:
            raise RunFolderError(f"{path}: {problem}. Correct the line.")
    return Manifest(path, {name: _resolved(path, name, value) for name, value in settings.items()}, checkpoints)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise RunFolderError(f"{path} is not TOML: {error}. Correct it, or delete it and use options.") from error
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error


def _checkpoints(path: Path, data: dict[str, Any]) -> tuple[tuple[int, Path], ...]:
    """Take the list of tables out of `data`; a list of steps and labels stays in it as a setting."""
    entries = data.get("checkpoints")
    if isinstance(entries, dict):
        raise _error(path, "checkpoints", "[[checkpoints]] in double brackets, one for each", entries)
    if not isinstance(entries, list) or not any(isinstance(entry, dict) for entry in entries):
        return ()
    del data["checkpoints"]
    found = []
    for number, entry in enumerate(entries, start=1):
        where = f"checkpoints, entry {number}"
        if not isinstance(entry, dict) or set(entry) != {"step", "path"}:
            raise _error(path, where, "a table with 'step' and 'path'", entry)
        step, folder = entry["step"], entry["path"]
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise _error(path, f"{where}, step", "a whole number from 0", step)
        if not isinstance(folder, str) or not folder:
            raise _error(path, f"{where}, path", "a folder, as text", folder)
        found.append((step, path.parent / os.path.expanduser(folder)))
    return tuple(found)


def _refuse_unknown(path: Path, data: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        what = "table" if isinstance(data[unknown[0]], dict) else "key"
        raise RunFolderError(
            f"{path}: unknown {what} {where}'{unknown[0]}'. Correct or delete it; known: {', '.join(sorted(known))}."
        )


def _resolved(path: Path, name: str, value: Any) -> Any:
    if name == "steps":
        return [_resolved_step(path, str(entry)) for entry in (value.split(",") if isinstance(value, str) else value)]
    if name not in (*MODELS, *_FILES):
        return value
    if not value.strip():
        raise _error(path, name, "a path" if name in _FILES else "a path or hub id", value)
    file = path.parent / os.path.expanduser(value)
    return str(file) if name in _FILES or is_local(value) or file.exists() else value


def _resolved_step(path: Path, entry: str) -> str:
    step, equals, folder = entry.partition("=")
    return f"{step}={path.parent / os.path.expanduser(folder.strip())}" if equals and folder.strip() else entry


def _error(path: Path, where: str, expected: str, found: Any) -> RunFolderError:
    return RunFolderError(f"{path}: {where}: expected {expected}, found {found!r:.80}. Correct the file.")
