"""Entries on the top-k losses that trainers compute, beside which the exact KL stands."""

from __future__ import annotations

import math

from opd_diag import metrics
from opd_diag.metrics.verl import VERL_LOSS_MAX
from opd_diag.records.scores import Scores
from opd_diag.tables.catalogue.kept import at_k
from opd_diag.tables.catalogue.metric import PAPER, THUNLP, TRL, VERL, Depends, Metric, Values, values

_INDICATOR = {
    "floor": "an indicator: between nearly equal models its value is rounding, and its size is no distance between them"
}
_KEPT: tuple[Depends, ...] = ("topk ids", "topk probabilities", "crossed probabilities")


def _topk_reverse_kl(scores: Scores, k: int) -> Values:
    return values(metrics.topk_reverse_kl(*at_k(scores, k).on_student))


def _raw_topk_reverse_kl(scores: Scores, k: int) -> Values:
    return values(metrics.raw_topk_reverse_kl(*at_k(scores, k).on_student))


def _negative_topk_kl_rate(scores: Scores, k: int) -> Values:
    return values(metrics.negative_topk_kl(*at_k(scores, k).on_student))


def _thunlp_topk_reverse_kl(scores: Scores, k: int) -> Values:
    return values(metrics.thunlp_topk_reverse_kl(*at_k(scores, k).on_student))


def _verl_topk_forward_kl(scores: Scores, k: int) -> Values:
    return values(metrics.verl_topk_forward_kl(*at_k(scores, k).on_teacher))


def _verl_negative_rate(scores: Scores, k: int) -> Values:
    return values(metrics.verl_negative(*at_k(scores, k).on_teacher))


def _verl_clamped_rate(scores: Scores, k: int) -> Values:
    return values(metrics.verl_clamped(*at_k(scores, k).on_teacher))


def _trl_topk_reverse_kl(scores: Scores, k: int) -> Values:
    return values(metrics.trl_topk_reverse_kl(*at_k(scores, k).on_student))


def _trl_topk_forward_kl(scores: Scores, k: int) -> Values:
    return values(metrics.trl_topk_forward_kl(*at_k(scores, k).on_teacher))


def _trl_topk_jensen_shannon(scores: Scores, k: int) -> Values:
    return values(metrics.trl_topk_jensen_shannon(*at_k(scores, k).on_student))


def _trl_clamped_rate(scores: Scores, k: int) -> Values:
    return values(metrics.trl_clamped(*at_k(scores, k).on_student))


