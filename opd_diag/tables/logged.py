"""What the trainer logged as it went, under our names where they are known: sign corrected, differences said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from opd_diag.runs.logged import Logged, LogsOfRun, entry_for
from opd_diag.runs.logged.entries import ENTRIES, Entry

LOGGED_COLUMNS = ["step", "metric", "value", "trainer_key", "source", "note"]

OURS = frozenset(entry.metric for entry in ENTRIES if entry.metric)
"""Names of ours that a trainer's log may have."""


def logged_table(logs: LogsOfRun, run_dir: str | Path) -> pd.DataFrame:
    """Put a trainer's log into our names.

    Parameters
    ----------
    logs
        From :func:`opd_diag.runs.logged.logs_of_run`.
    run_dir
        Folder of the run; sources in it are written relative to it.

    Returns
    -------
    DataFrame
        One row a logged number, columns as in :mod:`opd_diag.tables`. What has no name of ours keeps the trainer's,
        with ``trainer/`` before it where that is one of ours and means something else.
    """
    entries = _entries(logs)
    sources = {path: _relative(path, run_dir) for path in {row.source for row in logs.rows}}
    rows = [
        (
            row.step,
            entry.metric if entry and entry.metric else _own(row.key),
            row.value * (entry.factor if entry else 1.0),
            row.key,
            sources[row.source],
            " ".join(filter(None, (entry.note if entry else "", row.note))),
        )
        for row in logs.rows
        for entry in [entries[row.form, row.key]]
    ]
    return pd.DataFrame(rows, columns=LOGGED_COLUMNS).astype({"step": "Int64", "value": float})


def logged_curve(logged: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Give the rows of one metric that make one curve: of several logs or names of it, those that say it most often."""
    rows = logged[(logged["metric"] == metric) & logged["value"].notna()]
    if rows.empty or metric not in OURS:
        return rows.iloc[:0]
    key = rows["trainer_key"].value_counts(sort=False).idxmax()  # the first of those that are equally frequent
    return rows[rows["trainer_key"] == key].sort_values("step", kind="stable").drop_duplicates("step", keep="last")


def spread_rows(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Pick at most `most` rows, evenly, with the first and the last."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]


def _entries(logs: LogsOfRun) -> dict[tuple[str, str], Entry | None]:
    by_format: dict[str, list[Logged]] = {}
    for row in logs.rows:
        by_format.setdefault(row.form, []).append(row)
    entries: dict[tuple[str, str], Entry | None] = {}
    for form, rows in by_format.items():
        keys = {row.key for row in rows}
        entries |= {(form, key): entry_for(rows[0].trainer, key, keys, logs.options) for key in keys}
    return entries


def _own(key: str) -> str:
    return f"trainer/{key}" if key in OURS else key


def _relative(path: Path, run_dir: str | Path) -> str:
    root, real = Path(os.path.expanduser(run_dir)).resolve(), path.resolve()
    name = str(real.relative_to(root)) if real.is_relative_to(root) else str(path)
    return name.encode("utf-8", "replace").decode()  # a name that is no text has bytes that no table can hold
