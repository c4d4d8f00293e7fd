"""The kept tokens at one k, as the functions of :mod:`opd_diag.metrics` take them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import Values, tensor, values

IDS = ("student_topk_ids", "teacher_topk_ids")
"""Both models' k most probable ids."""
ON_STUDENT = ("student_topk_logprobs", "teacher_at_student_topk_logprobs")
"""Both models at the student's ids, student first."""
ON_TEACHER = ("student_at_teacher_topk_logprobs", "teacher_topk_logprobs")
"""Both models at the teacher's ids, student first."""


def kept(scores: Scores, k: int, *fields: str) -> tuple[Tensor, ...]:
    """Cut fields of the scores to k tokens: (N, k) each, ids as they are, log-probabilities in float64."""
    cut = (tensor(getattr(scores, field)[:, :k]) for field in fields)
    return tuple(of.double() if of.is_floating_point() else of for of in cut)


def of_kept(function: Callable[..., Tensor], *fields: str) -> Callable[[Scores, int], Values]:
    """Give what an entry computes: a function of :mod:`opd_diag.metrics` at these fields, in this order."""
    return lambda scores, k: values(function(*kept(scores, k, *fields)))