ENTRIES: tuple[Metric, ...] = (
    Metric(
        name="topk_reverse_kl",
        title="Top-k reverse KL",
        symbol=r"$\mathrm{KL}(\bar p\,\|\,\bar q)_S$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=_KEPT,
        aligned=0.0,
        better="down",
        depends_on_k=True,
        formula="Σ p̄(v) (log p̄(v) - log q̄(v)) over the student's top-k S, p̄ and q̄ renormalised there",
        meaning="The paper's top-k loss.",
        caution="Blind to mass moved between the top-k and the rest, and exactly 0 at k = 1.",
        reference=f"{PAPER}, section 2 (top-k form)",
        function=_topk_reverse_kl,
    ),
    Metric(
        name="raw_topk_reverse_kl",
        title="Raw top-k reverse KL",
        symbol=r"$\sum_S p\,\log(p/q)$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=_KEPT,
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="Σ p(v) (log p(v) - log q(v)) over S, nothing renormalised",
        meaning="The head of the exact reverse KL; the tail is what it lacks.",
        caution="No divergence: negative where the teacher puts more on the student's top-k than the student does.",
        reference="verl #7855",
        function=_raw_topk_reverse_kl,
    ),
    Metric(
        name="negative_topk_kl_rate",
        title="Negative top-k KL",
        symbol=r"$1[\sum_S p\,\log(p/q) < 0]$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=_KEPT,
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="share of states with Σ p(v) (log p(v) - log q(v)) over S below 0",
        meaning="Share of states at which a raw truncated reverse KL, thunlp's too, has a sign no KL can have.",
        caution="Between nearly equal models the sign only says which of them has more mass on the top-k.",
        reference="verl #7855",
        function=_negative_topk_kl_rate,
        exempt=_INDICATOR,
    ),
    Metric(
        name="thunlp_topk_reverse_kl",
        title="Top-k reverse KL, thunlp",
        symbol=r"$L_{\mathrm{thunlp}}$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=_KEPT,
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="Σ p̄(v) (log p(v) - log q(v)) over S, p̄ renormalised there, the log-ratio not",
        meaning="The loss that the code of the paper's authors trains on, at a first step.",
        caution="May be negative, and its weights carry no gradient: a step does not follow the slope of this number.",
        reference=f"{THUNLP}, dp_actor.py",
        function=_thunlp_topk_reverse_kl,
    ),
    Metric(
        name="verl_topk_forward_kl",
        title="Top-k forward KL, verl",
        symbol=r"$L_{\mathrm{verl}}$",
        unit="nats",
        low=0.0,
        high=VERL_LOSS_MAX,
        depends_on=_KEPT,
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="Σ q(v) (log q(v) - log p(v)) over the teacher's top-k T, log-probabilities not below -10, the sum not "
        "below 0 nor above 10",
        meaning="The loss of verl's forward_kl_topk with its default clamps.",
        caution="0 both where the models agree and where the student has more on T than the teacher.",
        reference=f"{VERL}, fsdp/losses.py",
        function=_verl_topk_forward_kl,
    ),
    Metric(
        name="verl_negative_rate",
        title="Negative top-k KL, verl",
        symbol=r"$1[\sum_T q\,\log(q/p) < 0]$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=_KEPT,
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="share of states with Σ q(v) (log q(v) - log p(v)) over T below 0, log-probabilities not below -10",
        meaning="Share of states at which verl's loss would be set to 0 and teach nothing.",
        caution="Between nearly equal models the sign only says which of them has more mass on the top-k.",
        reference=f"{VERL}, losses.py",
        function=_verl_negative_rate,
        exempt=_INDICATOR,
    ),
    Metric(
        name="verl_clamped_rate",
        title="Clamped states, verl",
        symbol=r"$1[\mathrm{clamped}]_{\mathrm{verl}}$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=_KEPT,
        aligned="verl_clamped_rate",
        better="none",
        depends_on_k=True,
        formula="share of states with a log p or log q on T below -10, or with the sum below 0 or above 10",
        meaning="Share of states at which any clamp of verl's top-k loss would act.",
        caution="Mostly the clamp of log-probabilities where the teacher is sure, which changes little: the negative "
        "rate is the one that matters.",
        reference=f"{VERL}, fsdp/losses.py",
        function=_verl_clamped_rate,
        exempt=_INDICATOR,
    ),
    Metric(
        name="trl_topk_reverse_kl",
        title="Top-k reverse KL with tail, TRL",
        symbol=r"$\mathrm{KL}(p\,\|\,q)_{S+\mathrm{tail}}$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=_KEPT,
        aligned=0.0,
        better="down",
        depends_on_k=True,
        formula="Σ p(v) (log p(v) - log q(v)) over S and one more token for all others; its probability not below 1e-7",
        meaning="The head of the exact reverse KL and what a tail bucket gives back: from 0 up to the exact KL.",
        caution="A lower bound: what differs within the tail is not seen.",
        reference=f"{TRL}, iw_opd_trainer.py",
        function=_trl_topk_reverse_kl,
    ),
    Metric(
        name="trl_topk_forward_kl",
        title="Top-k forward KL with tail, TRL",
        symbol=r"$\mathrm{KL}(q\,\|\,p)_{T+\mathrm{tail}}$",
        unit="nats",
        low=0.0,
        high=math.inf,
        depends_on=_KEPT,
        aligned=0.0,
        better="down",
        depends_on_k=True,
        formula="Σ q(v) (log q(v) - log p(v)) over T and one more token for all others; its probability not below 1e-7",
        meaning="The loss of TRL with a teacher on a server, at our k.",
        caution="A lower bound of the exact forward KL; TRL's own default is k = 1.",
        reference=f"{TRL}, server_distillation_trainer.py",
        function=_trl_topk_forward_kl,
    ),
    Metric(
        name="trl_topk_jensen_shannon",
        title="Top-k Jensen–Shannon, TRL",
        symbol=r"$\mathrm{JS}(\bar p, \bar q)_S$",
        unit="nats",
        low=0.0,
        high=math.log(2),
        depends_on=_KEPT,
        aligned=0.0,
        better="down",
        depends_on_k=True,
        formula="½ KL(p̄‖m) + ½ KL(q̄‖m), m = ½ (p̄ + q̄), p̄ and q̄ renormalised on S",
        meaning="The loss of TRL's self-distillation (SDFT), at our k.",
        caution="Blind to mass moved between the top-k and the rest; TRL's own default is k = 100.",
        reference=f"{TRL}, sdft/loss_utils.py",
        function=_trl_topk_jensen_shannon,
    ),
    Metric(
        name="trl_clamped_rate",
        title="Clamped states, TRL",
        symbol=r"$1[\mathrm{clamped}]_{\mathrm{TRL}}$",
        unit="ratio",
        low=0.0,
        high=1.0,
        depends_on=_KEPT,
        aligned="trl_clamped_rate",
        better="none",
        depends_on_k=True,
        formula="share of states with Σ p(v) or Σ q(v) over S above 1 - 1e-7",
        meaning="Share of states at which TRL's clamp of the tail bucket would act in the reverse KL.",
        caution="The bound lies at the resolution of float32, and the loss is hardly changed where it acts.",
        reference=f"{TRL}, _add_tail_bucket",
        function=_trl_clamped_rate,
        exempt=_INDICATOR,
    ),
)
