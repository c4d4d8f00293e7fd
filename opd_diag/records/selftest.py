"""One self-test: whether what was measured can be believed at all."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from opd_diag.records.verdict import finite_or_none

Outcome = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class SelfTest:
    """One question to the measurement itself, asked before any verdict."""

    name: str
    """Fixed name, for example ``shift``; several results of one name are about several models."""
    model: str
    """Which model, checkpoint or pair it was asked of, as tables and messages call it."""
    status: Outcome
    """``fail``: the measurement cannot be believed. ``warn``: it can, but the pair has a fault that it shows, as other
    stop tokens. ``unknown`` where it could not be asked (the evidence says why). Else ``pass``."""
    value: float
    """The number it read; NaN when there is none."""
    threshold: float
    """What `value` was held against; NaN when there is none."""
    evidence: str
    """One sentence with what was seen."""
    advice: str
    """What to do next, one sentence; empty where it passed."""

    def as_record(self) -> dict[str, Any]:
        """Give the fields as JSON values; NaN becomes None.

        Examples
        --------
        >>> SelfTest("shift", "teacher", "pass", 0.0, float("nan"), "Best at 0.", "").as_record()["threshold"] is None
        True
        """
        return {k: finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(self).items()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> SelfTest:
        """Read what :meth:`as_record` gave; None becomes NaN.

        Examples
        --------
        >>> seen = SelfTest("shift", "teacher", "pass", 0.5, float("nan"), "Best at 0.", "")
        >>> SelfTest.from_record(seen.as_record()).evidence
        'Best at 0.'
        """
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in record.items()}
        return cls(**values)
