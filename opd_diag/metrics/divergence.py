"""How far two distributions over the whole vocabulary are apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reverse_kl(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Reverse KL: what on-policy distillation minimises.

    Formula: KL(p‖q) = Σ_v p(v) (log p(v) - log q(v)), p the student, q the teacher.

    Support: the whole vocabulary; exact, not an estimate.

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) nats, at least 0; 0 when student equals teacher;
        infinite where the teacher excludes what the student may do.

    Notes
    -----
    Caution: falls when the student moves to states where agreeing is easy, or collapses; on the teacher's states it can
    rise in a healthy mode-seeking run.

    References
    ----------
    arXiv 2604.13016, section 2.

    Examples
    --------
    >>> reverse_kl(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.1438)
    """
    return _kl(student_logprobs, teacher_logprobs)


def forward_kl(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Forward KL: whether the student covers what the teacher does.

    Formula: KL(q‖p) = Σ_v q(v) (log q(v) - log p(v)), p the student, q the teacher.

    Support: the whole vocabulary; exact, not an estimate.

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities, student first here too.

    Returns
    -------
    Tensor
        (...) nats, at least 0; 0 when student equals teacher;
        infinite where the student excludes what the teacher may do.

    Notes
    -----
    Caution: a few tokens that the student thinks impossible dominate its mean.

    References
    ----------
    Kullback and Leibler (1951).

    Examples
    --------
    >>> forward_kl(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.1308)
    """
    return _kl(teacher_logprobs, student_logprobs)


def jensen_shannon(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Jensen–Shannon divergence: symmetric and bounded.

    Formula: ½ KL(p‖m) + ½ KL(q‖m), with m = ½ (p + q).

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) nats, in [0, log 2]; 0 when student equals teacher.

    References
    ----------
    Lin (1991), Divergence measures based on the Shannon entropy.

    Examples
    --------
    >>> jensen_shannon(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log())
    tensor(0.6931)
    """
    mixture = torch.logaddexp(student_logprobs, teacher_logprobs).sub_(math.log(2))
    return (_kl(student_logprobs, mixture) + _kl(teacher_logprobs, mixture)).mul_(0.5).clamp_(max=math.log(2))


def common_mass(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Probability that both distributions agree on: one minus their total variation distance.

    Formula: Σ_v min(p(v), q(v)).

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) in [0, 1]; 1 when student equals teacher.

    Examples
    --------
    >>> common_mass(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.7500)
    """
    return torch.minimum(student_logprobs, teacher_logprobs).exp_().sum(-1).clamp_(max=1.0)


def sampled_reverse_kl(student_sampled_logprobs: Tensor, teacher_sampled_logprobs: Tensor) -> Tensor:
    """One-sample estimate of the reverse KL, as trainers log it.

    Formula: log p(y) - log q(y) at the sampled token y.

    Support: unbiased for the reverse KL only where y was sampled from p itself, at temperature 1 and top-p 1.

    Parameters
    ----------
    student_sampled_logprobs, teacher_sampled_logprobs
        (...) log-probabilities of the sampled token.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher.

    Notes
    -----
    Caution: its sign at one state means nothing; the exact reverse KL stands beside it and varies less.

    References
    ----------
    arXiv 2604.13016, section 2 (sampled-token form).

    Examples
    --------
    >>> sampled_reverse_kl(torch.tensor(-1.0), torch.tensor(-1.5))
    tensor(0.5000)
    """
    return student_sampled_logprobs - teacher_sampled_logprobs


def tail_sampled_reverse_kl(
    known_ids: Tensor,
    teacher_known_logprobs: Tensor,
    student_known_logprobs: Tensor,
    drawn_ids: Tensor,
    student_drawn_logprobs: Tensor,
    teacher_drawn_logprobs: Tensor,
) -> Tensor:
    """Estimate the reverse KL: exactly where the teacher is known, and by one drawn token for all the rest.

    Formula: Σ_{v ∈ C} p(v) (log p(v) - log q(v)) + 1[y ∉ C] (log p(y) - log q(y)), C the known ids.

    Support: unbiased for the reverse KL over the whole vocabulary where y was drawn from p itself (by the student at
    temperature 1 and top-p 1, or for this estimate), and C does not hang on y.

    Parameters
    ----------
    known_ids
        (..., C) int64, distinct; -1 for a place that is not used.
    teacher_known_logprobs, student_known_logprobs
        (..., C) both models' log-probabilities there, normalised over the whole vocabulary.
    drawn_ids
        (...) int64, y.
    student_drawn_logprobs, teacher_drawn_logprobs
        (...) both models' log-probabilities of y; NaN where none was drawn.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; infinite where the teacher excludes what it sums up; NaN
        where none was drawn.

    Notes
    -----
    Its variance is that of the one-sample estimate on the tail alone. Caution: a mean of it is an estimate of the
    reverse KL, its value at one state is none.

    References
    ----------
    Rao and Blackwell's theorem; of KL estimates of language models, over all of the vocabulary: arXiv 2504.10637.

    Examples
    --------
    >>> p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.25, 0.5, 0.25]).log()
    >>> top = torch.tensor([1, 0])
    >>> [round(tail_sampled_reverse_kl(top, q[top], p[top], *of).item(), 4) for of in zip(torch.arange(3), p, q)]
    [0.1933, 0.1933, -0.0298]
    """
    used = known_ids >= 0
    student, teacher = (
        of.double().masked_fill(~used, -math.inf) for of in (student_known_logprobs, teacher_known_logprobs)
    )
    weights = student.exp()
    of_known = (weights * _ratio(student, teacher, weights)).sum(-1)
    of_tail = student_drawn_logprobs.double() - teacher_drawn_logprobs.double()
    inside = (known_ids == drawn_ids.unsqueeze(-1)).any(-1)
    return of_known + of_tail.masked_fill(inside & ~of_tail.isnan(), 0.0)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    weights = first.exp()
    # Rounding can leave -1e-8 where both are equal; a KL is never negative.
    return weights.mul_(_ratio(first, second, weights)).sum(-1).clamp_(min=0)


def _ratio(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Give log first - log second, 0 where the weight is 0 (and the logarithm may be -inf)."""
    return (first - second).masked_fill_(weights == 0, 0.0)
