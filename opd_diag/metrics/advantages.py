"""Other readings of "overlap-token advantage", under the names of those who compute them.

The paper's is :func:`~opd_diag.metrics.overlap_token_advantage`. All take I = S ∩ T, the shared top-k tokens, and are
NaN where nothing is shared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.overlap import require_shape, shared_tokens
from opd_diag.metrics.verl import VERL_LOGPROB_MIN

PROBE_MIN = 1e-12
"""Least renormalised probability that the probe takes the logarithm of."""


def thunlp_overlap_token_advantage(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
) -> Tensor:
    """Overlap-token advantage as the paper's own code logs it (``val-topk/adv_intersection``).

    Formula: (1 / |I|) Σ_{v ∈ I} p̄(v) (log q(v) - log p(v)), with p̄ renormalised on the student's whole top-k and the
    log-ratio raw.

    Support: I. Weights: the student's, renormalised on S. Clamps: none. Averaging: the code takes one mean over all
    pairs of a state and a shared token, so a mean over states weighs each by |I|.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; NaN where nothing is shared.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: above 0 where the teacher puts more on I than the student, so 0 is no best value.

    References
    ----------
    thunlp/OPD 0a443955, ``verl/verl/trainer/ppo/ray_trainer.py`` (top-k metrics, strategy ``only_stu``) and
    ``verl/verl/workers/actor/dp_actor.py``.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([3, 5])
    >>> thunlp_overlap_token_advantage(*ids, torch.tensor([0.6, 0.2]).log(), torch.tensor([0.3, 0.1]).log())
    tensor(-0.5199)
    """
    shared = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(shared, student_topk_logprobs, teacher_at_student_topk_logprobs)
    weights = student_topk_logprobs.log_softmax(-1).exp()
    return _mean_of_shared(weights * _ratio(teacher_at_student_topk_logprobs, student_topk_logprobs, weights), shared)


def verl_overlap_token_advantage(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
) -> Tensor:
    """Overlap-token advantage as verl logs it (``distillation/overlap_token_advantage``).

    Formula: -(1 / |I|) Σ_{v ∈ I} q'(v) (log q'(v) - log p'(v)), with log p' = max(log p, -10), q' alike.

    Support: I. Weights: the teacher's, raw after the clamp. Clamps: log-probabilities at -10. Averaging: over states
    with a shared token; verl takes means of means of micro-batches, and 0 where no state of one has any.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; NaN where nothing is shared.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: weighed by the teacher, so it answers another question than the paper's, and rises above 0 where the
    student has more on I.

    References
    ----------
    verl-project/verl 1dda039b9, ``verl/trainer/distillation/fsdp/losses.py`` and
    ``verl/trainer/distillation/losses.py``.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([3, 5])
    >>> verl_overlap_token_advantage(*ids, torch.tensor([0.6, 0.2]).log(), torch.tensor([0.3, 0.1]).log())
    tensor(0.2079)
    """
    shared = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(shared, student_topk_logprobs, teacher_at_student_topk_logprobs)
    student = student_topk_logprobs.clamp(min=VERL_LOGPROB_MIN)
    teacher = teacher_at_student_topk_logprobs.clamp(min=VERL_LOGPROB_MIN)
    return _mean_of_shared(teacher.exp() * (student - teacher), shared)


def probe_overlap_token_advantage(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
) -> Tensor:
    """Overlap-token advantage of a training-time probe for verl: the paper's, not divided by |I|.

    Formula: Σ_{v ∈ I} p̄(v) (log q̄(v) - log p̄(v)) = -KL(p̄‖q̄), with p̄ and q̄ renormalised on I.

    Support: I. Weights: p̄. Clamps: renormalised probabilities at 1e-12 in the logarithm. Averaging: over states with a
    shared token.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) nats, at most 0 but for rounding; 0 when student equals teacher; NaN where nothing is shared, and where a
        model gives what is shared no probability.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: |I| times the paper's value, so up to k times as large; a state with one shared token gives 0.

    References
    ----------
    ``verl/verl/trainer/ppo/rethinking_opd_probe.py`` of a public fork of thunlp/OPD (``_aggregate_one_window``).

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([1, 3])
    >>> probe_overlap_token_advantage(*ids, torch.tensor([0.8, 0.2]).log(), torch.tensor([0.2, 0.8]).log())
    tensor(-0.8318)
    """
    shared = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(shared, student_topk_logprobs, teacher_at_student_topk_logprobs)
    p, q = _renormalised(student_topk_logprobs, shared), _renormalised(teacher_at_student_topk_logprobs, shared)
    terms = p * (q.clamp(min=PROBE_MIN).log() - p.clamp(min=PROBE_MIN).log())
    return terms.sum(-1).where(shared.any(-1), torch.nan)


def cookbook_overlap_token_advantage(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
) -> Tensor:
    """Overlap-token advantage of an early cookbook helper: 0 by algebra. Kept so that it can be shown, not used.

    Formula: (1 / |I|) Σ_{v ∈ I} (q̄(v) - p̄(v)), with p̄ and q̄ renormalised on I: (1 - 1) / |I|.

    Support: I. Weights: none.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at `student_topk_ids`.

    Returns
    -------
    Tensor
        (...) 0 but for rounding whatever the models are; NaN where nothing is shared.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: always reads "perfect agreement", so it is in no table.

    References
    ----------
    fw-ai/cookbook, ``training/utils/opd_metrics.py``, first version; fw-ai/cookbook #390 says so.

    Examples
    --------
    >>> ids = torch.tensor([3, 1]), torch.tensor([1, 3])
    >>> value = cookbook_overlap_token_advantage(*ids, torch.tensor([0.8, 0.2]).log(), torch.tensor([0.2, 0.8]).log())
    >>> bool(value.abs() < 1e-6)
    True
    """
    shared = shared_tokens(student_topk_ids, teacher_topk_ids)
    require_shape(shared, student_topk_logprobs, teacher_at_student_topk_logprobs)
    p, q = _renormalised(student_topk_logprobs, shared), _renormalised(teacher_at_student_topk_logprobs, shared)
    return _mean_of_shared(q - p, shared)


def _ratio(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    return (first - second).masked_fill(weights == 0, 0.0)


def _mean_of_shared(terms: Tensor, shared: Tensor) -> Tensor:
    count = shared.sum(-1)
    return (terms.masked_fill(~shared, 0.0).sum(-1) / count).where(count > 0, torch.nan)


def _renormalised(logprobs: Tensor, shared: Tensor) -> Tensor:
    """Give probabilities renormalised on the shared tokens, 0 elsewhere."""
    return logprobs.masked_fill(~shared, -torch.inf).log_softmax(-1).exp().masked_fill(~shared, 0.0)
