"""Kept tokens of two random models, as the functions on top-k take them, beside the whole distributions."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Kept(NamedTuple):
    student_ids: torch.Tensor
    teacher_ids: torch.Tensor
    student: torch.Tensor
    teacher_at_student: torch.Tensor
    student_at_teacher: torch.Tensor
    teacher: torch.Tensor

    @property
    def on_student(self):
        return self.student, self.teacher_at_student

    @property
    def on_teacher(self):
        return self.student_at_teacher, self.teacher

    @property
    def of_shared(self):
        return self.student_ids, self.teacher_ids, self.student, self.teacher_at_student


def kept_of(student, teacher, k):
    """Cut two (..., V) tensors of log-probabilities to what Scores keep of them."""
    student_topk, student_ids = student.topk(k)
    teacher_topk, teacher_ids = teacher.topk(k)
    at = teacher.gather(-1, student_ids), student.gather(-1, teacher_ids)
    return Kept(student_ids, teacher_ids, student_topk, *at, teacher_topk)


def rows(*tensors):
    """Give the states one by one, as plain numbers."""
    return zip(*(t.tolist() for t in tensors), strict=True)
