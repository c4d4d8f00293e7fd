"""Top-k loss of verl at one state, clamps included.

Written from the formula that the named files compute, at the version named. What the trainer does later (means over
tokens, clipping of policy ratios, policy gradients) is left out: these are the numbers of one state.
"""

from __future__ import annotations

import torch
from torch import Tensor

VERL_LOGPROB_MIN = -10.0
"""``log_prob_min_clamp``, the default of verl-project/verl 1dda039b9 (``verl/workers/config/distillation.py``)."""

VERL_LOSS_MAX = 10.0
"""``loss_max_clamp``, the default there."""


def verl_topk_forward_kl(student_at_teacher_topk_logprobs: Tensor, teacher_topk_logprobs: Tensor) -> Tensor:
    """Top-k loss of verl (``forward_kl_topk``), with its three clamps.

    Formula: min(max(Σ_{v ∈ T} q'(v) (log q'(v) - log p'(v)), 0), 10), with log p' = max(log p, -10), q' alike.

    Support: the teacher's top-k. Weights: the teacher's, raw after the clamp. Direction: teacher to student. Clamps:
    log-probabilities at -10, the sum at 0 from below and at 10 from above.

    Parameters
    ----------
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities at the teacher's top-k.

    Returns
    -------
    Tensor
        (...) nats in [0, 10]; 0 when student equals teacher; always defined.

    Notes
    -----
    Caution: 0 both where the models agree and where the student has more mass on T than the teacher; see
    :func:`verl_negative`.

    References
    ----------
    verl-project/verl 1dda039b9, ``verl/trainer/distillation/fsdp/losses.py`` and
    ``verl/trainer/distillation/losses.py``; the Megatron path there computes the same sum.

    Examples
    --------
    >>> verl_topk_forward_kl(torch.tensor([0.4, 0.4]).log(), torch.tensor([0.2, 0.6]).log())
    tensor(0.1046)
    >>> verl_topk_forward_kl(torch.tensor([0.9]).log(), torch.tensor([0.6]).log())
    tensor(0.)
    """
    return _verl_sum(student_at_teacher_topk_logprobs, teacher_topk_logprobs).clamp(min=0.0, max=VERL_LOSS_MAX)


def verl_negative(student_at_teacher_topk_logprobs: Tensor, teacher_topk_logprobs: Tensor) -> Tensor:
    """Whether verl's top-k loss is below 0 before it is set to 0.

    Formula: 1[Σ_{v ∈ T} q'(v) (log q'(v) - log p'(v)) < 0], p' and q' as in :func:`verl_topk_forward_kl`.

    Support: the teacher's top-k; weights, direction and clamp of log-probabilities as there.

    Parameters
    ----------
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities at the teacher's top-k.

    Returns
    -------
    Tensor
        (...) 0 or 1 in the dtype of the input; 0 when student equals teacher; always defined. Its mean is a rate.

    Notes
    -----
    Caution: such a state has no gradient in that trainer, but where both models nearly agree the sign is rounding.

    References
    ----------
    verl-project/verl 1dda039b9, ``verl/trainer/distillation/losses.py``; #7855 and #7856 report its minimum at 0 in 415
    of 467 steps.

    Examples
    --------
    >>> verl_negative(torch.tensor([0.9]).log(), torch.tensor([0.6]).log())
    tensor(1.)
    """
    total = _verl_sum(student_at_teacher_topk_logprobs, teacher_topk_logprobs)
    return (total < 0).to(total.dtype)


def verl_clamped(student_at_teacher_topk_logprobs: Tensor, teacher_topk_logprobs: Tensor) -> Tensor:
    """Whether any clamp of verl's top-k loss acts.

    Formula: 1[some log p or log q on T below -10, or the sum below 0 or above 10].

    Support: the teacher's top-k, as in :func:`verl_topk_forward_kl`.

    Parameters
    ----------
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities at the teacher's top-k.

    Returns
    -------
    Tensor
        (...) 0 or 1 in the dtype of the input; always defined. Its mean is a rate.

    Notes
    -----
    Caution: where the teacher is sure, its own 16th token lies below -10, so a high rate is common and mostly harmless;
    the harm is in :func:`verl_negative`.

    References
    ----------
    verl-project/verl 1dda039b9, as in :func:`verl_topk_forward_kl`.

    Examples
    --------
    >>> verl_clamped(torch.tensor([-1.0, -12.0]), torch.tensor([-1.0, -2.0]))
    tensor(1.)
    """
    total = _verl_sum(student_at_teacher_topk_logprobs, teacher_topk_logprobs)
    least = torch.minimum(student_at_teacher_topk_logprobs, teacher_topk_logprobs).amin(-1)
    return ((least < VERL_LOGPROB_MIN) | (total < 0) | (total > VERL_LOSS_MAX)).to(total.dtype)


def _verl_sum(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = student.clamp(min=VERL_LOGPROB_MIN), teacher.clamp(min=VERL_LOGPROB_MIN)
    return (teacher.exp() * (teacher - student)).sum(-1)
