"""Where the reverse-KL gradient pushes the student's logits: its length, and the share of each kind of token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from opd_diag.metrics.overlap import require_shape, shared_tokens

RESOLUTION = 1e-2
"""Nats. Where the log-ratios of both models differ by less from token to token, shares are undefined: float32 keeps
log-probabilities to about 1e-6, and below this more than 1e-4 of a share would be rounding."""


class GradientShares(NamedTuple):
    """What falls on each kind of token; every field is (...), in [0, 1], and they add up to 1."""

    shared: Tensor
    """Tokens in both top-k."""
    student_only: Tensor
    """Tokens in the student's top-k alone."""
    teacher_only: Tensor
    """Tokens in the teacher's top-k alone."""
    other: Tensor
    """All other tokens of the vocabulary."""


def gradient_squared_norm(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Squared length of the reverse-KL gradient with respect to the student's logits.

    Formula: Σ_v g(v)², with g(v) = p(v) (log p(v) - log q(v) - KL(p‖q)).

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) float64, at least 0; 0 when student equals teacher; NaN where the KL is infinite.

    Notes
    -----
    The log-ratio is centred at the student's most probable token before anything is squared, so that states with
    max p near 1 keep their digits.

    Examples
    --------
    >>> gradient_squared_norm(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.1509, dtype=torch.float64)
    """
    p, ratio = _centred(student_logprobs, teacher_logprobs)
    mean = (p * ratio).sum(-1, keepdim=True)
    return ratio.sub_(mean).mul_(p).square_().sum(-1).double()


def centred_reverse_kl(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Reverse KL minus the log-ratio at the student's most probable token, without taking the difference.

    Formula: Σ_v p(v) (r(v) - r(v*)) = KL(p‖q) - r(v*), with r = log p - log q and v* the student's most probable token.
    The gradient at v* is -p(v*) times this. Where p(v*) nears 1 both terms of the difference grow alike and nothing is
    left of their digits; the sum has terms of the size of the result.

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) float64, nats, any sign; 0 when student equals teacher; infinite where the teacher excludes what the
        student may do, NaN where that is v*.

    Examples
    --------
    >>> centred_reverse_kl(torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log())
    tensor(-0.2747, dtype=torch.float64)
    """
    p, ratio = _centred(student_logprobs, teacher_logprobs)
    return ratio.mul_(p).sum(-1).double()


def gradient_shares(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
    student_at_teacher_topk_logprobs: Tensor,
    teacher_topk_logprobs: Tensor,
    centred_kl: Tensor,
    squared_norm: Tensor,
) -> GradientShares:
    """Split the squared length of the reverse-KL gradient by who ranks the token among its k most probable.

    Formula: Σ_{v ∈ A} g(v)² / Σ_v g(v)², with g the gradient of KL(p‖q) with respect to the student's logits and A in
    turn the tokens in S and T, in S alone, in T alone, and all others.

    Support: the whole vocabulary. Kept tokens enter one by one; the others are what they leave of `squared_norm`.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, best first, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities of both at `student_topk_ids`; float32 that was rounded from more digits suffices.
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities of both at `teacher_topk_ids`.
    centred_kl
        (...) from :func:`centred_reverse_kl`. The reverse KL itself would not do: see there.
    squared_norm
        (...) from :func:`gradient_squared_norm`.

    Returns
    -------
    GradientShares
        Four ratios of (...) float64 in [0, 1] that add up to 1. NaN where there is no gradient to split: when student
        equals teacher, or nearly, ‖g‖ < `RESOLUTION` · √p(v*) · (1 - p(v*)), v* the student's most probable token,
        which is about the length that log-ratios of that size give; and where the KL is infinite.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    To average over states, divide sums (weigh by `squared_norm`): where the models agree, the share says much about
    little. Caution: this is the gradient at the logits of one state, before the network and the optimiser; it neither
    says that a push is useful, nor what another loss, renormalised on fewer tokens, would push.

    References
    ----------
    The question is that of the ablation in arXiv 2604.13016, section 4.2 (loss on shared tokens alone); the answer is
    an identity of the softmax.

    Examples
    --------
    >>> p, q = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    >>> s, t = p.topk(1).indices, q.topk(1).indices
    >>> kept = p[s], q[s], p[t], q[t]
    >>> shares = gradient_shares(s, t, *kept, centred_reverse_kl(p, q), gradient_squared_norm(p, q))
    >>> [round(share.item(), 4) for share in shares]
    [0.0, 0.5806, 0.4032, 0.0161]
    """
    in_both = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(in_both, student_topk_logprobs, teacher_at_student_topk_logprobs)
    require_shape(in_both, student_at_teacher_topk_logprobs, teacher_topk_logprobs)
    require_shape(in_both[..., 0], centred_kl, squared_norm)
    ratio = student_topk_logprobs.double() - teacher_at_student_topk_logprobs.double()
    mean = ratio[..., :1], centred_kl.double().unsqueeze(-1)
    own = _squares(student_topk_logprobs, teacher_at_student_topk_logprobs, *mean)
    theirs = _squares(student_at_teacher_topk_logprobs, teacher_topk_logprobs, *mean)
    kept = [
        own.masked_fill(~in_both, 0.0).sum(-1),
        own.masked_fill(in_both, 0.0).sum(-1),
        theirs.masked_fill(shared_tokens(teacher_topk_ids, student_topk_ids), 0.0).sum(-1),
    ]
    norm = squared_norm.double()
    other = (norm - sum(kept)).clamp(min=0.0)  # rounding can leave -1e-7 of the norm where no other token is
    best = student_topk_logprobs[..., 0].double()
    least = RESOLUTION * (best / 2).exp() * -torch.expm1(best)
    clear = (norm > 0) & (norm >= least.square())
    total = torch.where(clear, sum(kept) + other, torch.nan)
    return GradientShares(*(part / total for part in (*kept, other)))


def _squares(student_logprobs: Tensor, teacher_logprobs: Tensor, centre: Tensor, centred_kl: Tensor) -> Tensor:
    """Give g(v)² in float64, 0 where the student excludes a token."""
    first = student_logprobs.double()
    push = first.exp() * (first - teacher_logprobs.double() - centre - centred_kl)
    return push.masked_fill(first == -torch.inf, 0.0).square()


def _centred(student_logprobs: Tensor, teacher_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Give p, and log p - log q minus its value at the student's most probable token; 0 - that where p is 0."""
    p = student_logprobs.exp()
    ratio = (student_logprobs - teacher_logprobs).masked_fill_(p == 0, 0.0)
    return p, ratio.sub_(ratio.gather(-1, student_logprobs.argmax(-1, keepdim=True)))
