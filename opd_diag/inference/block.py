"""One block of states: two matrices of logits in, the fields of the scores out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag import metrics


@dataclass(frozen=True)
class BlockPlan:
    """What is the same for every block of a scoring."""

    vocabulary: int
    student_temperature: float
    teacher_temperature: float
    stop_ids: tuple[int, ...]
    grid: tuple[int, ...]
    k_kept: int


def score_block(student: Tensor, teacher: Tensor, sampled: Tensor, plan: BlockPlan) -> dict[str, Tensor]:
    """Reduce two (m, V) matrices of logits to the fields of m states; the matrices are overwritten."""
    p, student_cut = _normalised(student, plan.student_temperature, plan.vocabulary)
    q, teacher_cut = _normalised(teacher.to(student.device), plan.teacher_temperature, plan.vocabulary)
    fields = {
        "student_cut_mass": student_cut,
        "teacher_cut_mass": teacher_cut,
        "sampled_ids": sampled.int(),
        "terminal": sampled < 0,
        "student_sampled_logprobs": _at(p, sampled),
        "teacher_sampled_logprobs": _at(q, sampled),
        "student_entropy": metrics.entropy(p),
        "teacher_entropy": metrics.entropy(q),
        "reverse_kl": metrics.reverse_kl(p, q),
        "forward_kl": metrics.forward_kl(p, q),
        "jensen_shannon": metrics.jensen_shannon(p, q),
        "common_mass": metrics.common_mass(p, q),
        "student_stop_logprobs": metrics.stop_logprobs(p, plan.stop_ids),
        "teacher_stop_logprobs": metrics.stop_logprobs(q, plan.stop_ids),
        "gradient_squared_norm": metrics.gradient_squared_norm(p, q),
    }
    return fields | _kept_fields(p, q, plan)


def _kept_fields(p: Tensor, q: Tensor, plan: BlockPlan) -> dict[str, Tensor]:
    k, size = plan.k_kept, max(plan.k_kept, plan.grid[-1])
    student_logprobs, student_ids = metrics.topk(p, size)
    teacher_logprobs, teacher_ids = metrics.topk(q, size)
    teacher_at_student = q.gather(-1, student_ids)
    kept = metrics.Kept(student_ids, student_logprobs, teacher_at_student, teacher_ids, teacher_logprobs)
    curve = metrics.concentration(kept, plan.grid)
    return {
        "student_topk_ids": student_ids[:, :k].int(),
        "student_topk_logprobs": student_logprobs[:, :k],
        "teacher_at_student_topk_logprobs": teacher_at_student[:, :k],
        "teacher_topk_ids": teacher_ids[:, :k].int(),
        "teacher_topk_logprobs": teacher_logprobs[:, :k],
        "student_at_teacher_topk_logprobs": p.gather(-1, teacher_ids[:, :k]),
        "curve_shared": curve.shared.int(),
        "curve_student_shared_mass": curve.student_shared_mass,
        "curve_teacher_shared_mass": curve.teacher_shared_mass,
        "curve_student_mass": curve.student_mass,
        "curve_teacher_mass": curve.teacher_mass,
    }


def _normalised(logits: Tensor, temperature: float, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Give log-probabilities over the common vocabulary, in place, and the mass that was cut."""
    if temperature != 1.0:
        logits.div_(temperature)
    common = logits[:, :vocabulary]
    # Near 0 first: float32 keeps 1e-5 of a logit of 300, and that error would stay in every log-probability.
    logits.sub_(common.amax(-1, keepdim=True))
    norm = common.logsumexp(-1)
    rest = logits[:, vocabulary:]
    cut = torch.zeros_like(norm) if not rest.shape[1] else torch.sigmoid(rest.logsumexp(-1) - norm)
    return common.sub_(norm.unsqueeze(-1)), cut


def _at(logprobs: Tensor, ids: Tensor) -> Tensor:
    values = logprobs.gather(-1, ids.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return values.masked_fill(ids < 0, math.nan)
