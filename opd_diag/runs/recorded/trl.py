"""TRL's parquet tables: ``completions/completions_00040.parquet``, of text or of chat messages.

`DistillationTrainer` writes ``step, prompt, completion`` with both texts decoded without special tokens; `GRPOTrainer`
adds one column for each reward function, those that reward functions log, and ``advantage``. Up to at least 1.14 its
texts were stripped too, in 1.16 prompt and completion are what the data set holds: messages for conversations, with
completions that were decoded without special tokens.

A file holds the last generation batch before the log of step N, which was written with N - 1 updates; under
``steps_per_generation`` or ``num_iterations`` beyond the defaults it is older, and where an evaluation was logged at
the same step its responses took the place of those. Nothing in the file tells. Source: ``log`` and ``_logs`` in
``trl/trainer/distillation_trainer.py`` and ``grpo_trainer.py``, read in and tried with 1.16.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, unreadable, updates_before
from opd_diag.runs.recorded.values import Values, number, text_or_messages, whole

_NO_REWARD = frozenset({"step", "gen_step", "prompt", "completion", "advantage", "advantages", "entropy", "num_turns"})
"""Columns that TRL or ms-swift writes itself; others are of reward functions, or logged by them."""


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read one table.

    Raises
    ------
    RolloutsError
        It is no parquet file, has no columns ``prompt`` and ``completion``, or a cell holds something else.
    """
    rows = _rows(file.path)
    reward = reward_column(rows)
    recorded = []
    for index, row in enumerate(rows, start=1):
        place = f"{file.path}, row {index}"
        step = whole(row, "step", place, file.step)
        recorded.append(
            Recorded(
                place=place,
                step=step,
                updates=updates_before(step, file),
                exactness="text-stripped",
                prompt=text_or_messages(row, "prompt", place),
                response=text_or_messages(row, "completion", place),
                reward=number(row, reward, place) if reward else None,
            )
        )
    return recorded


def reward_column(rows: Sequence[Values]) -> str | None:
    """Name the column of the reward: the one column of numbers beside those the trainer always writes.

    None where there is none or several, whose weights no file tells.

    Examples
    --------
    >>> reward_column([{"step": 1, "prompt": "a", "completion": "b", "accuracy": 1.0, "advantage": 0.5}])
    'accuracy'
    >>> reward_column([{"prompt": "a", "accuracy": 1.0, "length": 3.0}]) is None
    True
    """
    names = [name for name in (rows[0] if rows else ()) if name not in _NO_REWARD]
    numeric = [name for name in names if _all_numbers(row.get(name) for row in rows)]
    return numeric[0] if len(numeric) == 1 else None


def _all_numbers(values: Any) -> bool:
    kept = [value for value in values if value is not None]
    return bool(kept) and all(type(value) in (int, float) for value in kept)


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except PermissionError as problem:
        raise unreadable(path, problem) from problem
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise RolloutsError(
            f"{path} is no whole parquet file ({_reason(problem)}). If the trainer is writing it, run the command "
            "again later; else leave the file out."
        ) from problem
    return rows


def _reason(problem: Exception) -> str:
    """Give the first sentence of what pyarrow says, without the path it puts before."""
    return str(problem).rpartition("': ")[2].partition(". ")[0].rstrip(".")


FORMATS = (
    Format(
        "trl",
        "TRL completions/*.parquet",
        "text-stripped",
        re.compile(r"/completions/completions_(?P<step>\d+)\.parquet$", re.ASCII),
        read,
    ),
)
