"""All that is known of what a run's trainer logged: found, read, and what had to be left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError, MissingExtra
from opd_diag.runs.logged import tensorboard
from opd_diag.runs.logged.canonical import known_options
from opd_diag.runs.logged.finding import LogFile, find_logs, log_file_at
from opd_diag.runs.logged.reading import OVERRIDDEN, Logged, merged, read_log, read_logs


@dataclass(frozen=True)
class LogsOfRun:
    """What the trainer of a run logged."""

    rows: tuple[Logged, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """Training arguments, as far as the logs tell them (:func:`known_options`)."""
    notes: tuple[str, ...] = ()
    """What was left out or overridden, one sentence each."""


def logs_of_run(run_dir: str | Path, logs: str | Path | None = None, beta: float | None = None) -> LogsOfRun:
    """Read what the trainer logged.

    Parameters
    ----------
    run_dir
        Folder of the run; where logs cannot be read there, a note says so.
    logs
        A log file, or a folder of them, in place of those in `run_dir`.
    beta
        Of the trainer's loss; default: as the logs tell, which they seldom do.

    Raises
    ------
    InputError
        `logs` is not there, holds no log, or one that cannot be read.
    MissingExtra
        TensorBoard's files are among `logs`, and the package is not installed.
    """
    if logs is not None:
        named = _named(Path(os.path.expanduser(logs)))
        return _of(named, read_logs(named), [], beta)
    try:
        found = find_logs(run_dir)
    except InputError as error:
        return LogsOfRun(notes=(f"The trainer's logs were not looked for: {error}",))
    read, notes = [], []
    for file in found:
        try:
            read.append((file, read_log(file)))
        except (InputError, MissingExtra) as error:
            notes.append(f"The trainer's {file.path.name} was left out: {error}")
    return _of([file for file, _ in read], merged(read), notes, beta)


def _named(logs: Path) -> list[LogFile]:
    if not os.path.isdir(logs):
        return [log_file_at(logs)]
    found = find_logs(logs)
    if not found:
        raise InputError(f"{logs} holds no log that can be read. Correct --logs, or leave it out.")
    return found


def _of(files: Sequence[LogFile], rows: Sequence[Logged], notes: Sequence[str], beta: float | None) -> LogsOfRun:
    options: dict[str, Any] = {}
    for file in files:
        options |= known_options(tensorboard.arguments(file.path)) if file.format == "tensorboard" else {}
    options |= {} if beta is None else {"beta": beta}
    twice = sorted({row.step for row in rows if row.note == OVERRIDDEN})
    told = [f"At {_steps(twice)} the trainer's logs differ; the newest one was taken."] if twice else []
    return LogsOfRun(tuple(rows), options, (*dict.fromkeys(notes), *told))


def _steps(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]},"
