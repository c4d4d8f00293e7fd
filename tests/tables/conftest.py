"""Scores of two distributions known in full, without a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT


def scores_from(student, teacher, sampled_ids=None, *, k_kept=K_KEPT, stop_ids=(0,)):
    """Build the scores of N states from two (N, V) tensors of log-probabilities; all states are of rollout 0.

    `sampled_ids` (N,) default to each state's id 1.
    """
    n, vocabulary = student.shape
    sampled = torch.ones(n, dtype=torch.long) if sampled_ids is None else sampled_ids
    grid = tuple(k for k in CURVE_GRID if k <= vocabulary)
    student_logprobs, student_ids = metrics.topk(student, grid[-1])
    teacher_logprobs, teacher_ids = metrics.topk(teacher, grid[-1])
    at_student, at_teacher = teacher.gather(-1, student_ids), student.gather(-1, teacher_ids)
    curve = metrics.concentration(
        metrics.Kept(student_ids, student_logprobs, at_student, teacher_ids, teacher_logprobs), grid
    )
    k = min(k_kept, vocabulary)
    fields = {
        "sampled_ids": sampled.int(),
        "student_sampled_logprobs": student.gather(-1, sampled[:, None])[:, 0],
        "teacher_sampled_logprobs": teacher.gather(-1, sampled[:, None])[:, 0],
        "student_topk_ids": student_ids[:, :k].int(),
        "student_topk_logprobs": student_logprobs[:, :k],
        "teacher_at_student_topk_logprobs": at_student[:, :k],
        "teacher_topk_ids": teacher_ids[:, :k].int(),
        "teacher_topk_logprobs": teacher_logprobs[:, :k],
        "student_at_teacher_topk_logprobs": at_teacher[:, :k],
        "student_entropy": metrics.entropy(student),
        "teacher_entropy": metrics.entropy(teacher),
        "reverse_kl": metrics.reverse_kl(student, teacher),
        "forward_kl": metrics.forward_kl(student, teacher),
        "jensen_shannon": metrics.jensen_shannon(student, teacher),
        "common_mass": metrics.common_mass(student, teacher),
        "curve_shared": curve.shared.int(),
        "curve_student_shared_mass": curve.student_shared_mass,
        "curve_teacher_shared_mass": curve.teacher_shared_mass,
        "curve_student_mass": curve.student_mass,
        "curve_teacher_mass": curve.teacher_mass,
        "student_stop_logprobs": metrics.stop_logprobs(student, stop_ids),
        "teacher_stop_logprobs": metrics.stop_logprobs(teacher, stop_ids),
        "gradient_squared_norm": metrics.gradient_squared_norm(student, teacher),
        "centred_reverse_kl": metrics.centred_reverse_kl(student, teacher),
    }
    return Scores(
        rollout=np.zeros(n, dtype=np.int32),
        position=np.arange(n, dtype=np.int32),
        terminal=np.zeros(n, dtype=bool),
        student_cut_mass=np.zeros(n, dtype=np.float32),
        teacher_cut_mass=np.zeros(n, dtype=np.float32),
        **{name: value.numpy() for name, value in fields.items()},
        grid=grid,
        provenance={},
    )


@pytest.fixture(name="scores_from", scope="session")
def scores_from_fixture():
    return scores_from
