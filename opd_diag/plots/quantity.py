"""What a picture or a page must know about one quantity."""

from __future__ import annotations

from dataclasses import dataclass

from opd_diag.tables.ranges import range_of


@dataclass(frozen=True)
class Quantity:
    """What a picture or a page must know about one row of a summary."""

    name: str
    """Column and JSON name."""
    title: str
    """As pages write it."""
    symbol: str
    """In matplotlib mathtext; empty when there is none."""
    unit: str
    """``ratio``, ``probability``, ``nats`` or ``tokens``."""
    meaning: str
    """What it measures, one sentence."""
    caution: str
    """How it misleads, one sentence."""
    undefined: str
    """Why it may be undefined at every state, a clause."""
    formula: str = ""
    """How it is computed; empty where `meaning` says it all."""
    reference: str = ""
    """Where it comes from."""

    @property
    def low(self) -> float:
        """Least possible value; -inf when there is none."""
        return range_of(self.name)[0]

    @property
    def high(self) -> float:
        """Greatest possible value; inf when there is none."""
        return range_of(self.name)[1]

    @property
    def axis_label(self) -> str:
        """Symbol and unit, for an axis."""
        return f"{self.symbol}  ({self.unit})" if self.symbol else f"({self.unit})"
