"""What pages call things, and a user's text made to fit a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from opd_diag.stats.rounding import NEAR, between, known_between, with_interval
from opd_diag.text import visible

STATES_NAMES = {
    "on-policy": "own states",
    "start": "the start's states",
    "teacher": "the teacher's states",
    "back": "own states, scored by the start",
    "near-on-policy": "recorded, near own states",
}
"""What pages call the state sets."""

RESPONSES_NAMES = {"on-policy": "own responses", "teacher": "the teacher's responses"}
"""What they call them where a quantity tells of the responses: of the teacher's it tells nothing of the student."""

NEAR_LEGEND = f"{NEAR} within twice the precision floor: not told from rounding"
"""What the sign before a value means."""

ROUGH = "~"
"""Before an interval that is approximate."""

ROUGH_LEGEND = f"{ROUGH} before an interval: too few prompts, or too uneven ones, for exactly 95 %"
"""What that sign means."""

SELFTESTS = {
    "self_teacher": "The student as its own teacher",
    "shift": "Student and teacher at the same token",
    "batches": "Padding and batches",
    "template": "Template and first tokens",
    "ends": "Stop tokens",
    "vocabulary": "Vocabulary",
    "logprobs": "Log-probabilities as sampled",
    "repeatability": "Repeatability",
}
"""What pages call the self-tests; one without a title here goes by its own name."""


def count(n: Any, noun: str) -> str:
    """Write a count with its noun.

    Examples
    --------
    >>> count(1, "prompt"), count(5210, "state")
    ('1 prompt', '5,210 states')
    """
    n = int(n)
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def told(row: Mapping[Any, Any] | pd.Series, of: str = "", *, signed: bool = False, near: bool = False) -> str:
    """Write value and interval of a row of a table, or of one of its quantities, and mark a rough interval.

    Of what is known between bounds alone, these are written.

    Examples
    --------
    >>> told({"value": 0.412, "ci_low": 0.352, "ci_high": 0.472, "approximate": True})
    '0.41 ~[0.35, 0.47]'
    """
    if not of and known_between(row):
        return between(row["bound_low"], row["bound_high"], signed=signed)
    names = (of or "value", *(f"{of}_{end}" if of else end for end in ("ci_low", "ci_high")))
    text = with_interval(*(row[name] for name in names), signed=signed, near=near)
    rough = is_set(row.get(f"{of}_approximate" if of else "approximate"))
    return text.replace(" [", f" {ROUGH}[") if rough else text


def is_set(flag: Any) -> bool:
    """Whether a flag of a table is there and true; missing is not.

    Examples
    --------
    >>> is_set(True), is_set(None), is_set(float("nan"))
    (True, False, False)
    """
    return bool(pd.notna(flag)) and bool(flag)


def p_text(p: float) -> str:
    """Write a p-value; empty where there is none.

    Examples
    --------
    >>> p_text(0.0123), p_text(0.0), p_text(float("nan"))
    ('p 0.012', 'p < 0.001', '')
    """
    return "" if pd.isna(p) else "p < 0.001" if p < 0.001 else f"p {p:.{3 if p < 0.1 else 2}f}"


def one_line(text: Any, most: int = 300) -> str:
    r"""Make a user's text fit a line: visible, no line breaks, and cut with an ellipsis.

    Examples
    --------
    >>> one_line("a\nb"), one_line("abcdef", 4)
    ('a b', 'abc…')
    """
    flat = visible(" ".join(str(text).split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"
