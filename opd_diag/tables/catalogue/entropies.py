"""Entries on how undecided both models are."""

from __future__ import annotations

import math

import numpy as np

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, ends_of, tensor, values


def _entropy_gap(scores: Scores, k: int) -> Values:
    return values(metrics.entropy_gap(tensor(scores.student_entropy), tensor(scores.teacher_entropy)))


def _entropy_difference(scores: Scores, k: int) -> Values:
    return values(metrics.entropy_difference(tensor(scores.student_entropy), tensor(scores.teacher_entropy)))


def _difference_ends(scores: Scores, k: int) -> tuple[Values, Values]:
    low, high = scores.ends("teacher_entropy")
    ours = scores.student_entropy.astype(np.float64)
    return ours - high, ours - low


def _gap_ends(scores: Scores, k: int) -> tuple[Values, Values]:
    low, high = _difference_ends(scores, k)
    return np.maximum(0.0, np.maximum(low, -high)), np.maximum(-low, high)


ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="entropy_gap",
        title="Entropy gap",
        symbol=r"$|H(q) - H(p)|$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="|H(q) - H(p)|, absolute at each state, before averaging",
        meaning="Distance of the two entropies, state by state.",
        caution="Two models of equal entropy may prefer different tokens; and it is not the gap of the mean "
        "entropies, which trainers log.",
        reference=f"{PAPER}, Eq. 8",
        function=_entropy_gap,
        bounds=_gap_ends,
        primary=True,
    ),
    Metric(
        name="entropy_difference",
        title="Entropy difference",
        symbol=r"$H(p) - H(q)$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned=0.0,
        better="none",
        depends_on_k=False,
        formula="H(p) - H(q), student minus teacher",
        meaning="Signed: above 0 the student is flatter than the teacher, below 0 sharper.",
        caution="States of opposite sign cancel in its mean; the entropy gap is what does not cancel.",
        reference=f"{PAPER}, section 2 (signed companion of Eq. 8)",
        function=_entropy_difference,
        bounds=_difference_ends,
    ),
    Metric(
        name="student_entropy",
        title="Student entropy",
        symbol=r"$H(p)$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned="student_entropy",
        better="none",
        depends_on_k=False,
        formula="H(p) = -Σ p(v) log p(v) over the whole vocabulary",
        meaning="How undecided the student is.",
        caution="Falls both when the student learns and when it collapses.",
        reference=f"{PAPER}, Eq. 8",
        function=lambda scores, k: scores.student_entropy.astype(np.float64),
        of_one_model=True,
    ),
    Metric(
        name="teacher_entropy",
        title="Teacher entropy",
        symbol=r"$H(q)$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned="student_entropy",
        better="none",
        depends_on_k=False,
        formula="H(q) = -Σ q(v) log q(v) over the whole vocabulary",
        meaning="How undecided the teacher is at the states the student visits.",
        caution="A rise during training means that the student goes where the teacher does not know either.",
        reference=f"{PAPER}, Eq. 8",
        function=lambda scores, k: scores.teacher_entropy.astype(np.float64),
        bounds=ends_of("teacher_entropy"),
        of_one_model=True,
    ),
)
