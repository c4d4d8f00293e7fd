"""Numbers rounded by their error, as people read them."""

from __future__ import annotations

import math
from typing import Any

_MINUS = "\N{MINUS SIGN}"

NEAR = "\N{ALMOST EQUAL TO}"
"""Before a number that rounding alone may have made."""


def decimals_for(value: float, ci_low: float, ci_high: float) -> int:
    """Give how many decimals the interval supports: down to the first digit of its half width.

    Without an interval: two significant digits of `value`. Two to four decimals where the half width is under 1, else
    one, and none where it is over 10.

    Examples
    --------
    >>> decimals_for(0.412, 0.352, 0.472), decimals_for(38.2, 34.1, 42.3), decimals_for(0.0123, math.nan, math.nan)
    (2, 1, 3)
    """
    half = (ci_high - ci_low) / 2
    if math.isfinite(half) and half > 0:
        first_digit = -math.floor(math.log10(half))
        wanted = max(2, first_digit) if half < 1 else first_digit + 1
    elif math.isfinite(value) and value != 0:
        wanted = max(2, 1 - math.floor(math.log10(abs(value))))
    else:
        wanted = 2
    return min(4, max(0, wanted))


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Write `value` with a true minus sign, thousands apart, and an en dash where it is undefined.

    Examples
    --------
    >>> number(-0.214, 2), number(0.4, 2, signed=True), number(float("nan"), 2), number(-0.001, 2)
    ('−0.21', '+0.40', '–', '0.00')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", _MINUS)


def with_interval(value: Any, ci_low: Any, ci_high: Any, *, signed: bool = False, near: bool = False) -> str:
    """Write a value with its interval, both rounded by it; the value alone where there is none.

    An interval without width, as that of a constant, is none: it would say that there is no error.

    `near` marks a value that is not told from rounding.

    Examples
    --------
    >>> with_interval(0.412, 0.352, 0.472), with_interval(0.41, float("nan"), float("nan"))
    ('0.41 [0.35, 0.47]', '0.41')
    >>> with_interval(1.0, 1.0, 1.0)
    '1.00'
    >>> with_interval(1e-7, 0.0, 2e-7, near=True)
    '≈0.0000 [0.0000, 0.0000]'
    """
    value, ci_low, ci_high = float(value), float(ci_low), float(ci_high)
    decimals = decimals_for(value, ci_low, ci_high)
    text = f"{NEAR if near else ''}{number(value, decimals, signed=signed)}"
    if math.isnan(value) or math.isnan(ci_low) or math.isnan(ci_high) or ci_low == ci_high:
        return text
    return f"{text} [{number(ci_low, decimals, signed=signed)}, {number(ci_high, decimals, signed=signed)}]"


def between(low: Any, high: Any, *, signed: bool = False) -> str:
    """Write bounds, both with as many decimals as tell them apart; they are no interval.

    Examples
    --------
    >>> between(0.4123, 0.4321), between(0.31, float("inf")), between(-float("inf"), float("inf"))
    ('0.412 to 0.432', 'at least 0.31', 'not bounded')
    """
    low, high = float(low), float(high)
    if math.isinf(low) and math.isinf(high):
        return "not bounded"
    if math.isinf(high):
        return f"at least {number(low, decimals_for(low, math.nan, math.nan), signed=signed)}"
    if math.isinf(low):
        return f"at most {number(high, decimals_for(high, math.nan, math.nan), signed=signed)}"
    decimals = decimals_for((low + high) / 2, low, high)
    return f"{number(low, decimals, signed=signed)} to {number(high, decimals, signed=signed)}"


def known_between(row: Any) -> bool:
    """Whether a row of a table has bounds and no value."""
    low, value = row.get("bound_low", math.nan), row["value"]
    return bool(low == low and value != value)
