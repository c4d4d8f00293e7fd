"""What an entry of the catalogue says about a metric, and what it reads scores with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.records.scores import Scores

PAPER = "arXiv 2604.13016"
THUNLP = "thunlp/OPD 0a443955"
VERL = "verl 1dda039b9"
TRL = "TRL 1.16.0"

Values = npt.NDArray[np.float64]
Depends = Literal["topk ids", "topk probabilities", "crossed probabilities", "whole distributions", "sampled tokens"]
"""Crossed: of each model at the other's top-k, where they are outside its own."""


def _shared_tokens(scores: Scores, k: int) -> Values:
    student, teacher = tensor(scores.student_topk_ids[:, :k]), tensor(scores.teacher_topk_ids[:, :k])
    return values(metrics.shared_tokens(student, teacher).sum(-1))


def known_whatever_is_drawn(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """Give (N, C) ids at which the teacher is known, whatever was drawn, and both models' log-probabilities there.

    The teacher's kept tokens; where a server was asked for ids, the student's too. -1 where an id is there already.
    """
    top = scores.teacher_topk_ids, scores.teacher_topk_logprobs, scores.student_at_teacher_topk_logprobs
    ids, teacher, student = map(tensor, top)
    if scores.drawn:
        asked = tensor(scores.student_topk_ids)
        again = torch.cat([metrics.shared_tokens(*of) for of in zip(asked.split(_ROWS), ids.split(_ROWS), strict=True)])
        ids = torch.cat([ids, asked.masked_fill(again, -1)], dim=-1)
        teacher = torch.cat([teacher, tensor(scores.teacher_at_student_topk_logprobs)], dim=-1)
        student = torch.cat([student, tensor(scores.student_topk_logprobs)], dim=-1)
    return ids.long(), teacher, student


_ROWS = 2**16
"""States whose tokens are compared at a time."""


def _unknown_mass(scores: Scores, k: int) -> Values:
    ids, _, student = known_whatever_is_drawn(scores)
    return values((1 - student.double().exp().masked_fill(ids < 0, 0.0).sum(-1)).clamp(0, 1))


WEIGHTS: dict[str, Callable[[Scores, int], Values]] = {
    "gradient_squared_norm": lambda scores, k: scores.gradient_squared_norm.astype(np.float64),
    "shared_tokens": _shared_tokens,
    "unknown_mass": _unknown_mass,
}
"""Columns of the state table that means need, and how they follow from (scores, k): weights; and the student's
probability where a teacher behind a server is not known whatever is drawn, which tells how many drawn tokens lie there.
"""


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
    bounds: Callable[[Scores, int], tuple[Values, Values]] | None = field(default=None, repr=False)
    """(scores, k) → (N,) the least and the greatest it can be, of a teacher that is not wholly known; None: nothing
    narrower than its range is known then."""
    weight: str | None = None
    """Column of the state table that its means are weighted by, a name of `WEIGHTS`; None: every state counts alike."""
    on_policy_only: bool = False
    """Whether it exists only on states that the scoring checkpoint itself sampled at temperature 1 and top-p 1."""
    takes_drawn: bool = False
    """Whether it exists on every state for which a token was drawn from the student, whoever sampled the response."""
    primary: bool = False
    """Whether it is one of the few declared beforehand, which p-values are adjusted over and pages show first."""
    of_one_model: bool = False
    """Whether it is about one model alone, ``student_…`` or ``teacher_…``, and so nowhere near any agreement."""
    exempt: dict[str, str] = field(default_factory=dict)
    """Laws it is exempt from, and why; ``floor``: it has no precision floor."""

    @property
    def aggregation(self) -> str:
        """How tables aggregate it over states."""
        return "token mean" if self.weight is None else "ratio of sums"


def ends_of(name: str) -> Callable[[Scores, int], tuple[Values, Values]]:
    """Give the bounds of a metric that is a field of the scores."""
    return lambda scores, k: scores.ends(name)


def tensor(array: npt.NDArray[Any]) -> Tensor:
    """Give an array of the scores as a tensor; memory-mapped ones are copied where torch cannot share them."""
    return torch.from_numpy(np.ascontiguousarray(array))


def values(tensor: Tensor) -> Values:
    """Give a tensor of a metric function as a column."""
    return tensor.double().numpy()
