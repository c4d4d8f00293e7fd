"""Entries on how far the two distributions are apart."""

from __future__ import annotations

import math

import numpy as np

from opd_diag import metrics
from opd_diag.tables.catalogue.kept import IDS, ON_STUDENT, ON_TEACHER, of_kept
from opd_diag.tables.catalogue.metric import PAPER, Metric

ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="reverse_kl",
        title="Reverse KL",
        symbol=r"$\mathrm{KL}(p\,\|\,q)$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="Σ p(v) (log p(v) - log q(v)) over the whole vocabulary",
        meaning="What on-policy distillation minimises: distance to the teacher where the student goes.",
        caution="Falls when the student moves to states where agreeing is easy, or collapses.",
        reference=f"{PAPER}, section 2",
        function=lambda scores, k: scores.reverse_kl.astype(np.float64),
        primary=True,
    ),
    Metric(
        name="forward_kl",
        title="Forward KL",
        symbol=r"$\mathrm{KL}(q\,\|\,p)$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=("whole distributions",),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="Σ q(v) (log q(v) - log p(v)) over the whole vocabulary",
        meaning="Whether the student covers what the teacher would do.",
        caution="A few tokens that the student thinks impossible dominate its mean.",
        reference="Kullback and Leibler (1951)",
        function=lambda scores, k: scores.forward_kl.astype(np.float64),
        primary=True,
    ),
    Metric(
        name="jensen_shannon",
        title="Jensen–Shannon divergence",
        symbol=r"$\mathrm{JS}(p, q)$",
        unit="nats",
        low=0.0,
        high=math.log(2),
        depends_on=("whole distributions",),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="½ KL(p‖m) + ½ KL(q‖m), m = ½ (p + q), over the whole vocabulary",
        meaning="Symmetric and bounded distance of the two distributions, which no single token can dominate.",
        caution="Saturates at log 2, so it hardly tells far from very far.",
        reference="Lin (1991)",
        function=lambda scores, k: scores.jensen_shannon.astype(np.float64),
    ),
    Metric(
        name="common_mass",
        title="Common mass",
        symbol=r"$\sum \min(p, q)$",
        unit="probability",
        low=0.0,
        high=1.0,
        depends_on=("whole distributions",),
        aligned=1.0,
        better="up",
        depends_on_k=False,
        formula="Σ min(p(v), q(v)) over the whole vocabulary, 1 minus the total variation distance",
        meaning="Probability that both models agree on; the share of the student's tokens that speculative decoding "
        "with the teacher would accept.",
        caution="Blind to how impossible the rest is to the other model, where KL is large.",
        reference="arXiv 2211.17192, for the acceptance rate",
        function=lambda scores, k: scores.common_mass.astype(np.float64),
    ),
    Metric(
        name="bhattacharyya_coefficient",
        title="Bhattacharyya coefficient",
        symbol=r"$\sum_{S \cup T} \sqrt{\bar p\,\bar q}$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("topk ids", "topk probabilities", "crossed probabilities"),
        aligned=1.0,
        better="up",
        depends_on_k=True,
        formula="Σ √(p̄(v) q̄(v)) over S ∪ T, p̄ and q̄ renormalised there",
        meaning="Likeness of the two distributions on all tokens that either has in its top-k.",
        caution="Tokens outside both top-k are not seen, so models that differ in the tail alone score 1.",
        reference="arXiv 2605.26844 (CBC), with exact probabilities on the union",
        function=of_kept(metrics.bhattacharyya_coefficient, *IDS, *ON_STUDENT, *ON_TEACHER),
    ),
)
