"""Finding the logs that a trainer left in its run folder, by names and, of JSON lines, the start of the first line."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opd_diag.errors import InputError
from opd_diag.runs.disk import asked

LogFormat = Literal[
    "trainer_state", "logging", "trainer_log", "metrics", "verl", "worker_state", "tensorboard", "torchtune"
]
"""Of a log file: what writes it stands in `NAMES` and `_format_of`."""

NAMES: dict[str, LogFormat] = {
    "trainer_state.json": "trainer_state",  # Hugging Face Trainer, so TRL, ms-swift, axolotl, unsloth
    "logging.jsonl": "logging",  # ms-swift
    "trainer_log.jsonl": "trainer_log",  # LLaMA-Factory
    "metrics.jsonl": "metrics",  # prime-rl, tinker-cookbook
    "worker_state_pipeline.json": "worker_state",  # ROLL
}
"""Formats that their file names tell."""

DEEPEST = 5
"""Folders below the run folder that are looked into; ``tensorboard_log/project/experiment/`` is three deep."""

MOST_FOLDERS = 2000
"""Folders that are looked into at most."""

_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)", re.ASCII)
_TORCHTUNE = re.compile(r"log_\d+\.(?:txt|jsonl)", re.ASCII)
_STEP_DATA = re.compile(rb'\s*\{\s*"step"\s*:\s*\d+\s*,\s*"data"\s*:\s*\{')
_STEP_FOLDER = re.compile(
    r"(?:tmp-|old_|tmp_)?(?:best_)?(?:checkpoint-|global_step_?|step_|iter_|iteration_|epoch_?|dist_epoch_)\d.*",
    re.ASCII,
)
_HF_STEP = re.compile(r"checkpoint-(\d+)", re.ASCII)
_NO_LOGS_IN = {"completions", "rollouts", "rollout_data", "train_data", "token_exports", "broadcasts", "weights"}


@dataclass(frozen=True)
class LogFile:
    """One file of a trainer's log."""

    format: LogFormat
    path: Path
    written: float
    """When it was last written to, or of TensorBoard begun, in seconds since 1970: the later holds where two differ."""


def find_logs(run_dir: str | Path) -> list[LogFile]:
    """Find the logs in a run folder, the oldest first.

    Of ``trainer_state.json``, of which every checkpoint has one with all that was logged before it, those of the run
    folder, of the highest step and of the newest save are given; of ROLL's, which is alike, that of the highest step.
    A folder inside that has checkpoints of its own is another run where the run folder has some too, and is left out.

    Parameters
    ----------
    run_dir
        Folder of the run, or any folder with logs. Links are followed, each folder is looked into once.

    Raises
    ------
    InputError
        The folder cannot be read.
    """
    root = Path(os.path.expanduser(run_dir))
    found: list[LogFile] = []
    try:
        for folder, files, steps in _folders(root):
            found += _in_folder(folder, files, steps)
    except OSError as error:
        where = error.filename or root
        raise InputError(f"{where} cannot be read: {error.strerror}. Check its permissions.") from error
    return _ordered(found)


def log_file_at(path: str | Path) -> LogFile:
    """Give the record of one log file.

    Raises
    ------
    InputError
        There is no such file, or it is none of a trainer's logs that can be read.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise InputError(f"Expected a log file, or a folder with logs; {path} does not exist. Correct --logs.")
    kind = _format_of(path)
    if kind is None:
        raise InputError(
            f"{path} is no log that can be read. Expected trainer_state.json, logging.jsonl, trainer_log.jsonl, "
            "metrics.jsonl, JSON lines with 'step' and 'data', worker_state_pipeline.json, TensorBoard's "
            "events.out.tfevents.* or torchtune's log_*.txt, or the folder of one. Correct --logs."
        )
    return _record(kind, path)


def _folders(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Go through the folders of a run breadth first; give each with its files and its step folders, by name."""
    waiting = deque([(root, 0)])
    seen: set[tuple[int, int]] = set()
    root_has_steps = False
    while waiting and len(seen) < MOST_FOLDERS:
        folder, depth = waiting.popleft()
        try:
            place = os.stat(folder)
            if (place.st_dev, place.st_ino) in seen:
                continue
            with os.scandir(folder) as entries:
                kinds = [(entry.name, asked(entry.is_dir), asked(entry.is_file)) for entry in entries]
        except OSError:
            if depth == 0:
                raise
            continue  # what lies in a folder that cannot be read is no log of ours
        seen.add((place.st_dev, place.st_ino))
        folders = [name for name, is_folder, _ in kinds if is_folder]
        steps = [name for name in folders if _STEP_FOLDER.fullmatch(name)]
        root_has_steps |= depth == 0 and bool(steps)
        if depth and root_has_steps and any(map(_HF_STEP.fullmatch, steps)):
            continue
        yield folder, [name for name, _, is_file in kinds if is_file], steps  # reading a pipe would wait for a writer
        if depth < DEEPEST:
            inside = [name for name in folders if name not in _NO_LOGS_IN and not name.startswith(".")]
            waiting.extend((folder / name, depth + 1) for name in sorted(set(inside) - set(steps)))


def _in_folder(folder: Path, files: Iterable[str], steps: Iterable[str]) -> Iterator[LogFile]:
    for name in files:
        kind = _format_of(folder / name)
        if kind is not None:
            yield _record(kind, folder / name)
    numbered = sorted((int(match[1]), name) for name in steps if (match := _HF_STEP.fullmatch(name)))
    states = [_record("trainer_state", folder / name / "trainer_state.json") for _, name in numbered]
    saved = [file for file in states if file.written]
    if saved:
        yield from {saved[-1], max(saved, key=lambda file: file.written)}
    if numbered:
        state = _record("worker_state", folder / numbered[-1][1] / "pipeline" / "worker_state_pipeline.json")
        yield from [state] if state.written else []


def _format_of(path: Path) -> LogFormat | None:
    """Tell the format of a file; only JSON lines of another name than the known ones are opened."""
    name = path.name
    if name in NAMES:
        return NAMES[name]
    if _EVENTS.search(name) and not name.endswith(".profile-empty"):
        return "tensorboard"
    if _TORCHTUNE.fullmatch(name):
        return "torchtune"
    if name.endswith(".jsonl") and not name.removesuffix(".jsonl").isdecimal() and _starts_with_step_data(path):
        return "verl"
    return None


def _starts_with_step_data(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _STEP_DATA.match(file.read(200)) is not None
    except OSError:
        return False


def _record(kind: LogFormat, path: Path) -> LogFile:
    begun = _EVENTS.search(path.name) if kind == "tensorboard" else None
    return LogFile(kind, path, float(begun[1]) if begun else _written(path))


def _written(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # not there, or a link to nothing
        return 0.0


def _ordered(files: Iterable[LogFile]) -> list[LogFile]:
    return sorted(dict.fromkeys(files), key=lambda file: (file.written, str(file.path)))
