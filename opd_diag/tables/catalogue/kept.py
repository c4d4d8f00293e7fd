"""The kept tokens at one k, as the functions of :mod:`opd_diag.metrics` take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import tensor


class AtK(NamedTuple):
    """Ids and float64 log-probabilities of the k most probable tokens of both models; every field is (N, k)."""

    student_ids: Tensor
    teacher_ids: Tensor
    student: Tensor
    """The student at its own ids."""
    teacher_at_student: Tensor
    student_at_teacher: Tensor
    teacher: Tensor
    """The teacher at its own ids."""

    @property
    def on_student(self) -> tuple[Tensor, Tensor]:
        """Both models at the student's top-k, student first."""
        return self.student, self.teacher_at_student

    @property
    def on_teacher(self) -> tuple[Tensor, Tensor]:
        """Both models at the teacher's top-k, student first."""
        return self.student_at_teacher, self.teacher

    @property
    def of_shared(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both ids, and both models at the student's."""
        return self.student_ids, self.teacher_ids, self.student, self.teacher_at_student


def at_k(scores: Scores, k: int) -> AtK:
    """Cut the kept tokens to k."""
    return AtK(
        tensor(scores.student_topk_ids[:, :k]),
        tensor(scores.teacher_topk_ids[:, :k]),
        tensor(scores.student_topk_logprobs[:, :k]).double(),
        tensor(scores.teacher_at_student_topk_logprobs[:, :k]).double(),
        tensor(scores.student_at_teacher_topk_logprobs[:, :k]).double(),
        tensor(scores.teacher_topk_logprobs[:, :k]).double(),
    )
