"""What a teacher that told its probabilities at some ids can have at the others: as a set of ids, and in entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opd_diag.metrics.concentration import rank_in
from opd_diag.metrics.tail_mass import (
    SLACK,
    Bounds,
    TailMass,
    between,
    left_of,
    require_distinct,
    require_known,
    require_leading,
    tail_mass,
)


def teacher_mass_bounds(
    known_ids: Tensor,
    known_logprobs: Tensor,
    cap: Tensor,
    ids: Tensor,
    vocabulary: int,
    *,
    slack: float = SLACK,
) -> Bounds:
    """Bound the teacher's probability of a set of ids, such as the stop tokens.

    Formula: Σ_{E ∩ C} q + [max(0, r - (n - u) c), min(u c, r)], with E the ids, C the known ones, r = 1 - Σ_C q, c the
    cap, n the number of unknown ids and u of those that are in E.

    Parameters
    ----------
    known_ids
        (..., C) int64, distinct, in any order; -1 for a place that is not used.
    known_logprobs
        (..., C) the teacher's log-probabilities there, -inf allowed.
    cap
        (...) log of the greatest probability that an unknown id can have.
    ids
        (n,) for all states or (..., n), distinct; -1 for a place that is not used.
    vocabulary
        V.
    slack
        Probability: r may be off by it, and the bounds are taken where they are widest. At least 1e-14.

    Returns
    -------
    Bounds
        Probabilities in [0, 1], both attained; equal where all ids are known, and but for `slack` where all unknown
        ids are among them.

    Raises
    ------
    ValueError
        The shapes do not fit; an id is not in the vocabulary, or there twice.

    Examples
    --------
    >>> known = torch.tensor([3, 1]), torch.tensor([0.5, 0.25]).log()
    >>> teacher_mass_bounds(*known, torch.tensor(0.25).log(), torch.tensor([3, 7]), 10, slack=0.0)
    Bounds(low=tensor(0.5000, dtype=torch.float64), high=tensor(0.7500, dtype=torch.float64))
    """
    known_ids, ids = known_ids.long(), _of_each_state(ids.long(), known_ids)
    require_leading(known_ids.shape[:-1], ids, cap.unsqueeze(-1))
    require_known(known_ids, known_logprobs, vocabulary)
    require_distinct(ids, vocabulary)
    tail = tail_mass(known_ids, known_logprobs, cap, vocabulary, slack)
    told = known_at(known_ids, known_logprobs, ids)
    wanted = (told.isnan() & (ids >= 0)).sum(-1, keepdim=True)
    of_known = told.exp().nan_to_num(nan=0.0).sum(-1, keepdim=True)
    low = (tail.low - (tail.n - wanted) * tail.cap).clamp(min=0)
    high = torch.minimum(wanted * tail.cap, tail.high)
    return between(of_known + low, of_known + high, 1.0)


def bounds_of_entropy(known_logprobs: Tensor, tail: TailMass) -> Bounds:
    """Bound the entropy of the teacher, whose known log-probabilities (..., C) are -inf where a place is not used.

    Formula: -Σ_C q log q and, for the tail mass ρ on n ids, from -m c log c - e log e with m = ⌊ρ / c⌋ and
    e = ρ - m c (an extreme point, as entropy is concave) to ρ log(n / ρ) (all alike); both are attained.

    Examples
    --------
    >>> tail = TailMass(*(torch.tensor([x]) for x in (0.5, 0.5, 0.25)), torch.tensor([4]))
    >>> found = bounds_of_entropy(torch.tensor([0.5]).log(), tail)
    >>> found.low, found.high  # 1.5 and 2 bits
    (tensor(1.0397, dtype=torch.float64), tensor(1.3863, dtype=torch.float64))
    """
    of_known = _surprise(known_logprobs.double().exp()).sum(-1, keepdim=True)
    # Between two multiples of the cap the least entropy is concave in the mass, and it rises from one to the next.
    whole = ((tail.low / tail.cap).ceil() * tail.cap).maximum(tail.low).minimum(tail.high)
    low = torch.stack([_least_entropy(mass, tail) for mass in (tail.low, whole, tail.high)]).amin(0)
    even = (tail.n / math.e).maximum(tail.low).minimum(tail.high)
    high = torch.where(even > 0, even * (tail.n / even.clamp(min=1e-300)).log(), 0.0)
    return between(of_known + low, of_known + high, math.inf)


def known_at(known_ids: Tensor, known_logprobs: Tensor, ids: Tensor) -> Tensor:
    """Give the known log-probabilities at ids, (..., n); NaN where none is known.

    Parameters
    ----------
    known_ids, known_logprobs
        (..., C) as of :func:`teacher_mass_bounds`.
    ids
        (..., n) ids of each state, -1 for a place that is not used.

    Examples
    --------
    >>> known_at(torch.tensor([3, 1]), torch.tensor([-0.5, -2.0]), torch.tensor([1, 7]))
    tensor([-2., nan], dtype=torch.float64)
    """
    spare = torch.nn.functional.pad(known_ids, (0, 1), value=-1)
    place = rank_in(spare, ids)
    told = torch.nn.functional.pad(known_logprobs.double(), (0, 1))
    found = told.gather(-1, place.clamp(max=known_ids.shape[-1]))
    return found.masked_fill((place > known_ids.shape[-1]) | (ids < 0), math.nan)


def _of_each_state(ids: Tensor, known_ids: Tensor) -> Tensor:
    return ids.expand(*known_ids.shape[:-1], -1) if ids.ndim == 1 else ids


def _surprise(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities)


def _least_entropy(mass: Tensor, tail: TailMass) -> Tensor:
    at_cap = torch.minimum((mass / tail.cap).floor().long(), tail.n)
    return at_cap * _surprise(tail.cap) + _surprise(left_of(mass, at_cap, tail.cap))
