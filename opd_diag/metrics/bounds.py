"""Bounds of whole-vocabulary quantities where the teacher told its probabilities at some ids only.

A server returns a teacher's top-K, and perhaps ids that were asked for. Of the *unknown ids* two things follow: their
mass is what the known ones leave of 1, and none is above the last of the top-K, the cap. Nothing is filled in: every
bound is the least or the greatest value over all teachers that would have told the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag.metrics.concentration import rank_in
from opd_diag.metrics.tail_mass import SLACK, Bounds, TailMass, between, require_known, require_leading, tail_mass
from opd_diag.metrics.teacher_bounds import bounds_of_entropy
from opd_diag.metrics.unknown import (
    FORWARD_KL,
    JENSEN_SHANNON,
    NEGATIVE_COMMON_MASS,
    REVERSE_KL,
    Ascending,
    Law,
    Unknown,
    ascending,
    greatest,
    least,
    without,
)


@dataclass(frozen=True)
class TailBounds:
    """Bounds of five quantities of a state; each holds by itself: one teacher rarely attains two of them."""

    teacher_entropy: Bounds
    """Nats, in [0, ∞)."""
    forward_kl: Bounds
    """Nats, in [0, ∞]."""
    reverse_kl: Bounds
    """Nats, in [0, ∞]; `high` is infinite wherever the teacher may exclude one thing that the student may do."""
    jensen_shannon: Bounds
    """Nats, in [0, log 2]."""
    common_mass: Bounds
    """Probability, in [0, 1]."""


def tail_bounds(
    student_logprobs: Tensor, known_ids: Tensor, known_logprobs: Tensor, cap: Tensor, *, slack: float = SLACK
) -> TailBounds:
    """Bound what a teacher, known at some ids, and a student, known at all, may have to do with each other.

    Formula: Σ_{v ∈ C} d(p(v), q(v)) + the least, and the greatest, Σ_{v ∉ C} d(p(v), q(v)) over all q with
    0 ≤ q ≤ c and Σ_{v ∉ C} q = 1 - Σ_C q, C being the known ids and d what an id adds to the quantity. The least has
    q = min(c, λ p); the greatest has as many ids at c as there is mass for, those of smallest p, and the others at 0.
    The entropy, where p does not count, is least with as many ids at c as there is mass for, and greatest where all
    unknown ids are alike.

    Support: the whole vocabulary.

    Parameters
    ----------
    student_logprobs
        (..., V) normalised; -inf where the student excludes a token.
    known_ids
        (..., C) int64, distinct, in any order; -1 for a place that is not used.
    known_logprobs
        (..., C) the teacher's log-probabilities there, -inf allowed; taken as they are.
    cap
        (...) log of the greatest probability that an unknown id can have: the last of a top-K.
    slack
        Probability. The mass of the unknown ids is 1 - Σ_C q, give or take this; every bound is taken where it is
        widest. It is there for the rounding of the sum, not for an engine that computes otherwise. At least 1e-14.

    Returns
    -------
    TailBounds
        Each (...) float64. Where C is the whole vocabulary both bounds are the value, and where all that is known
        grows, no bound gets wider.

    Raises
    ------
    ValueError
        The shapes do not fit; an id is not in the vocabulary, or there twice.

    Notes
    -----
    Every bound is attained by a teacher that fits what is known, in float64 and with `slack` 0, as long as at most 512
    ids are at c. Beyond that bounds stay valid and are a little wide (but for the entropy's, which are exact): ids at c
    are summed in 512 groups, bounded by their sums on the one side and by chords on the other. With `slack`, bounds are
    attained by what sums to 1 give or take it.

    Caution: the high bound of the reverse KL is infinite nearly everywhere, whatever K, for nothing forbids a teacher
    probability 0 at an unknown id; finite ones need nearly all ids. Where C and c contradict each other (too little
    room for the mass that is left), c gives way. The vocabulary is sorted once, some 30 bytes an entry while it runs.

    References
    ----------
    Cover and Thomas, Elements of Information Theory, 2nd ed.: log-sum inequality (2.7.1) and data processing (2.8). A
    convex function on a polytope is greatest at an extreme point: Rockafellar, Convex Analysis, section 32.

    Examples
    --------
    >>> student = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    >>> known = torch.tensor([0, 1]), torch.tensor([0.5, 0.25]).log()
    >>> tail_bounds(student, *known, torch.tensor(0.25).log(), slack=0.0).common_mass
    Bounds(low=tensor(0.7500, dtype=torch.float64), high=tensor(0.9000, dtype=torch.float64))
    """
    known_ids = known_ids.long()
    require_leading(student_logprobs.shape[:-1], known_ids, cap.unsqueeze(-1))
    require_known(known_ids, known_logprobs, student_logprobs.shape[-1])
    unknown = Unknown(ascending(without(student_logprobs, known_ids)), _no_more(student_logprobs))
    return _bounds(student_logprobs, known_ids, known_logprobs, cap, unknown, slack)


def nested_bounds(
    student_logprobs: Tensor,
    topk_ids: Tensor,
    topk_logprobs: Tensor,
    extra_ids: Tensor,
    extra_logprobs: Tensor,
    ks: Sequence[int],
    *,
    slack: float = SLACK,
) -> dict[int, TailBounds]:
    """Give :func:`tail_bounds` as they would be if only the first k of a top-K had come back, for several k.

    Parameters
    ----------
    student_logprobs
        (..., V) normalised.
    topk_ids, topk_logprobs
        (..., K) the teacher's most probable ids, best first, and its log-probabilities there. The cap is the k-th.
    extra_ids, extra_logprobs
        (..., E) ids that are known besides, whatever k (the sampled one, the student's top-k); -1 for a place that is
        not used. An id may be here again, or in the top-K too.
    ks
        Sizes from 1 to K.
    slack
        As in :func:`tail_bounds`.

    Returns
    -------
    dict of int to TailBounds
        By k; no bound gets wider as k grows.

    Raises
    ------
    ValueError
        As in :func:`tail_bounds`; or a k is not in 1..K.

    Notes
    -----
    The vocabulary is sorted once for all k.

    Examples
    --------
    >>> student = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    >>> top, none = (torch.tensor([0, 1]), torch.tensor([0.5, 0.25]).log()), torch.tensor([-1])
    >>> found = nested_bounds(student, *top, none, torch.zeros(1), [1, 2], slack=0.0)
    >>> [found[k].common_mass.high for k in found]
    [tensor(0.9000, dtype=torch.float64), tensor(0.9000, dtype=torch.float64)]
    """
    vocabulary, size = student_logprobs.shape[-1], topk_ids.shape[-1]
    if wrong := [k for k in ks if not 1 <= k <= size]:
        raise ValueError(f"k must be 1 to the {size} most probable tokens that are given, found {wrong[0]}.")
    topk_ids, extra_ids = topk_ids.long(), extra_ids.long()
    require_leading(student_logprobs.shape[:-1], topk_ids, extra_ids)
    require_known(topk_ids, topk_logprobs, vocabulary)
    extra_ids = _first_of_each(extra_ids)
    require_known(extra_ids, extra_logprobs, vocabulary)
    rank = rank_in(topk_ids, extra_ids)
    asked = (topk_ids.unsqueeze(-1) == extra_ids.unsqueeze(-2)).any(-1)
    many = ascending(without(student_logprobs, torch.cat([topk_ids, extra_ids], dim=-1)))
    student_topk = student_logprobs.gather(-1, topk_ids)
    found = {}
    for k in ks:
        known = asked | (torch.arange(size, device=asked.device) < k)
        ids = torch.cat([topk_ids[..., :k], extra_ids.masked_fill(rank < k, -1)], dim=-1)
        logprobs = torch.cat([topk_logprobs[..., :k], extra_logprobs], dim=-1)
        unknown = Unknown(many, ascending(student_topk.masked_fill(known, torch.inf)))
        found[k] = _bounds(student_logprobs, ids, logprobs, topk_logprobs[..., k - 1], unknown, slack)
    return found


def _bounds(
    student_logprobs: Tensor, known_ids: Tensor, known_logprobs: Tensor, cap: Tensor, unknown: Unknown, slack: float
) -> TailBounds:
    known = known_ids >= 0
    tail = tail_mass(known_ids, known_logprobs, cap, student_logprobs.shape[-1], slack)
    student = student_logprobs.gather(-1, known_ids.clamp(min=0)).double().masked_fill(~known, -torch.inf)
    teacher = known_logprobs.double().masked_fill(~known, -torch.inf)

    def total(law: Law, extreme: Callable[[Law, Unknown, TailMass], Tensor]) -> Tensor:
        return law.of(student, teacher).sum(-1, keepdim=True) + extreme(law, unknown, tail)

    def bounds(law: Law, most: float) -> Bounds:
        return between(total(law, least), total(law, greatest), most)

    return TailBounds(
        teacher_entropy=bounds_of_entropy(teacher, tail),
        forward_kl=bounds(FORWARD_KL, math.inf),
        reverse_kl=bounds(REVERSE_KL, math.inf),
        jensen_shannon=bounds(JENSEN_SHANNON, math.log(2)),
        common_mass=between(-total(NEGATIVE_COMMON_MASS, greatest), -total(NEGATIVE_COMMON_MASS, least), 1.0),
    )


def _no_more(like: Tensor) -> Ascending:
    return ascending(like.new_full((*like.shape[:-1], 1), torch.inf))


def _first_of_each(ids: Tensor) -> Tensor:
    """Give the ids with -1 where an id has been before."""
    earlier = (ids.unsqueeze(-1) == ids.unsqueeze(-2)).tril(-1).any(-1)
    return ids.masked_fill(earlier, -1)
