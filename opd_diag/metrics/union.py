"""What both models say about the union of their top-k."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.overlap import require_shape, shared_tokens


def union_logprobs(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
    student_at_teacher_topk_logprobs: Tensor,
    teacher_topk_logprobs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Give both models' log-probabilities on S ∪ T: the student's top-k first, then the teacher's.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities of both at `student_topk_ids`.
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities of both at `teacher_topk_ids`.

    Returns
    -------
    student, teacher
        Both (..., 2k); -inf in both where an id of the teacher's is among the student's and has been given already.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> ids, both = torch.tensor([3, 1]), torch.tensor([0.5, 0.25]).log()
    >>> [p.exp() for p in union_logprobs(ids, torch.tensor([3, 9]), both, both, both, both)]
    [tensor([0.5000, 0.2500, 0.0000, 0.2500]), tensor([0.5000, 0.2500, 0.0000, 0.2500])]
    """
    again = shared_tokens(teacher_topk_ids, student_topk_ids)
    require_shape(again, student_topk_logprobs, teacher_at_student_topk_logprobs)
    require_shape(again, student_at_teacher_topk_logprobs, teacher_topk_logprobs)
    return (
        torch.cat([student_topk_logprobs, student_at_teacher_topk_logprobs.masked_fill(again, -torch.inf)], dim=-1),
        torch.cat([teacher_at_student_topk_logprobs, teacher_topk_logprobs.masked_fill(again, -torch.inf)], dim=-1),
    )


def bhattacharyya_coefficient(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
    student_at_teacher_topk_logprobs: Tensor,
    teacher_topk_logprobs: Tensor,
) -> Tensor:
    """Bhattacharyya coefficient on the union of both top-k: the cosine of the roots of the probabilities.

    Formula: Σ_{v ∈ S ∪ T} √(p̄(v) q̄(v)), with p̄ and q̄ the distributions renormalised on the union.

    Support: the union of both top-k; both models' exact probabilities there.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities of both at `student_topk_ids`.
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities of both at `teacher_topk_ids`.

    Returns
    -------
    Tensor
        (...) in [0, 1]; 1 when student equals teacher; always defined.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: what lies outside the union is not seen, so two models that differ in the tail alone score 1.

    References
    ----------
    Bhattacharyya (1943); TA-OPD, arXiv 2605.26844, calls it CBC. Where a server returned only a model's own top-k, its
    training code (``_union_geometry``) takes the other model's tokens to have probability 1e-12; here they have the one
    they have.

    Examples
    --------
    >>> student, teacher = torch.tensor([0.8, 0.2]).log(), torch.tensor([0.2, 0.8]).log()
    >>> ids = torch.tensor([3, 1])
    >>> bhattacharyya_coefficient(ids, ids, student, teacher, student, teacher)
    tensor(0.8000)
    """
    student, teacher = union_logprobs(
        student_topk_ids,
        teacher_topk_ids,
        student_topk_logprobs,
        teacher_at_student_topk_logprobs,
        student_at_teacher_topk_logprobs,
        teacher_topk_logprobs,
    )
    return ((student.log_softmax(-1) + teacher.log_softmax(-1)) / 2).exp().sum(-1).clamp(max=1.0)
