"""Reading logs: one number a row, with the updates it stands at; where logs of a run overlap, the newest one holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from opd_diag.runs.logged import lines, tensorboard
from opd_diag.runs.logged.finding import LogFile, LogFormat
from opd_diag.runs.logged.lines import Logs
from opd_diag.runs.logged.trainers import Trainer, trainer_of

READERS: dict[LogFormat, Callable[[Path], Logs]] = {
    "trainer_state": lines.trainer_state,
    "logging": lines.logging_lines,
    "trainer_log": lines.flat_lines,
    "metrics": lines.flat_lines,
    "verl": lines.verl_lines,
    "worker_state": lines.worker_state,
    "tensorboard": tensorboard.scalars,
    "torchtune": lines.torchtune_lines,
}
"""One a format."""

COUNTERS = {
    *("step", "epoch", "time", "current_steps", "total_steps", "percentage", "system/step", "progress/batch"),
    *("train/epoch", "train/step", "rollout/step", "training/epoch", "training/global_step"),
    *("trainer/epoch", "trainer/global_step"),
}
"""Numbers of a log that count it, and measure nothing."""

OVERRIDDEN = "Two logs of this step differ; this is the newest."
"""The note on a number that was logged twice, as of a run that was resumed from an earlier step."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One number as a trainer logged it."""

    step: int
    """Updates finished when it was logged; what it measures came before the last of them."""
    key: str
    """What the trainer calls it."""
    value: float
    """As logged; NaN where the trainer wrote none or no finite one."""
    trainer: Trainer
    """Who wrote the log."""
    form: LogFormat
    """Format of the log."""
    source: Path
    """The file."""
    note: str = ""
    """What is to be known of this number, one sentence; empty where nothing is."""


def read_logs(files: Iterable[LogFile]) -> list[Logged]:
    """Read logs of one run.

    Logs of one format are taken as parts of one log: where two give a number for the same name and step, the last of
    `files` holds, and the row has the note `OVERRIDDEN` if they differ.

    Parameters
    ----------
    files
        From :func:`find_logs`, the oldest first.

    Returns
    -------
    list of Logged
        By format in the order of `files`, then by step; names in the order in which they were logged.

    Raises
    ------
    InputError
        A file cannot be read. Lines that are damaged or not yet whole are passed over.
    MissingExtra
        One is TensorBoard's, and the package is not installed.
    """
    return merged((file, read_log(file)) for file in files)


def read_log(file: LogFile) -> Logs:
    """Read one log as it is; errors as :func:`read_logs`."""
    return READERS[file.format](file.path)


def merged(logs: Iterable[tuple[LogFile, Logs]]) -> list[Logged]:
    """Put what was read of several logs into the rows of :func:`read_logs`."""
    by_format: dict[LogFormat, list[tuple[LogFile, Logs]]] = {}
    for file, entries in logs:
        by_format.setdefault(file.format, []).append((file, entries))
    return [row for form, of_format in by_format.items() for row in _of_format(form, of_format)]


def _of_format(form: LogFormat, logs: list[tuple[LogFile, Logs]]) -> list[Logged]:
    trainer = trainer_of(form, {key for _, entries in logs for _, numbers in entries for key in numbers})
    rows: dict[tuple[str, int], Logged] = {}
    for file, entries in logs:
        for step, numbers in entries:
            for key, value in numbers.items():
                if key in COUNTERS:
                    continue
                row = Logged(trainer.updates(step, key), key, value, trainer, form, file.path)
                place = (key, row.step)
                differs = place in rows and not _equal(rows[place].value, value)
                rows[place] = replace(row, note=OVERRIDDEN) if differs else rows.get(place, row)
    return sorted(rows.values(), key=lambda row: row.step)


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
