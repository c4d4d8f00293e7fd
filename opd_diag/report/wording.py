"""Numbers rounded by their error, and a user's text made visible."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

STATES_NAMES = {"on-policy": "own states", "start": "the start's states", "teacher": "the teacher's states"}
"""What pages call the state sets."""

STATUS_SYMBOLS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?"}
STATUS_WORDS = {"pass": "pass", "warn": "warning", "fail": "fail", "unknown": "unknown"}

_MINUS = "\N{MINUS SIGN}"


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


def with_interval(value: Any, ci_low: Any, ci_high: Any, *, signed: bool = False) -> str:
    """Write a value with its interval, both rounded by it; the value alone where the interval is undefined.

    Examples
    --------
    >>> with_interval(0.412, 0.352, 0.472), with_interval(0.41, float("nan"), float("nan"))
    ('0.41 [0.35, 0.47]', '0.41')
    """
    value, ci_low, ci_high = float(value), float(ci_low), float(ci_high)
    decimals = decimals_for(value, ci_low, ci_high)
    text = number(value, decimals, signed=signed)
    if math.isnan(value) or math.isnan(ci_low) or math.isnan(ci_high):
        return text
    return f"{text} [{number(ci_low, decimals, signed=signed)}, {number(ci_high, decimals, signed=signed)}]"


def count(n: Any, noun: str) -> str:
    """Write a count with its noun.

    Examples
    --------
    >>> count(1, "prompt"), count(5210, "state")
    ('1 prompt', '5,210 states')
    """
    n = int(n)
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


_JOINERS = "\u200c\u200d\u200e\u200f"


def visible(text: str) -> str:
    r"""Show what a browser would hide or choke on: control characters, bidi overrides, surrogates, noncharacters.

    Line feeds and tabs stay, and so do the joiners that scripts and emoji need.

    Examples
    --------
    >>> visible("a\x00b\ud83d\u202e")
    'a\\x00b\\ud83d\\u202e'
    """
    return "".join(map(_visible, text)) if not text.isascii() or not text.isprintable() else text


def _visible(c: str) -> str:
    point = ord(c)
    if c in "\n\t" or c in _JOINERS:
        return c
    if point < 0x20 or point == 0x7F:
        return f"\\x{point:02x}"
    nonsense = (point & 0xFFFE) == 0xFFFE or 0xFDD0 <= point <= 0xFDEF
    if nonsense or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
    return c


def one_line(text: Any, most: int = 300) -> str:
    r"""Make a user's text fit a line: visible, no line breaks, and cut with an ellipsis.

    Examples
    --------
    >>> one_line("a\nb"), one_line("abcdef", 4)
    ('a b', 'abc…')
    """
    flat = visible(" ".join(str(text).split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"
