"""What two top-k sets share: Eq. 6, 7, 9 and 10 of arXiv 2604.13016."""

from __future__ import annotations

import torch
from torch import Tensor


def shared_tokens(student_topk_ids: Tensor, teacher_topk_ids: Tensor) -> Tensor:
    """Mark which of the student's top-k tokens are in the teacher's top-k too.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.

    Returns
    -------
    Tensor
        (..., k) bool, aligned with `student_topk_ids`.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> shared_tokens(torch.tensor([3, 1, 4]), torch.tensor([4, 3, 5]))
    tensor([ True, False,  True])
    """
    if student_topk_ids.shape != teacher_topk_ids.shape:
        raise ValueError(
            f"Top-k ids must have one shape, found {tuple(student_topk_ids.shape)} and {tuple(teacher_topk_ids.shape)}."
        )
    return (student_topk_ids.unsqueeze(-1) == teacher_topk_ids.unsqueeze(-2)).any(-1)


def overlap_ratio(student_topk_ids: Tensor, teacher_topk_ids: Tensor) -> Tensor:
    """Share of the top-k tokens that student and teacher have in common.

    Formula: |S ∩ T| / k, with S and T the k most probable tokens of student and teacher.

    Support: the top-k of the full vocabulary on both sides; every token counts alike, whatever its probability.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.

    Returns
    -------
    Tensor
        (...) float32, a ratio in [0, 1]; 1 when student equals teacher; always defined.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: blind to probabilities, so a change of temperature alone leaves it at 1; and past the tokens that carry
    mass it compares noise with noise, so read it beside the masses.

    References
    ----------
    arXiv 2604.13016, Eq. 6.

    Examples
    --------
    >>> overlap_ratio(torch.tensor([3, 1, 4, 9]), torch.tensor([4, 3, 5, 7]))
    tensor(0.5000)
    """
    return shared_tokens(student_topk_ids, teacher_topk_ids).float().mean(-1)


def student_overlap_mass(student_topk_ids: Tensor, teacher_topk_ids: Tensor, student_topk_logprobs: Tensor) -> Tensor:
    """Probability that the student puts on the shared top-k tokens.

    Formula: Σ_{v ∈ S ∩ T} p(v).

    Support: the intersection of both top-k; raw probabilities of the full vocabulary, not renormalised.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs
        (..., k) the student's log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) a probability in [0, 1], 0 where nothing is shared; the student's top-k mass when student equals teacher.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: never above the student's own top-k mass, so it rises when the student merely sharpens; it stays near .98
    while KL grows fortyfold, and is no sign of health by itself.

    References
    ----------
    arXiv 2604.13016, Eq. 9.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([3, 5])
    >>> student_overlap_mass(*ids, torch.tensor([0.75, 0.125]).log())
    tensor(0.7500)
    """
    return _mass(student_topk_logprobs, shared_tokens(student_topk_ids, teacher_topk_ids))


def teacher_overlap_mass(
    student_topk_ids: Tensor, teacher_topk_ids: Tensor, teacher_at_student_topk_logprobs: Tensor
) -> Tensor:
    """Probability that the teacher puts on the shared top-k tokens.

    Formula: Σ_{v ∈ S ∩ T} q(v).

    Support: the intersection of both top-k; raw probabilities of the full vocabulary, not renormalised.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    teacher_at_student_topk_logprobs
        (..., k) the teacher's log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) a probability in [0, 1], 0 where nothing is shared; the teacher's top-k mass when student equals teacher.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: high where the student goes to states at which agreeing is easy; read it at equal states too.

    References
    ----------
    arXiv 2604.13016, Eq. 10.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([3, 5])
    >>> teacher_overlap_mass(*ids, torch.tensor([0.5, 0.25]).log())
    tensor(0.5000)
    """
    return _mass(teacher_at_student_topk_logprobs, shared_tokens(student_topk_ids, teacher_topk_ids))


def overlap_token_advantage(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
) -> Tensor:
    """Mean advantage of the shared top-k tokens, both distributions renormalised on them.

    Formula: (1 / |I|) Σ_{v ∈ I} p̄(v) (log q̄(v) - log p̄(v)) = -KL(p̄‖q̄) / |I|, with I = S ∩ T and p̄, q̄ the
    distributions renormalised on I.

    Support: the intersection of both top-k; weights p̄; a mean over the tokens of I.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) nats, at most 0; 0 when student equals teacher; NaN where nothing is shared, and where a model gives
        what is shared no probability.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: a state with one shared token gives exactly 0 whatever the models, so a value near 0 says nothing unless
    the overlap ratio is high; and it divides by |I|, so values at different k do not compare.

    References
    ----------
    arXiv 2604.13016, Eq. 7. Other readings of the name are other quantities.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([1, 3])
    >>> overlap_token_advantage(*ids, torch.tensor([0.8, 0.2]).log(), torch.tensor([0.2, 0.8]).log())
    tensor(-0.4159)
    """
    shared = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(shared, student_topk_logprobs, teacher_at_student_topk_logprobs)
    outside = ~shared
    p = student_topk_logprobs.masked_fill(outside, -torch.inf).log_softmax(-1)
    q = teacher_at_student_topk_logprobs.masked_fill(outside, -torch.inf).log_softmax(-1)
    terms = torch.where(shared & (p > -torch.inf), p.exp() * (q - p), 0.0)
    count = shared.sum(-1)
    known = (p > -torch.inf).any(-1)  # of an empty I, and of one without probability, there is no distribution
    return torch.where(known, terms.sum(-1).clamp(max=0) / count, torch.nan)


def top1_agreement(student_topk_ids: Tensor, teacher_topk_ids: Tensor) -> Tensor:
    """Whether student and teacher have the same most probable token.

    Formula: 1[argmax p = argmax q].

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) ids, best first; only the first counts.

    Returns
    -------
    Tensor
        (...) float32, 0 or 1; 1 when student equals teacher; always defined. Its mean is a rate in [0, 1].

    Notes
    -----
    Caution: moves without meaning where both are nearly flat at the top.

    References
    ----------
    Common practice; reported as "same top p" by llama.cpp's perplexity tool.

    Examples
    --------
    >>> top1_agreement(torch.tensor([[3, 1], [2, 4]]), torch.tensor([[3, 9], [4, 2]]))
    tensor([1., 0.])
    """
    return (student_topk_ids[..., 0] == teacher_topk_ids[..., 0]).float()


def require_shape(ids: Tensor, *logprobs: Tensor) -> None:
    """Refuse what torch would stretch over states or tokens that it is not of."""
    for of in logprobs:
        if of.shape != ids.shape:
            raise ValueError(f"Log-probabilities must have the ids' shape {(*ids.shape,)}, found {(*of.shape,)}.")


def _mass(logprobs: Tensor, shared: Tensor) -> Tensor:
    require_shape(shared, logprobs)
    return torch.where(shared, logprobs.exp(), 0.0).sum(-1).clamp(max=1.0)
