"""Pure tensor maths: one function per quantity, any leading shape, student first.

Two kinds of input:

- **kept tokens**: ``student_topk_ids``, ``teacher_topk_ids`` of shape (..., k), best first, with log-probabilities of
  both models at the ids of one of them; every name says whose (``teacher_at_student_topk_logprobs``). Here are what
  both top-k share (:mod:`~opd_diag.metrics.overlap`, :mod:`~opd_diag.metrics.masses`, :mod:`~opd_diag.metrics.ranks`,
  :mod:`~opd_diag.metrics.union`, :mod:`~opd_diag.metrics.concentration`), the truncated losses of the paper
  (:mod:`~opd_diag.metrics.truncated`), :mod:`~opd_diag.metrics.verl` and :mod:`~opd_diag.metrics.trl`, other readings
  of the overlap-token advantage (:mod:`~opd_diag.metrics.advantages`), and how reliable one sampled token is
  (:mod:`~opd_diag.metrics.reliability`);
- **whole distributions**: ``student_logprobs``, ``teacher_logprobs`` of shape (..., V), normalised, natural logarithm
  (:mod:`~opd_diag.metrics.divergence`, :mod:`~opd_diag.metrics.entropies`, :mod:`~opd_diag.metrics.gradient`,
  :mod:`~opd_diag.metrics.coherence`, :mod:`~opd_diag.metrics.temperature`, :mod:`~opd_diag.metrics.stopping`).

Where of the teacher only some ids are known, as a server tells them, :mod:`~opd_diag.metrics.bounds` has what the whole
distributions can give, and :mod:`~opd_diag.metrics.teacher_bounds` what the teacher alone can.

Results have the leading shape. Undefined is NaN, never 0. Divergences and entropies are in nats. They measure, and are
no losses: many work in place, through which torch refuses to go back.

Examples
--------
>>> import torch
>>> from opd_diag import metrics
>>> student = torch.tensor([0.6, 0.3, 0.1, 0.0]).log()
>>> teacher = torch.tensor([0.1, 0.4, 0.0, 0.5]).log()
>>> metrics.overlap_ratio(student.topk(2).indices, teacher.topk(2).indices)
tensor(0.5000)
"""

from opd_diag.metrics.advantages import (
    cookbook_overlap_token_advantage,
    probe_overlap_token_advantage,
    thunlp_overlap_token_advantage,
    verl_overlap_token_advantage,
)
from opd_diag.metrics.bounds import TailBounds, nested_bounds, tail_bounds
from opd_diag.metrics.coherence import gradient_coherence, gradient_products, reverse_kl_gradient
from opd_diag.metrics.concentration import Concentration, Kept, concentration
from opd_diag.metrics.coverage import covered
from opd_diag.metrics.divergence import (
    common_mass,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    sampled_reverse_kl,
    tail_sampled_reverse_kl,
)
from opd_diag.metrics.entropies import entropy, entropy_difference, entropy_gap
from opd_diag.metrics.gradient import GradientShares, centred_reverse_kl, gradient_shares, gradient_squared_norm
from opd_diag.metrics.masses import overlap_mass_ratio, teachable_mass, topk_mass
from opd_diag.metrics.overlap import (
    overlap_ratio,
    overlap_token_advantage,
    shared_tokens,
    student_overlap_mass,
    teacher_overlap_mass,
    top1_agreement,
)
from opd_diag.metrics.ranks import rank_biased_overlap
from opd_diag.metrics.reliability import near_zero_advantage, signal_to_noise
from opd_diag.metrics.stopping import stop_logprobs
from opd_diag.metrics.tail_mass import Bounds
from opd_diag.metrics.teacher_bounds import known_at, teacher_mass_bounds
from opd_diag.metrics.temperature import TemperatureFit, Tempered, fitted_temperature, tempered_reverse_kl
from opd_diag.metrics.topk import topk
from opd_diag.metrics.trl import trl_clamped, trl_topk_forward_kl, trl_topk_jensen_shannon, trl_topk_reverse_kl
from opd_diag.metrics.truncated import (
    negative_topk_kl,
    raw_topk_reverse_kl,
    thunlp_topk_reverse_kl,
    topk_reverse_kl,
)
from opd_diag.metrics.union import bhattacharyya_coefficient, union_logprobs
from opd_diag.metrics.verl import verl_clamped, verl_negative, verl_topk_forward_kl

__all__ = [
    "Bounds",
    "Concentration",
    "GradientShares",
    "Kept",
    "TailBounds",
    "TemperatureFit",
    "Tempered",
    "bhattacharyya_coefficient",
    "centred_reverse_kl",
    "common_mass",
    "concentration",
    "cookbook_overlap_token_advantage",
    "covered",
    "entropy",
    "entropy_difference",
    "entropy_gap",
    "fitted_temperature",
    "forward_kl",
    "gradient_coherence",
    "gradient_products",
    "gradient_shares",
    "gradient_squared_norm",
    "jensen_shannon",
    "known_at",
    "near_zero_advantage",
    "negative_topk_kl",
    "nested_bounds",
    "overlap_mass_ratio",
    "overlap_ratio",
    "overlap_token_advantage",
    "probe_overlap_token_advantage",
    "rank_biased_overlap",
    "raw_topk_reverse_kl",
    "reverse_kl",
    "reverse_kl_gradient",
    "sampled_reverse_kl",
    "shared_tokens",
    "signal_to_noise",
    "stop_logprobs",
    "student_overlap_mass",
    "tail_bounds",
    "tail_sampled_reverse_kl",
    "teachable_mass",
    "teacher_mass_bounds",
    "teacher_overlap_mass",
    "tempered_reverse_kl",
    "thunlp_overlap_token_advantage",
    "thunlp_topk_reverse_kl",
    "top1_agreement",
    "topk",
    "topk_mass",
    "topk_reverse_kl",
    "trl_clamped",
    "trl_topk_forward_kl",
    "trl_topk_jensen_shannon",
    "trl_topk_reverse_kl",
    "union_logprobs",
    "verl_clamped",
    "verl_negative",
    "verl_overlap_token_advantage",
    "verl_topk_forward_kl",
]
