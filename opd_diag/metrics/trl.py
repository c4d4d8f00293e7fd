"""Top-k losses of TRL at one state, clamps included.

Written from the formula that the named files compute, at the version named. What the trainer does later (means over
tokens, clipping of policy ratios, policy gradients) is left out: these are the numbers of one state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.divergence import jensen_shannon
from opd_diag.metrics.truncated import weighed_ratio

TRL_LOG_MASS_MAX = -1e-7
"""Largest log-mass of a top-k that TRL 1.16.0 takes the rest of (``_add_tail_bucket``)."""


def trl_topk_reverse_kl(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Top-k reverse KL of TRL: the rest of the vocabulary is one more token, the tail bucket.

    Formula: Σ_{v ∈ S} p(v) (log p(v) - log q(v)) + p_R (log p_R - log q_R), with p_R = 1 - Σ_S p and q_R = 1 - Σ_S q.

    Support: the student's top-k and its tail bucket (``beta`` 1, ``loss_add_tail``). Weights: the student's, raw.
    Direction: student to teacher. Clamps: no tail below 1e-7.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) nats, at least 0 and, but for the clamp, never above the exact reverse KL; 0 when student equals teacher;
        infinite where the teacher excludes what the student may do.

    Notes
    -----
    Caution: a lower bound, as what differs within the tail is not seen.

    References
    ----------
    TRL 1.16.0, ``trl/experimental/iw_opd/iw_opd_trainer.py`` (``generalized_jsd_loss``, for k > 1) and
    ``trl/experimental/server_distillation/server_distillation_trainer.py`` (``_add_tail_bucket``).
    ``DistillationTrainer`` and GKD use the whole vocabulary.

    Examples
    --------
    >>> trl_topk_reverse_kl(torch.tensor([0.6]).log(), torch.tensor([0.9]).log())
    tensor(0.3112)
    """
    student, teacher = _with_tail(student_topk_logprobs), _with_tail(teacher_at_student_topk_logprobs)
    return weighed_ratio(student, student, teacher).clamp(min=0)


def trl_topk_forward_kl(student_at_teacher_topk_logprobs: Tensor, teacher_topk_logprobs: Tensor) -> Tensor:
    """Top-k forward KL of TRL with a teacher on a server: the teacher's top-k and a tail bucket.

    Formula: Σ_{v ∈ T} q(v) (log q(v) - log p(v)) + q_R (log q_R - log p_R), with q_R = 1 - Σ_T q and p_R = 1 - Σ_T p.

    Support: the teacher's top-k and its tail bucket (``beta`` 0, ``loss_add_tail``). Weights: the teacher's, raw.
    Direction: teacher to student. Clamps: no tail below 1e-7.

    Parameters
    ----------
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities at the teacher's top-k.

    Returns
    -------
    Tensor
        (...) nats, at least 0 and, but for the clamp, never above the exact forward KL; 0 when student equals teacher;
        infinite where the student excludes what the teacher may do.

    Notes
    -----
    Caution: TRL's own default is k = 1, which sees one token and the rest.

    References
    ----------
    TRL 1.16.0, ``trl/experimental/server_distillation/server_distillation_trainer.py``
    (``_compute_server_forward_kl_loss``); ``iw_opd_trainer.py`` alike.

    Examples
    --------
    >>> trl_topk_forward_kl(torch.tensor([0.9]).log(), torch.tensor([0.6]).log())
    tensor(0.3112)
    """
    student, teacher = _with_tail(student_at_teacher_topk_logprobs), _with_tail(teacher_topk_logprobs)
    return weighed_ratio(teacher, teacher, student).clamp(min=0)


def trl_topk_jensen_shannon(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Top-k loss of TRL's self-distillation (SDFT): Jensen–Shannon, both renormalised on the student's top-k.

    Formula: ½ KL(p̄‖m) + ½ KL(q̄‖m), with m = ½ (p̄ + q̄) and p̄, q̄ renormalised on S.

    Support: the student's top-k, no tail bucket. Direction: symmetric (``distillation_alpha`` 0.5). Clamps: none; the
    importance weight that follows is not part of it.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) nats in [0, log 2]; 0 when student equals teacher; NaN where the teacher excludes all k.

    Notes
    -----
    Caution: 0 at k = 1 whatever the models; TRL's own default is k = 100.

    References
    ----------
    TRL 1.16.0, ``trl/experimental/sdft/loss_utils.py`` (``compute_topk_self_distillation_loss``), with the defaults of
    ``sdft_config.py``.

    Examples
    --------
    >>> trl_topk_jensen_shannon(torch.tensor([0.4, 0.4]).log(), torch.tensor([0.2, 0.6]).log())
    tensor(0.0338)
    """
    return jensen_shannon(student_topk_logprobs.log_softmax(-1), teacher_at_student_topk_logprobs.log_softmax(-1))


def trl_clamped(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Whether TRL's clamp of the tail bucket acts in its top-k reverse KL.

    Formula: 1[log Σ_S p > -1e-7 or log Σ_S q > -1e-7].

    Support: the student's top-k, as in :func:`trl_topk_reverse_kl`.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) 0 or 1 in the dtype of the input; always defined. Its mean is a rate.

    Notes
    -----
    Caution: the bound lies at the resolution of float32, so states near it fall on either side by rounding; their loss
    is hardly changed.

    References
    ----------
    TRL 1.16.0, ``_add_tail_bucket``, as in :func:`trl_topk_reverse_kl`.

    Examples
    --------
    >>> trl_clamped(torch.tensor([1.0]).log(), torch.tensor([0.5]).log())
    tensor(1.)
    """
    masses = torch.maximum(student_topk_logprobs.logsumexp(-1), teacher_at_student_topk_logprobs.logsumexp(-1))
    return (masses > TRL_LOG_MASS_MAX).to(masses.dtype)


def _with_tail(logprobs: Tensor) -> Tensor:
    """Append the log-probability of all other tokens."""
    mass = logprobs.logsumexp(-1, keepdim=True).clamp(max=TRL_LOG_MASS_MAX)
    return torch.cat([logprobs, (-torch.expm1(mass)).log()], dim=-1)
