"""Entries on how much probability the top-k hold, and the shared ones of them."""

from __future__ import annotations

import numpy as np

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.kept import IDS, ON_STUDENT, ON_TEACHER, of_kept
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values


def _teachable_ends(scores: Scores, k: int) -> tuple[Values, Values]:
    """Unknown ids hold no more than the least of the teacher's kept ones each, nor than all that those leave."""
    at_student, own = (np.exp(of.astype(np.float64)) for of in (
        scores.teacher_at_student_topk_logprobs[:, :k], scores.teacher_topk_logprobs
    ))  # fmt: skip
    low = np.nansum(at_student, axis=-1)
    rest = np.clip(1 - own.sum(axis=-1), 0, 1)
    return low, np.minimum(1, low + np.minimum(np.isnan(at_student).sum(axis=-1) * own[:, -1], rest))


ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="student_topk_mass",
        title="Student top-k mass",
        symbol=r"$\sum_S p$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("topk probabilities",),
        aligned="student_topk_mass",
        better="none",
        depends_on_k=True,
        formula="Σ p(v) over the student's top-k",
        meaning="How much of the student's probability its own k most probable tokens hold; the ceiling of its overlap "
        "mass.",
        caution="Says how sharp the student is and nothing about the teacher.",
        reference=f"{PAPER}, bound of Eq. 9",
        function=of_kept(metrics.topk_mass, ON_STUDENT[0]),
        of_one_model=True,
    ),
    Metric(
        name="teacher_topk_mass",
        title="Teacher top-k mass",
        symbol=r"$\sum_T q$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("topk probabilities",),
        aligned="student_topk_mass",
        better="none",
        depends_on_k=True,
        formula="Σ q(v) over the teacher's top-k",
        meaning="How much of the teacher's probability its own k most probable tokens hold; the ceiling of its overlap "
        "mass.",
        caution="A fall during training means that the student goes where the teacher does not know.",
        reference=f"{PAPER}, bound of Eq. 10",
        function=of_kept(metrics.topk_mass, ON_TEACHER[1]),
        of_one_model=True,
    ),
    Metric(
        name="student_overlap_mass_ratio",
        title="Student overlap mass ratio",
        symbol=r"$\sum_{S \cap T} p\,/\,\sum_S p$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned=1.0,
        better="up",
        depends_on_k=True,
        formula="Σ p(v) over S ∩ T / Σ p(v) over S",
        meaning="Share of the student's top-k mass that lies on shared tokens: its overlap mass without the effect of "
        "sharpness.",
        caution="One shared top token can make it nearly 1 by itself.",
        reference=f"{PAPER}, Eq. 9 over its bound",
        function=of_kept(metrics.overlap_mass_ratio, *IDS, ON_STUDENT[0]),
    ),
    Metric(
        name="teacher_overlap_mass_ratio",
        title="Teacher overlap mass ratio",
        symbol=r"$\sum_{S \cap T} q\,/\,\sum_T q$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned=1.0,
        better="up",
        depends_on_k=True,
        formula="Σ q(v) over S ∩ T / Σ q(v) over T",
        meaning="Share of the teacher's top-k mass that lies on shared tokens.",
        caution="High at states where agreeing is easy: read it at equal states too.",
        reference=f"{PAPER}, Eq. 10 over its bound",
        function=of_kept(metrics.overlap_mass_ratio, *reversed(IDS), ON_TEACHER[1]),
    ),
    Metric(
        name="teachable_mass",
        title="Teachable mass",
        symbol=r"$\sum_S q$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "crossed probabilities"),
        aligned="student_topk_mass",
        better="none",
        depends_on_k=True,
        formula="Σ q(v) over the student's top-k, the teacher's exact probabilities",
        meaning="How much of what the teacher wants is among what the student may well do, so that its own samples can "
        "teach it.",
        caution="High where there is nothing left to learn too: read it beside the KL.",
        reference="arXiv 2605.26844 (Cmass_true)",
        function=of_kept(metrics.teachable_mass, ON_STUDENT[1]),
        bounds=_teachable_ends,
    ),
)
