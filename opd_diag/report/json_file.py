"""``report.json``: the numbers of a report as the contract has them, with a JSON Schema, and reading them back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from opd_diag.errors import StoreError
from opd_diag.records.files import write_json
from opd_diag.tables.catalogue import METRIC_NAMES, PRIMARY_NAMES
from opd_diag.tables.concentration import CONCENTRATION_COLUMNS
from opd_diag.tables.logged import OURS, spread_rows
from opd_diag.tables.split import SPLIT_COLUMNS
from opd_diag.tables.summary import SUMMARY_COLUMNS

if TYPE_CHECKING:
    from opd_diag.report.content import Report
    from opd_diag.tables.assembled import Tables

SCHEMA_VERSION = 1
"""Raised whenever a field is taken away or changes its meaning."""

MOST_IN_JSON = 400
"""Rows of one curve of the trainer's log; ``logged.csv`` has all."""

_FIELDS = ("run", "created", "provenance", "headline", "verdicts", "summary", "concentration")


def report_record(report: Report) -> dict[str, Any]:
    """Give what ``report.json`` holds; NaN and infinity are None."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": report.run,
        "created": report.created,
        "provenance": plain(report.provenance),
        "headline": {
            "status": report.headline.status,
            "title": report.headline.title,
            "facts": list(report.headline.facts),
            "advice": report.headline.advice,
        },
        "verdicts": [verdict.as_record() for verdict in report.verdicts],
        "summary": records(report.tables.summary, SUMMARY_COLUMNS),
        "concentration": records(report.tables.concentration, CONCENTRATION_COLUMNS),
        "split": records(report.tables.split, SPLIT_COLUMNS),
        "selftests": [selftest.as_record() for selftest in report.selftests],
    } | {name: records(table, list(table.columns)) for name, table in _further(report.tables)}


def _further(tables: Tables) -> Iterator[tuple[str, pd.DataFrame]]:
    """Give the tables that reports have besides, with all their columns; none of them is read back.

    Averages and strata have a CSV of their own, and here only what a page tells of them: other metrics of the catalogue
    are left out, which would be most of the file.
    """
    left_out = set(METRIC_NAMES) - set(PRIMARY_NAMES)
    for name in ("differences", "averages", "baselines", "strata"):
        table: pd.DataFrame = getattr(tables, name)
        short = name in ("averages", "strata") and len(table)
        yield name, table[~table["metric"].isin(left_out)] if short else table
    yield "logged", _short_log(tables.logged)
    yield "reconciliation", tables.reconciliation
    yield "tails", tables.tails
    yield "k_sweep", tables.sweep


def _short_log(logged: pd.DataFrame) -> pd.DataFrame:
    """Give what the page draws of the trainer's log: our metrics alone, and of a long curve rows spread evenly."""
    ours = logged[logged["metric"].isin(OURS)]
    curves = [spread_rows(rows, MOST_IN_JSON) for _, rows in ours.groupby(["metric", "trainer_key"], sort=False)]
    return pd.concat(curves) if curves else ours


def write_report_json(path: Path, report: Report) -> None:
    """Write ``report.json``, whole or not at all."""
    write_json(path, report_record(report))


def records(table: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Give the rows of `table` as JSON values, with exactly `columns`; one that a table made by hand lacks is null."""
    rows = table.reindex(columns=list(columns)).itertuples(index=False)
    return [dict(zip(columns, map(plain, row), strict=True)) for row in rows]


def plain(value: Any) -> Any:
    """Give `value` as JSON has it: numpy numbers as Python's, paths as text, missing and infinite as None.

    Examples
    --------
    >>> plain({"a": np.float32(0.5), "b": (float("nan"), pd.NA), "c": Path("x")})
    {'a': 0.5, 'b': [None, None], 'c': 'x'}
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, int, str)) else str(value)


def report_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of ``report.json``."""
    schema: dict[str, Any] = json.loads(
        files("opd_diag.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return schema


def load_report_json(path: str | Path) -> dict[str, Any]:
    """Read a ``report.json``.

    Raises
    ------
    StoreError
        The file is missing or damaged, is no report, or was written by another version of its format.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Run opd-diag report first.") from error
    except ValueError as error:
        raise StoreError(f"{path} is no readable JSON: {error}. Run opd-diag report again.") from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise StoreError(f"{path} is no report of opd-diag: expected a JSON object with 'schema_version'.")
    if data["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema_version {data['schema_version']}, this opd-diag reads {SCHEMA_VERSION}. "
            "Run opd-diag report again, or install the version that wrote it."
        )
    missing = [name for name in _FIELDS if name not in data]
    if missing:
        raise StoreError(f"{path} lacks {', '.join(missing)}. Run opd-diag report again.")
    if not data["concentration"] or "step_zero" not in data["provenance"]:
        raise StoreError(f"{path} is damaged: it holds no curve or no provenance. Run opd-diag report again.")
    return data
