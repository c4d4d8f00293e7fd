"""One block of states: two matrices of hidden states in, the fields of the scores out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.inference.head import Head, OwnLogits
from opd_diag.inference.onepass import OnePass, Top
from opd_diag.metrics.topk import block_maxima, topk_of_blocks

ROWS_BY_DEFINITION = 8
"""States that are scored at a time by the definitions, which make a dozen matrices of float64."""


@dataclass(frozen=True)
class BlockPlan:
    """What is the same for every block of a scoring."""

    vocabulary: int
    student_temperature: float
    teacher_temperature: float
    stop_ids: tuple[int, ...]
    grid: tuple[int, ...]
    k_kept: int

    @property
    def temperatures(self) -> tuple[float, float]:
        """Of student and teacher."""
        return self.student_temperature, self.teacher_temperature

    @property
    def k_found(self) -> int:
        """Most probable tokens that are looked for: those kept, and those of the curve."""
        return max(self.k_kept, self.grid[-1])


class Blocks:
    """Scores blocks of states with one pair of heads.

    Parameters
    ----------
    student, teacher
        The heads.
    plan
        What is the same for every block.
    """

    def __init__(self, student: Head | OwnLogits, teacher: Head | OwnLogits, plan: BlockPlan) -> None:
        self.heads, self.plan = (student, teacher), plan
        self.one_pass = OnePass(student, teacher, plan.vocabulary, plan.temperatures, plan.k_found)
        self.rows = self.one_pass.rows
        self.stops = torch.tensor(plan.stop_ids, dtype=torch.long, device=student.device)

    def release(self) -> None:
        """Let go of the buffers until the next block: the bodies that run in between need the memory."""
        self.one_pass.release()

    def score(self, student: Tensor, teacher: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """Give the fields of m states, m at most `rows`.

        Parameters
        ----------
        student, teacher
            (m, d) last hidden states, each of its own d.
        sampled
            (m,) ids; -1 where none was sampled.

        Returns
        -------
        dict
            Fields of :class:`~opd_diag.records.scores.Scores`, and ``tied`` (m,): whether the last token kept of
            either model, or its last of the curve, is as probable as one that is left out. NaN entropies
            where logits are NaN or infinite.
        """
        fields = self._by_one_pass(student, teacher, sampled)
        odd = ~torch.stack([v.isfinite() for n, v in fields.items() if n in _FINITE]).all(0)
        if odd.any():
            ours = self._few_by_few(student[odd], teacher[odd], sampled[odd])
            for name, values in ours.items():
                fields[name][odd] = values.to(fields[name].dtype)
        norms = [fields.pop(name) for name in ("student_normaliser", "teacher_normaliser")]
        return fields | {
            "student_cut_mass": self._cut_mass(0, student, norms[0]),
            "teacher_cut_mass": self._cut_mass(1, teacher, norms[1]),
        }

    def _by_one_pass(self, student: Tensor, teacher: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        tops = self.one_pass.load(student, teacher)
        n_stops = len(self.stops)
        ids = torch.cat([sampled.clamp(min=0).unsqueeze(-1), self.stops.expand(len(sampled), n_stops)], dim=-1)
        at = self.one_pass.at(ids)
        sums = self.one_pass.sums()
        norms = [n.unsqueeze(-1) for n in (sums.student_normaliser, sums.teacher_normaliser)]
        student_at, teacher_at = (logits - norm for logits, norm in zip(at, norms, strict=True))
        nothing = sampled < 0
        fields = {
            "sampled_ids": sampled.int(),
            "terminal": nothing,
            "student_sampled_logprobs": student_at[:, 0].masked_fill(nothing, math.nan),
            "teacher_sampled_logprobs": teacher_at[:, 0].masked_fill(nothing, math.nan),
            "student_entropy": sums.student_entropy,
            "teacher_entropy": sums.teacher_entropy,
            "reverse_kl": sums.reverse_kl,
            "forward_kl": sums.forward_kl,
            "jensen_shannon": sums.jensen_shannon,
            "common_mass": sums.common_mass,
            "student_stop_logprobs": student_at[:, 1:].logsumexp(-1).clamp(max=0),
            "teacher_stop_logprobs": teacher_at[:, 1:].logsumexp(-1).clamp(max=0),
        }
        single = {name: v.float() if v.is_floating_point() else v for name, v in fields.items()}
        double = ("gradient_squared_norm", "centred_reverse_kl", "student_normaliser", "teacher_normaliser")
        single |= {name: getattr(sums, name) for name in double}
        ours, theirs = (_logprobs(top, *pair) for top, pair in zip(tops, (norms, norms[::-1]), strict=True))
        return single | kept_fields(ours, theirs, self.plan.k_kept, self.plan.grid)

    def _few_by_few(self, student: Tensor, teacher: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """Do the same by the definitions, which know what masked ids mean: slow, and rarely needed."""
        parts = []
        for start in range(0, len(sampled), ROWS_BY_DEFINITION):
            part = slice(start, start + ROWS_BY_DEFINITION)
            both = zip(self.heads, (student[part], teacher[part]), self.plan.temperatures, strict=True)
            s, t = (head.tile(hidden, 0, self.plan.vocabulary).double() / by for head, hidden, by in both)
            norms = {"student_normaliser": s.logsumexp(-1), "teacher_normaliser": t.logsumexp(-1)}
            parts.append(norms | by_definition(s.log_softmax(-1), t.log_softmax(-1), sampled[part], self.plan))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _cut_mass(self, model: int, hidden: Tensor, norm: Tensor) -> Tensor:
        """Give the probability of the ids that only this model has; `norm` is log Σ exp over the common ones."""
        head, temperature, common = self.heads[model], self.plan.temperatures[model], self.plan.vocabulary
        rest = torch.full_like(norm, -math.inf)
        for start in range(common, head.vocabulary, self.one_pass.width):
            tile = head.tile(hidden, start, min(start + self.one_pass.width, head.vocabulary))
            rest = torch.logaddexp(rest, tile.div_(temperature).logsumexp(-1).double())
        return torch.sigmoid(rest - norm).float()


def by_definition(p: Tensor, q: Tensor, sampled: Tensor, plan: BlockPlan) -> dict[str, Tensor]:
    """Give the fields of m states from both models' log-probabilities, (m, V) in float64, by the metrics themselves.

    Of the fields of :meth:`Blocks.score`, all but the sampled ids, the terminal flags and the cut masses.
    """
    fields = {
        "student_sampled_logprobs": at_ids(p, sampled),
        "teacher_sampled_logprobs": at_ids(q, sampled),
        "student_entropy": metrics.entropy(p),
        "teacher_entropy": metrics.entropy(q),
        "reverse_kl": metrics.reverse_kl(p, q),
        "forward_kl": metrics.forward_kl(p, q),
        "jensen_shannon": metrics.jensen_shannon(p, q),
        "common_mass": metrics.common_mass(p, q),
        "student_stop_logprobs": metrics.stop_logprobs(p, plan.stop_ids),
        "teacher_stop_logprobs": metrics.stop_logprobs(q, plan.stop_ids),
        "gradient_squared_norm": metrics.gradient_squared_norm(p, q),
        "centred_reverse_kl": metrics.centred_reverse_kl(p, q),
    }
    tops = []
    for own, other in ((p, q), (q, p)):
        values, ids, tied = topk_of_blocks(own, block_maxima(own), plan.k_found)
        tops.append(Top(values, ids, other.gather(-1, ids), tied))
    return fields | kept_fields(tops[0], tops[1], plan.k_kept, plan.grid)


def kept_fields(student: Top, teacher: Top, k: int, grid: tuple[int, ...]) -> dict[str, Tensor]:
    """Give what is kept of the most probable tokens of m states, from log-probabilities in float64.

    Where `student.others` is NaN, the teacher is not known; such a token is in no top-k of the teacher's that is given.
    """
    kept = metrics.Kept(student.ids, student.logits, student.others, teacher.ids, teacher.logits)
    curve = metrics.concentration(kept, grid)
    return {
        "student_topk_ids": student.ids[:, :k].int(),
        "student_topk_logprobs": student.logits[:, :k].float(),
        "teacher_at_student_topk_logprobs": student.others[:, :k].float(),
        "teacher_topk_ids": teacher.ids[:, :k].int(),
        "teacher_topk_logprobs": teacher.logits[:, :k].float(),
        "student_at_teacher_topk_logprobs": teacher.others[:, :k].float(),
        "curve_shared": curve.shared.int(),
        "curve_student_shared_mass": curve.student_shared_mass.float(),
        "curve_teacher_shared_mass": curve.teacher_shared_mass.float(),
        "curve_student_mass": curve.student_mass.float(),
        "curve_teacher_mass": curve.teacher_mass.float(),
        "tied": _tied(student, k) | _tied(teacher, k),
    }


_FINITE = (
    *("student_entropy", "teacher_entropy", "reverse_kl", "forward_kl", "jensen_shannon"),
    *("common_mass", "gradient_squared_norm", "centred_reverse_kl"),
)


def _logprobs(top: Top, own: Tensor, other: Tensor) -> Top:
    return Top(top.logits - own, top.ids, top.others - other, top.tied)


def _tied(top: Top, k: int) -> Tensor:
    """Tell where the last of all or the last of the first k has an equal that is left out."""
    return top.tied | (top.logits[:, k - 1 : k] == top.logits[:, k : k + 1]).any(-1)


def at_ids(logprobs: Tensor, ids: Tensor) -> Tensor:
    """Give (m,) the log-probabilities of one id a row; NaN at -1."""
    values = logprobs.gather(-1, ids.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return values.masked_fill(ids < 0, math.nan)
