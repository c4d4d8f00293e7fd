"""What an entry of the catalogue says about a metric, and what it reads scores with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag.records.scores import Scores

PAPER = "arXiv 2604.13016"

Values = npt.NDArray[np.float64]
Depends = Literal["topk ids", "topk probabilities", "whole distributions", "sampled tokens"]

WEIGHTS: dict[str, Callable[[Scores], Values]] = {
    "gradient_squared_norm": lambda scores: scores.gradient_squared_norm.astype(np.float64),
}
"""Columns of the state table that metrics are weighted by, and how they follow from scores."""


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it may be, and how it follows from scores."""

    name: str
    """Column and JSON name."""
    title: str
    """As pages write it."""
    symbol: str
    """In matplotlib mathtext."""
    unit: str
    """``ratio``, ``probability`` or ``nats``."""
    low: float
    """Least possible value; -inf when there is none."""
    high: float
    """Greatest possible value; inf when there is none."""
    depends_on: tuple[Depends, ...]
    """What it reads; perturbing that moves it, relabelling the vocabulary does not."""
    aligned: float | str
    """Value at every state when student equals teacher: NaN where it is undefined then; a column name where it depends
    on the student."""
    better: Literal["up", "down", "none"]
    """Which way is more alike; ``none`` where neither is."""
    depends_on_k: bool
    formula: str
    """In plain text, as a definition on the page."""
    meaning: str
    """What it measures, one sentence."""
    caution: str
    """How it misleads, one sentence."""
    reference: str
    """Paper and equation."""
    function: Callable[[Scores, int], Values] = field(repr=False)
    """(scores, k) → (N,) values, NaN where undefined."""
    weight: str | None = None
    """Column of the state table that its means are weighted by, a name of `WEIGHTS`; None: every state counts alike."""
    on_policy_only: bool = False
    """Whether it exists only on states that the scoring checkpoint itself sampled at temperature 1 and top-p 1."""
    primary: bool = False
    """Whether it is one of the few declared beforehand, which p-values are adjusted over and pages show first."""
    exempt: dict[str, str] = field(default_factory=dict)
    """Laws it is exempt from, and why."""

    @property
    def aggregation(self) -> str:
        """How tables aggregate it over states."""
        return "token mean" if self.weight is None else "ratio of sums"


def tensor(array: npt.NDArray[Any]) -> Tensor:
    """Give an array of the scores as a tensor; memory-mapped ones are copied where torch cannot share them."""
    return torch.from_numpy(np.ascontiguousarray(array))


def values(tensor: Tensor) -> Values:
    """Give a tensor of a metric function as a column."""
    return tensor.double().numpy()
