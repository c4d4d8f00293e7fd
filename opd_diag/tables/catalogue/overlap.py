"""Entries on what both top-k share."""

from __future__ import annotations

from opd_diag import metrics
from opd_diag.metrics.ranks import PERSISTENCE
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.kept import IDS, ON_STUDENT, of_kept
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, tensor, values


def _rank_biased_overlap(scores: Scores, k: int) -> Values:
    return values(metrics.rank_biased_overlap(tensor(scores.student_topk_ids), tensor(scores.teacher_topk_ids)))


def _top1_agreement(scores: Scores, k: int) -> Values:
    return values(metrics.top1_agreement(tensor(scores.student_topk_ids), tensor(scores.teacher_topk_ids)))


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
        function=of_kept(metrics.overlap_ratio, *IDS),
        primary=True,
    ),
    Metric(
        name="rank_biased_overlap",
        title="Rank-biased overlap",
        symbol=r"$\mathrm{RBO}(S, T)$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids",),
        aligned=1.0,
        better="up",
        depends_on_k=False,
        formula="(X_K/K) r^K + ((1 - r)/r) Σ_d (X_d/d) r^d, X_d the tokens that the first d of both rankings share, "
        f"d = 1…K, K all kept tokens (32, or the vocabulary), r = {PERSISTENCE:g}; the extrapolated form",
        meaning="How alike the two rankings of tokens are, the top counting most; a companion of the overlap ratio "
        "that needs no k.",
        caution="Knows ranks and no probabilities: it falls where two nearly equal probabilities change places.",
        reference="Webber et al. (2010)",
        function=_rank_biased_overlap,
    ),
    Metric(
        name="top1_agreement",
        title="Top-1 agreement",
        symbol=r"$1[\mathrm{argmax}\,p = \mathrm{argmax}\,q]$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids",),
        aligned=1.0,
        better="up",
        depends_on_k=False,
        formula="1 where both models have the same most probable token, else 0",
        meaning="Share of states at which both models would greedily say the same.",
        caution="Moves without meaning where both are nearly flat at the top.",
        reference="llama.cpp perplexity tool, 'same top p'",
        function=_top1_agreement,
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
        function=of_kept(metrics.student_overlap_mass, *IDS, ON_STUDENT[0]),
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
        function=of_kept(metrics.teacher_overlap_mass, *IDS, ON_STUDENT[1]),
        primary=True,
    ),
)
