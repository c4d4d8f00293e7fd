"""What of a state set is known before it is scored, and its scores put together from shards, whoever made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from opd_diag.inference.cut import Cut, positions_of
from opd_diag.records.arrays import Arrays, scratch
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores

ENDS, DRAWN = "ends.", "drawn."
"""Stand before the names of bounds, and of what is said of drawn tokens, among the fields of a shard."""


class Filling:
    """The arrays of scores, made once at full length, block after block written to its rows."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.arrays: Arrays = {}

    def put(self, rows: Any, fields: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a block."""
        for name, values in fields.items():
            if name not in self.arrays:
                self.arrays[name] = scratch((self.length, *values.shape[1:]), values.dtype)
            self.arrays[name][rows] = values


@dataclass(frozen=True)
class Outline:
    """How a state set is cut, and what its scores will say of themselves."""

    cut: Cut
    grid: tuple[int, ...]
    """The k of the concentration curve."""
    about: dict[str, object]
    """The provenance, but for what the states decide."""
    bound_ks: tuple[int, ...] = ()
    """The k of the bounds, where there are some."""

    def of(self, rollouts: Sequence[Rollout]) -> Outline:
        """Give the same with other copies of its responses, or without any."""
        return replace(self, cut=replace(self.cut, rollouts=rollouts))

    def together(self, shards: Iterable[tuple[int, Arrays]]) -> Scores:
        """Put shards together.

        Parameters
        ----------
        shards
            (number, fields) of every shard of the cut, in any order.

        Returns
        -------
        Scores
            All fields, sorted by (rollout, position).
        """
        rollouts = self.cut.rollouts
        positions = [np.array(positions_of(rollout), dtype=np.int32) for rollout in rollouts]
        first_row = np.cumsum([0, *(len(p) for p in positions)])
        filling = Filling(int(first_row[-1]))
        for number, fields in shards:
            rows = [np.arange(first_row[i], first_row[i + 1]) for batch in self.cut.parts[number] for i in batch]
            filling.put(np.concatenate(rows), fields)
        rows_of = np.repeat(np.arange(len(rollouts), dtype=np.int32), np.diff(first_row))
        filling.put(slice(None), {"rollout": rows_of, "position": np.concatenate(positions)})
        tied = int(filling.arrays.pop("tied").sum())
        exact: dict[str, Any] = {n: of for n, of in filling.arrays.items() if not n.startswith((ENDS, DRAWN))}
        bounds, drawn = (
            {n.removeprefix(prefix): of for n, of in filling.arrays.items() if n.startswith(prefix)}
            for prefix in (ENDS, DRAWN)
        )
        about = self.about | {"n_tied": tied}
        return Scores(**exact, grid=self.grid, provenance=about, bounds=bounds, drawn=drawn, bound_ks=self.bound_ks)
