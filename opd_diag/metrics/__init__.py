"""Pure tensor maths: one function per quantity, any leading shape, student first.

Two kinds of input:

- **kept tokens**: ``student_topk_ids``, ``teacher_topk_ids`` of shape (..., k), best first, with log-probabilities at
  the *student's* ids where a mass is wanted (:mod:`~opd_diag.metrics.overlap`, :mod:`~opd_diag.metrics.concentration`);
- **whole distributions**: ``student_logprobs``, ``teacher_logprobs`` of shape (..., V), normalised, natural logarithm
  (:mod:`~opd_diag.metrics.divergence`, :mod:`~opd_diag.metrics.entropies`, :mod:`~opd_diag.metrics.gradient`,
  :mod:`~opd_diag.metrics.stopping`).

Results have the leading shape. Undefined is NaN, never 0. Divergences and entropies are in nats.

Examples
--------
>>> import torch
>>> from opd_diag import metrics
>>> student = torch.tensor([0.6, 0.3, 0.1, 0.0]).log()
>>> teacher = torch.tensor([0.1, 0.4, 0.0, 0.5]).log()
>>> metrics.overlap_ratio(student.topk(2).indices, teacher.topk(2).indices)
tensor(0.5000)
"""

from opd_diag.metrics.concentration import Concentration, Kept, concentration
from opd_diag.metrics.coverage import covered
from opd_diag.metrics.divergence import (
    common_mass,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    sampled_reverse_kl,
)
from opd_diag.metrics.entropies import entropy, entropy_difference, entropy_gap
from opd_diag.metrics.gradient import GradientShares, centred_reverse_kl, gradient_shares, gradient_squared_norm
from opd_diag.metrics.overlap import (
    overlap_ratio,
    overlap_token_advantage,
    shared_tokens,
    student_overlap_mass,
    teacher_overlap_mass,
    top1_agreement,
)
from opd_diag.metrics.stopping import stop_logprobs
from opd_diag.metrics.topk import topk

__all__ = [
    "Concentration",
    "GradientShares",
    "Kept",
    "centred_reverse_kl",
    "common_mass",
    "concentration",
    "covered",
    "entropy",
    "entropy_difference",
    "entropy_gap",
    "forward_kl",
    "gradient_shares",
    "gradient_squared_norm",
    "jensen_shannon",
    "overlap_ratio",
    "overlap_token_advantage",
    "reverse_kl",
    "sampled_reverse_kl",
    "shared_tokens",
    "stop_logprobs",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "top1_agreement",
    "topk",
]
