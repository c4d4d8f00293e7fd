"""What known ids leave to the others: how much mass, at how many, and at most how much at one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from opd_diag.metrics.overlap import require_shape

SLACK = 1e-5
"""Probability by which a sum of known ones may be off, having been rounded to float32."""

LEAST_SLACK = 1e-14
"""What a float64 sum of float64 values may be off."""

LEAST_LOGPROB = -700.0
"""No probability but 0 is taken to be below exp(-700), so that nothing possible becomes impossible in float64."""

ROUNDING = 1e-13
"""What is left of a tail mass after m caps, and is a smaller share of it than this, is rounding."""


@dataclass(frozen=True)
class Bounds:
    """What a quantity may be, both ends included; never NaN, and `low` is at most `high`."""

    low: Tensor
    """(...) float64."""
    high: Tensor
    """(...) float64."""


class TailMass(NamedTuple):
    """What is known of the teacher at the unknown ids together; every field is (..., 1)."""

    low: Tensor
    """Least mass at all of them, float64."""
    high: Tensor
    """Greatest mass at all of them, at most n times the cap."""
    cap: Tensor
    """Greatest probability at one of them, above 0: 1 where there is no mass for sure."""
    n: Tensor
    """How many they are, int64."""


def tail_mass(known_ids: Tensor, known_logprobs: Tensor, cap: Tensor, vocabulary: int, slack: float) -> TailMass:
    """Give what the known ids leave to the others.

    Where known ids and cap contradict each other (n c below the least mass that is left), the cap gives way.

    Examples
    --------
    >>> known = torch.tensor([3, 1]), torch.tensor([0.5, 0.25]).log()
    >>> tail = tail_mass(*known, torch.tensor(0.25).log(), 10, 0.0)
    >>> tail.low, tail.high, tail.n
    (tensor([0.2500], dtype=torch.float64), tensor([0.2500], dtype=torch.float64), tensor([8]))
    """
    n = vocabulary - (known_ids >= 0).sum(-1, keepdim=True)
    rest, slack = mass_left(known_ids, known_logprobs), max(slack, LEAST_SLACK)
    low = torch.where(n > 0, (rest - slack).clamp(0, 1), 0.0)
    most = torch.maximum(exp(cap.double().unsqueeze(-1)), low / n.clamp(min=1))
    high = torch.maximum(low, torch.minimum((rest + slack).clamp(0, 1), n * most))
    return TailMass(low, high, torch.where(most > 0, most, 1.0), n)


def mass_left(known_ids: Tensor, known_logprobs: Tensor) -> Tensor:
    """Give the (..., 1) mass that known ids leave, which rounding may have put below 0."""
    return 1 - torch.where(known_ids >= 0, known_logprobs.double().exp(), 0.0).sum(-1, keepdim=True)


def between(low: Tensor, high: Tensor, most: float) -> Bounds:
    """Give bounds from (..., 1) ends of a quantity in [0, most], which rounding may have put outside or crossed.

    Examples
    --------
    >>> between(torch.tensor([-1e-17]), torch.tensor([1.1]), 1.0)
    Bounds(low=tensor(0.), high=tensor(1.))
    """
    low, high = (end.clamp(0, most).squeeze(-1) for end in (low, high))
    return Bounds(low, torch.maximum(low, high))


def exp(logprobs: Tensor) -> Tensor:
    """Give probabilities, 0 only where they are 0 (:data:`LEAST_LOGPROB`), and 1 at most.

    Examples
    --------
    >>> exp(torch.tensor([1e-7, -1e4, -torch.inf], dtype=torch.float64)) > 0
    tensor([ True,  True, False])
    """
    return logprobs.clamp(LEAST_LOGPROB, 0).exp_().masked_fill_(logprobs == -torch.inf, 0.0)


def left_of(mass: Tensor, at_cap: Tensor, cap: Tensor) -> Tensor:
    """Give what is left of a mass after so many caps; 0 where that is rounding.

    Examples
    --------
    >>> left_of(torch.tensor(0.5), torch.tensor(3), torch.tensor(0.125))
    tensor(0.1250)
    """
    left = mass - at_cap * cap
    return torch.where(left > ROUNDING * mass, left, 0.0)


def require_leading(leading: Sequence[int], *others: Tensor) -> None:
    """Refuse what is not of the same states."""
    for of in others:
        if tuple(of.shape[:-1]) != tuple(leading):
            raise ValueError(f"States must have the shape {(*leading,)} everywhere, found {(*of.shape[:-1],)}.")


def require_known(known_ids: Tensor, known_logprobs: Tensor, vocabulary: int | None = None) -> None:
    """Refuse log-probabilities of other ids, and what :func:`require_distinct` refuses."""
    require_shape(known_ids, known_logprobs)
    require_distinct(known_ids, vocabulary)


def require_distinct(ids: Tensor, vocabulary: int | None = None) -> None:
    """Refuse ids that are there twice, or not in the vocabulary; -1 is none."""
    ordered = ids.sort(-1).values
    again = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    if again.any():
        raise ValueError(f"Ids of a state must be distinct, found {int(ordered[..., 1:][again][0])} twice.")
    allowed = "at least 0" if vocabulary is None else f"0 to {vocabulary - 1}"
    wrong = ids < -1 if vocabulary is None else (ids < -1) | (ids >= vocabulary)
    if wrong.any():
        raise ValueError(f"Ids must be {allowed}, or -1 where there is none, found {int(ids[wrong][0])}.")
