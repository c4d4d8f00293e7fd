"""Entries on a sampled token; they exist only where the scoring checkpoint sampled it itself, or one was drawn."""

from __future__ import annotations

import math

from opd_diag import metrics
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.metric import PAPER, Metric, Values, known_whatever_is_drawn, tensor, values


def _sampled_reverse_kl(scores: Scores, k: int) -> Values:
    student, teacher = tensor(scores.student_sampled_logprobs), tensor(scores.teacher_sampled_logprobs)
    return values(metrics.sampled_reverse_kl(student, teacher))


def _tail_sampled_reverse_kl(scores: Scores, k: int) -> Values:
    if scores.drawn:
        drawn = tuple(scores.drawn[name] for name in ("ids", "student_logprobs", "teacher_logprobs"))
    else:
        drawn = scores.sampled_ids, scores.student_sampled_logprobs, scores.teacher_sampled_logprobs
    return values(metrics.tail_sampled_reverse_kl(*known_whatever_is_drawn(scores), *map(tensor, drawn)))


def _near_zero_advantage_rate(scores: Scores, k: int) -> Values:
    student, teacher = tensor(scores.student_sampled_logprobs), tensor(scores.teacher_sampled_logprobs)
    return values(metrics.near_zero_advantage(student.double(), teacher.double()))


ENTRIES: tuple[Metric, ...] = (
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
        name="tail_sampled_reverse_kl",
        title="Tail-sampled reverse KL",
        symbol=r"$\mathrm{KL}(p\,\|\,q)$, tail by one $y$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=("topk ids", "topk probabilities", "crossed probabilities", "sampled tokens"),
        aligned=0.0,
        better="down",
        depends_on_k=False,
        formula="Σ p(v) (log p(v) - log q(v)) over C, plus log p(y) - log q(y) where the drawn token y is not in C; C: "
        "the teacher's 32 kept tokens, and the student's where a server was asked for them",
        meaning="Unbiased estimate of the mean reverse KL, from what a teacher's server returns: exact where the "
        "teacher is known, by one drawn token elsewhere.",
        caution="Its value at one state estimates nothing, and with few drawn tokens outside C, which rows marked "
        "approximate have, a rare and large distance there may not be seen.",
        reference="Ours: Rao-Blackwell, over known tokens alone; over all of them: arXiv 2504.10637",
        function=_tail_sampled_reverse_kl,
        on_policy_only=True,
        takes_drawn=True,
    ),
    Metric(
        name="near_zero_advantage_rate",
        title="Near-zero advantages",
        symbol=r"$1[|A(y)| < 10^{-4}]$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=("sampled tokens",),
        aligned=1.0,
        better="none",
        depends_on_k=False,
        formula="share of states with |log q(y) - log p(y)| < 1e-4",
        meaning="Share of sampled tokens that teach next to nothing.",
        caution="Most sampled tokens are ones of which both models are sure, so a high rate is ordinary.",
        reference="arXiv 2608.31046 (51.7 % in its runs)",
        function=_near_zero_advantage_rate,
        on_policy_only=True,
        exempt={"floor": "an indicator: how far a share lies from 1 is no distance between models"},
    ),
)
