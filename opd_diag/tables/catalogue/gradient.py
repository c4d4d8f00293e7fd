"""Entries on the reverse-KL gradient: which tokens it is about, and how reliable one sample of it is."""

from __future__ import annotations

import math

from torch import Tensor

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.kept import IDS, ON_STUDENT, ON_TEACHER, kept
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, tensor, values


def _shares(scores: Scores, k: int) -> metrics.GradientShares:
    return metrics.gradient_shares(
        tensor(scores.student_topk_ids[:, :k]),
        tensor(scores.teacher_topk_ids[:, :k]),
        tensor(scores.student_topk_logprobs[:, :k]),
        tensor(scores.teacher_at_student_topk_logprobs[:, :k]),
        tensor(scores.student_at_teacher_topk_logprobs[:, :k]),
        tensor(scores.teacher_topk_logprobs[:, :k]),
        tensor(scores.centred_reverse_kl),
        tensor(scores.gradient_squared_norm),
    )


def _shared(scores: Scores, k: int) -> Values:
    return values(_shares(scores, k).shared)


def _student_only(scores: Scores, k: int) -> Values:
    return values(_shares(scores, k).student_only)


def _teacher_only(scores: Scores, k: int) -> Values:
    return values(_shares(scores, k).teacher_only)


def _other(scores: Scores, k: int) -> Values:
    return values(_shares(scores, k).other)


def _signal_to_noise(scores: Scores, k: int) -> Values:
    of_candidates = kept(scores, k, *IDS, *ON_STUDENT, *ON_TEACHER)
    sampled = (scores.student_sampled_logprobs, scores.teacher_sampled_logprobs)
    of_sampled = (tensor(scores.sampled_ids), *(tensor(of).double() for of in sampled))
    given: tuple[Tensor, ...] = (*of_candidates, *of_sampled)
    return values(metrics.signal_to_noise(*given))


FORMULA = "Σ g(v)² over {} / Σ g(v)², both summed over all states, with g(v) = p(v) (log p(v) - log q(v) - KL(p‖q))"
REFERENCE = f"{PAPER}, section 4.2 (its ablation of the loss by token sets)"

ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="shared_gradient_ratio",
        title="Gradient on shared tokens",
        symbol=r"$\|g_{S \cap T}\|^2\,/\,\|g\|^2$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "whole distributions"),
        aligned=math.nan,
        better="none",
        depends_on_k=True,
        formula=FORMULA.format("S ∩ T"),
        meaning="Share of the reverse-KL gradient that pushes the shared top-k tokens. Near 1, a loss on them alone "
        "would push much the same logits; the paper found by training that such a loss does about as well as one on "
        "the student's whole top-k.",
        caution="About logits, one state at a time, before the network and the optimiser; states with a long gradient "
        "decide, so few prompts may, and it does not say that the push is useful.",
        reference=REFERENCE,
        function=_shared,
        weight="gradient_squared_norm",
    ),
    Metric(
        name="student_only_gradient_ratio",
        title="Gradient on student-only tokens",
        symbol=r"$\|g_{S \setminus T}\|^2\,/\,\|g\|^2$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "whole distributions"),
        aligned=math.nan,
        better="none",
        depends_on_k=True,
        formula=FORMULA.format("S without T"),
        meaning="Share of the reverse-KL gradient that pushes tokens only the student has among its k most probable.",
        caution="Depends on k, as a larger one takes into the teacher's top-k what was the student's alone: compare at "
        "one k.",
        reference=REFERENCE,
        function=_student_only,
        weight="gradient_squared_norm",
    ),
    Metric(
        name="teacher_only_gradient_ratio",
        title="Gradient on teacher-only tokens",
        symbol=r"$\|g_{T \setminus S}\|^2\,/\,\|g\|^2$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "whole distributions"),
        aligned=math.nan,
        better="none",
        depends_on_k=True,
        formula=FORMULA.format("T without S"),
        meaning="Share of the reverse-KL gradient that pushes tokens only the teacher has among its k most probable.",
        caution="Near 0 by its factor p(v): the student gives these tokens little, so reverse KL hardly pulls them up "
        "however much the teacher wants them.",
        reference=REFERENCE,
        function=_teacher_only,
        weight="gradient_squared_norm",
    ),
    Metric(
        name="other_gradient_ratio",
        title="Gradient on all other tokens",
        symbol=r"$\|g_{V \setminus (S \cup T)}\|^2\,/\,\|g\|^2$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "whole distributions"),
        aligned=math.nan,
        better="none",
        depends_on_k=True,
        formula=FORMULA.format("the rest of the vocabulary"),
        meaning="Share of the reverse-KL gradient that neither model's top-k sees: what a loss on both would miss.",
        caution="Computed as what kept tokens leave of the whole, so below 1e-4 it may be rounding.",
        reference=REFERENCE,
        function=_other,
        weight="gradient_squared_norm",
    ),
    Metric(
        name="signal_to_noise",
        title="Signal-to-noise ratio",
        symbol=r"$\mathrm{Var}_{\bar p}[\rho]\,/\,\mathrm{noise}$",
        unit="ratio",
        low=0.0,
        high=math.inf,
        depends_on=("topk ids", "topk probabilities", "crossed probabilities", "sampled tokens"),
        aligned=math.nan,
        better="none",
        depends_on_k=True,
        formula="Var[ρ] / (Σ (1 - p̄(v)) (ρ(v) - b)² - Var[ρ]) over C = S ∪ T ∪ {y}, y the sampled token, "
        "ρ = log p - log q, p̄ renormalised on C, Var under p̄, b = Σ (1 - p̄) ρ / Σ (1 - p̄)",
        meaning="How reliable the gradient of one sampled token is under the best baseline: squared length of its mean "
        "over its variance.",
        caution="Says how reliable a push is and not how useful; it falls as k grows, and a few states of little noise "
        "can rule its mean.",
        reference="arXiv 2609.24432 (IER)",
        function=_signal_to_noise,
    ),
)
