"""Entries on what both top-k share."""

from __future__ import annotations

import math

from torch import Tensor

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, tensor, values


def _at_k(scores: Scores, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give student ids, teacher ids, and both models' log-probabilities at the student's ids."""
    return (
        tensor(scores.student_topk_ids[:, :k]),
        tensor(scores.teacher_topk_ids[:, :k]),
        tensor(scores.student_topk_logprobs[:, :k]).double(),
        tensor(scores.teacher_at_student_topk_logprobs[:, :k]).double(),
    )


def _overlap_ratio(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, _, _ = _at_k(scores, k)
    return values(metrics.overlap_ratio(student_ids, teacher_ids))


def _student_overlap_mass(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, student_logprobs, _ = _at_k(scores, k)
    return values(metrics.student_overlap_mass(student_ids, teacher_ids, student_logprobs))


def _teacher_overlap_mass(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, _, teacher_logprobs = _at_k(scores, k)
    return values(metrics.teacher_overlap_mass(student_ids, teacher_ids, teacher_logprobs))


def _overlap_token_advantage(scores: Scores, k: int) -> Values:
    return values(metrics.overlap_token_advantage(*_at_k(scores, k)))


ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="overlap_ratio",
        title="Overlap ratio",
        symbol=r"$|S \cap T|\,/\,k$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids",),
        aligned=1.0,
        better="up",
        depends_on_k=True,
        formula="|S ∩ T| / k, S and T the k most probable tokens of student and teacher",
        meaning="Share of the top-k tokens that student and teacher have in common.",
        caution="Blind to probabilities: a change of temperature alone leaves it at 1, and past the tokens that carry "
        "mass it compares noise with noise.",
        reference=f"{PAPER}, Eq. 6",
        function=_overlap_ratio,
        primary=True,
    ),
    Metric(
        name="student_overlap_mass",
        title="Student overlap mass",
        symbol=r"$\sum_{S \cap T} p$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned="student_topk_mass",
        better="up",
        depends_on_k=True,
        formula="Σ p(v) over the shared top-k tokens, not renormalised",
        meaning="Probability that the student puts on the shared top-k tokens.",
        caution="Rises when the student merely sharpens, and stays near .98 while KL grows fortyfold: no sign of "
        "health by itself.",
        reference=f"{PAPER}, Eq. 9",
        function=_student_overlap_mass,
        primary=True,
    ),
    Metric(
        name="teacher_overlap_mass",
        title="Teacher overlap mass",
        symbol=r"$\sum_{S \cap T} q$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned="student_topk_mass",
        better="up",
        depends_on_k=True,
        formula="Σ q(v) over the shared top-k tokens, not renormalised",
        meaning="Probability that the teacher puts on the shared top-k tokens.",
        caution="High where the student goes to states at which agreeing is easy: read it at equal states too.",
        reference=f"{PAPER}, Eq. 10",
        function=_teacher_overlap_mass,
        primary=True,
    ),
    Metric(
        name="overlap_token_advantage",
        title="Overlap-token advantage",
        symbol=r"$-\mathrm{KL}(\bar p\,\|\,\bar q)\,/\,|S \cap T|$",
        unit="nats",
        low=-math.inf,
        high=0.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned=0.0,
        better="up",
        depends_on_k=True,
        formula="(1/|I|) Σ p̄(v) (log q̄(v) - log p̄(v)) over I = S ∩ T, p̄ and q̄ renormalised on I",
        meaning="Mean advantage of the shared tokens under both models renormalised on them; 0 is perfect.",
        caution="A state with one shared token scores exactly 0 whatever the models, so it says nothing unless the "
        "overlap ratio is high; values at different k do not compare.",
        reference=f"{PAPER}, Eq. 7",
        function=_overlap_token_advantage,
        primary=True,
    ),
)
