"""Numbers out of what trainers write as text: JSON and lines, however damaged, cut short or full of NaN."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError
from opd_diag.records.json_lines import without_surrogates

Logs = list[tuple[int, dict[str, float]]]
"""(step as the trainer counts, its numbers by its names for them) in the order in which they were logged."""

_COUNT = re.compile(r"(\d{1,15})(?:/.*)?", re.ASCII)
_LINE = re.compile(r"Step (\d{1,15}) \|(.*)", re.ASCII)
_PAIR = re.compile(r"(\S+?):(\S+)(?:\s|$)")


def trainer_state(path: Path) -> Logs:
    """Read the ``log_history`` of Hugging Face's ``trainer_state.json``: everything up to that save."""
    return _history(path, "step")


def worker_state(path: Path) -> Logs:
    """Read the ``log_history`` of ROLL's ``worker_state_pipeline.json``."""
    return _history(path, "system/step")


def logging_lines(path: Path) -> Logs:
    """Read ms-swift's ``logging.jsonl``, whose step is text, ``"global_step/max_steps": "10/100"`` or ``iteration``."""
    return [
        (int(match[1]), _numbers(line))
        for line in json_objects(path)
        if (match := _COUNT.fullmatch(str(line.get("global_step/max_steps", line.get("iteration")))))
    ]


def flat_lines(path: Path) -> Logs:
    """Read one flat JSON object a line, with ``step``, or ``current_steps`` as LLaMA-Factory has it."""
    found = ((_step(line.get("step", line.get("current_steps"))), line) for line in json_objects(path))
    return [(step, _numbers(line)) for step, line in found if step is not None]


def verl_lines(path: Path) -> Logs:
    """Read verl's file logger: ``{"step": 1, "data": {…}}`` a line."""
    found = ((_step(line.get("step")), line.get("data")) for line in json_objects(path))
    return [(step, _numbers(data)) for step, data in found if step is not None and isinstance(data, dict)]


def torchtune_lines(path: Path) -> Logs:
    """Read torchtune's ``log_*.txt``, ``Step 3 | loss:0.5 lr:0.1`` a line, or the same as JSON lines."""
    if path.suffix == ".jsonl":
        return flat_lines(path)
    matches = (_LINE.fullmatch(line) for line in whole_lines(path))
    return [(int(match[1]), dict(_parsed(match[2]))) for match in matches if match]


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of a file of JSON lines; a line that is none, as one being written, is passed over."""
    for line in whole_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def whole_lines(path: Path) -> Iterator[str]:
    """Give the lines of a text file one by one, without their ends; bytes that are no UTF-8 become marks.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error


def _history(path: Path, step: str) -> Logs:
    text = "\n".join(whole_lines(path))
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no readable JSON: it is damaged, or being written just now. Run the same command again, or "
            "leave the log out with --logs and the path of another one."
        ) from error
    history = state.get("log_history") if isinstance(state, dict) else None
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    return [(found, _numbers(entry)) for entry in entries if (found := _step(entry.get(step))) is not None]


def _step(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 2**53 and value == int(value) else None


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {without_surrogates(key): number for key, value in entry.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    """Give a number, NaN where the trainer wrote null or no finite one, None where it wrote anything else."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _parsed(text: str) -> Iterator[tuple[str, float]]:
    for key, number in _PAIR.findall(text):
        try:
            value = float(number)
        except ValueError:
            continue
        yield key, value if math.isfinite(value) else math.nan
