"""Values of recorded rollouts, each checked for its type: what another version wrote is named, not guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.json_lines import without_surrogates
from opd_diag.records.recorded import Message

Values = Mapping[str, Any]
"""One record of a file: name to value."""


def text(record: Values, name: str, place: str) -> str:
    """Give the text of a field; lone surrogates, which no file of ours can hold, become replacement characters."""
    value = record.get(name)
    if not isinstance(value, str):
        raise refused(record, name, "text", place)
    return without_surrogates(value)


def text_or_messages(record: Values, name: str, place: str) -> str | tuple[Message, ...]:
    """Give a field that is text or a list of chat messages."""
    if isinstance(record.get(name), str):
        return text(record, name, place)
    return messages(record, name, place, "text or a list of messages with a 'role'")


def messages(
    record: Values, name: str, place: str, expected: str = "a list of messages with a 'role'"
) -> tuple[Message, ...]:
    """Give a field that is a list of chat messages, without the nulls that a table adds."""
    value = record.get(name)
    if isinstance(value, (list, tuple)) and value and all(_is_message(m) for m in value):
        return tuple(_without_nulls(message) for message in value)
    raise refused(record, name, expected, place)


def whole(record: Values, name: str, place: str, default: int | None = None) -> int | None:
    """Give a whole number of at least 0, which may stand as text; `default` where the field is missing or null."""
    value = record.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise refused(record, name, "a whole number from 0", place)


def number(record: Values, name: str, place: str) -> float | None:
    """Give a number; None where the field is missing, null or not finite."""
    value = record.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise refused(record, name, "a number or null", place)
    return finite(value)


def finite(value: Any) -> float | None:
    """Give a finite number; None for anything else.

    Examples
    --------
    >>> finite(2), finite(0.5), finite(10**400), finite(float("nan")), finite(True), finite("2")
    (2.0, 0.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    found = _as_float(value)
    return found if math.isfinite(found) else None


def named(value: Any) -> str | None:
    """Give a reference answer or a name as text; None for anything but text and numbers, and for empty text.

    Examples
    --------
    >>> named("x"), named(7), named(["x"]), named("")
    ('x', '7', None, None)
    """
    if isinstance(value, str):
        return without_surrogates(value) or None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def token_ids(record: Values, name: str, place: str) -> tuple[int, ...]:
    """Give a list of token ids."""
    value = record.get(name)
    if not isinstance(value, (list, tuple)) or not all(type(i) is int and i >= 0 for i in value):
        raise refused(record, name, "a list of token ids (whole numbers from 0)", place)
    return tuple(value)


def mask(record: Values, name: str, place: str) -> tuple[bool, ...]:
    """Give a list of true and false, or of 1 and 0."""
    value = record.get(name)
    if not isinstance(value, (list, tuple)) or not all(type(v) in (bool, int, float) and v in (0, 1) for v in value):
        raise refused(record, name, "a list of 0 and 1", place)
    return tuple(bool(v) for v in value)


def logprobs(record: Values, name: str, place: str) -> tuple[float, ...] | None:
    """Give a list of log-probabilities in nats, NaN for null; None where the field is missing or null."""
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(v is None or type(v) in (int, float) for v in value):
        raise refused(record, name, "a list of numbers and nulls", place)
    return tuple(math.nan if v is None else _as_float(v) for v in value)


def refused(record: Values, name: str, expected: str, place: str) -> RolloutsError:
    """Give the error that says what a field should be and what it is."""
    if name not in record:
        there = ", ".join(list(record)[:10]) or "none"
        return RolloutsError(f"{place}: expected a field '{name}', found {there}. Mend it or leave the file out.")
    value = record[name]
    found = "null" if value is None else f"{type(value).__name__} ({value!r:.60})"
    return RolloutsError(f"{place}: expected '{name}' as {expected}, found {found}. Mend it or leave the file out.")


def _as_float(value: int | float) -> float:
    """Give a number as a float; a whole number that is beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _without_nulls(value: Any) -> Any:
    """Leave out what a table has as null only since another message has it; an empty content stays.

    Lone surrogates become replacement characters.
    """
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None or k == "content"}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(part) for part in value]
    if isinstance(value, str):
        return without_surrogates(value)
    return value
