"""The catalogue of metrics: one entry each, data and not machinery.

Columns, axis labels, bounds, tests and the README's table all follow from it. To add a metric: write its function in
:mod:`opd_diag.metrics`, then one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.records.scores import Scores

Values = npt.NDArray[np.float64]
Depends = Literal["topk ids", "topk probabilities", "whole distributions", "sampled tokens"]


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it may be, and how it follows from scores."""

    name: str
    """Column and JSON name."""
    title: str
    """As pages write it."""
    symbol: str
    """In matplotlib mathtext."""
    unit: str
    """``ratio``, ``probability`` or ``nats``."""
    low: float
    """Least possible value; -inf when there is none."""
    high: float
    """Greatest possible value; inf when there is none."""
    depends_on: tuple[Depends, ...]
    """What it reads; perturbing that moves it, relabelling the vocabulary does not."""
    aligned: float | str
    """Value at every state when student equals teacher; a column name where that depends on the student."""
    better: Literal["up", "down", "none"]
    """Which way is more alike; ``none`` where neither is."""
    depends_on_k: bool
    formula: str
    """In plain text, as a definition on the page."""
    meaning: str
    """What it measures, one sentence."""
    caution: str
    """How it misleads, one sentence."""
    reference: str
    """Paper and equation."""
    function: Callable[[Scores, int], Values] = field(repr=False)
    """(scores, k) → (N,) values, NaN where undefined."""
    aggregation: str = "token mean"
    """How :func:`~opd_diag.tables.summary.summarize` aggregates it."""
    on_policy_only: bool = False
    """Whether it exists only on states that the scoring checkpoint itself sampled at temperature 1 and top-p 1."""
    exempt: dict[str, str] = field(default_factory=dict)
    """Laws it is exempt from, and why."""


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _at_k(scores: Scores, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give student ids, teacher ids, and both models' log-probabilities at the student's ids."""
    return (
        _tensor(scores.student_topk_ids[:, :k]),
        _tensor(scores.teacher_topk_ids[:, :k]),
        _tensor(scores.student_topk_logprobs[:, :k]).double(),
        _tensor(scores.teacher_at_student_topk_logprobs[:, :k]).double(),
    )


def _values(tensor: Tensor) -> Values:
    return tensor.double().numpy()


def _overlap_ratio(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, _, _ = _at_k(scores, k)
    return _values(metrics.overlap_ratio(student_ids, teacher_ids))


def _student_overlap_mass(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, student_logprobs, _ = _at_k(scores, k)
    return _values(metrics.student_overlap_mass(student_ids, teacher_ids, student_logprobs))


def _teacher_overlap_mass(scores: Scores, k: int) -> Values:
    student_ids, teacher_ids, _, teacher_logprobs = _at_k(scores, k)
    return _values(metrics.teacher_overlap_mass(student_ids, teacher_ids, teacher_logprobs))


def _overlap_token_advantage(scores: Scores, k: int) -> Values:
    return _values(metrics.overlap_token_advantage(*_at_k(scores, k)))


def _entropy_gap(scores: Scores, k: int) -> Values:
    return _values(metrics.entropy_gap(_tensor(scores.student_entropy), _tensor(scores.teacher_entropy)))


def _entropy_difference(scores: Scores, k: int) -> Values:
    return _values(metrics.entropy_difference(_tensor(scores.student_entropy), _tensor(scores.teacher_entropy)))


def _sampled_reverse_kl(scores: Scores, k: int) -> Values:
    student, teacher = _tensor(scores.student_sampled_logprobs), _tensor(scores.teacher_sampled_logprobs)
    return _values(metrics.sampled_reverse_kl(student, teacher))


def _top1_agreement(scores: Scores, k: int) -> Values:
    return _values(metrics.top1_agreement(_tensor(scores.student_topk_ids), _tensor(scores.teacher_topk_ids)))


PAPER = "arXiv 2604.13016"

CATALOGUE: tuple[Metric, ...] = (
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
    ),
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
    ),
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

BY_NAME: dict[str, Metric] = {m.name: m for m in CATALOGUE}
METRIC_NAMES: tuple[str, ...] = tuple(BY_NAME)


def markdown_table() -> str:
    """Give the catalogue as the README shows it; a test holds them together."""
    rows = ["| metric | formula | unit, range | aligned | source |", "| --- | --- | --- | --- | --- |"]
    for m in CATALOGUE:
        formula = m.formula.replace("|", "\\|")
        aligned = f"{m.aligned:g}" if isinstance(m.aligned, float) else m.aligned.replace("_", " ")
        rows.append(f"| `{m.name}` | {formula} | {m.unit}, {_range(m)} | {aligned} | {m.reference} |")
    return "\n".join(rows)


def _range(metric: Metric) -> str:
    low = "(-∞" if math.isinf(metric.low) else f"[{metric.low:g}"
    high = "∞)" if math.isinf(metric.high) else f"{metric.high:g}]"
    return f"{low}, {high}"
