"""Entries on how far the two distributions are apart."""

from __future__ import annotations

import math

import numpy as np

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, tensor, values


def _sampled_reverse_kl(scores: Scores, k: int) -> Values:
    student, teacher = tensor(scores.student_sampled_logprobs), tensor(scores.teacher_sampled_logprobs)
    return values(metrics.sampled_reverse_kl(student, teacher))


def _top1_agreement(scores: Scores, k: int) -> Values:
    return values(metrics.top1_agreement(tensor(scores.student_topk_ids), tensor(scores.teacher_topk_ids)))


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
        name="sampled_reverse_kl",
        title="Sampled reverse KL",
        symbol=r"$\log p(y) - \log q(y)$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=("sampled tokens",),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="log p(y) - log q(y) at the sampled token y",
        meaning="The one-sample estimate of the reverse KL that trainers log.",
        caution="Unbiased only where the scoring checkpoint sampled y itself at temperature 1 and top-p 1; elsewhere "
        "it is left undefined.",
        reference=f"{PAPER}, section 2 (sampled-token form)",
        function=_sampled_reverse_kl,
        on_policy_only=True,
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
)
