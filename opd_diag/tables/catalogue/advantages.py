"""Entries on the advantage of shared tokens: the paper's, and other readings of the name under their owners'."""

from __future__ import annotations

import math

from opd_diag import metrics
from opd_diag.tables.catalogue.kept import IDS, ON_STUDENT, of_kept
from opd_diag.tables.catalogue.metric import PAPER, THUNLP, VERL, Metric

ENTRIES: tuple[Metric, ...] = (
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
        function=of_kept(metrics.overlap_token_advantage, *IDS, *ON_STUDENT),
        primary=True,
    ),
    Metric(
        name="thunlp_overlap_token_advantage",
        title="Overlap-token advantage, thunlp",
        symbol=r"$A_{\mathrm{thunlp}}$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=("topk ids", "topk probabilities"),
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="(1/|I|) Σ p̄(v) (log q(v) - log p(v)) over I = S ∩ T, p̄ renormalised on S; mean over all shared "
        "tokens of all states",
        meaning="What the code of the paper's authors logs as adv_intersection.",
        caution="Above 0 where the teacher has more on the shared tokens than the student, so 0 is not the best value.",
        reference=f"{THUNLP}, ray_trainer.py",
        function=of_kept(metrics.thunlp_overlap_token_advantage, *IDS, *ON_STUDENT),
        weight="shared_tokens",
    ),
    Metric(
        name="verl_overlap_token_advantage",
        title="Overlap-token advantage, verl",
        symbol=r"$A_{\mathrm{verl}}$",
        unit="nats",
        low=-math.inf,
        high=math.inf,
        depends_on=("topk ids", "topk probabilities"),
        aligned=0.0,
        better="none",
        depends_on_k=True,
        formula="(1/|I|) Σ q(v) (log p(v) - log q(v)) over I = S ∩ T, log-probabilities not below -10",
        meaning="What verl logs as distillation/overlap_token_advantage.",
        caution="Weighed by the teacher, and above 0 where the student has more on the shared tokens; verl's own curve "
        "is a mean over micro-batches and counts one without overlap as 0.",
        reference=f"{VERL}, fsdp/losses.py",
        function=of_kept(metrics.verl_overlap_token_advantage, *IDS, *ON_STUDENT),
    ),
    Metric(
        name="probe_overlap_token_advantage",
        title="Overlap-token advantage, probe",
        symbol=r"$-\mathrm{KL}(\bar p\,\|\,\bar q)$",
        unit="nats",
        low=-math.inf,
        high=0.0,
        depends_on=("topk ids", "topk probabilities"),
        aligned=0.0,
        better="up",
        depends_on_k=True,
        formula="Σ p̄(v) (log q̄(v) - log p̄(v)) over I = S ∩ T, p̄ and q̄ renormalised on I",
        meaning="What a training-time probe in public forks of that code logs: the paper's, not divided by |I|.",
        caution="|I| times the paper's value, so the two do not compare; one shared token scores 0 here too.",
        reference="rethinking_opd_probe.py of a public fork of thunlp/OPD",
        function=of_kept(metrics.probe_overlap_token_advantage, *IDS, *ON_STUDENT),
    ),
)
