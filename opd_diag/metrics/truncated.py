"""The KL that is left of k tokens: as the paper has it, as it stands, and as the paper's own code trains it."""

from __future__ import annotations

from torch import Tensor


def topk_reverse_kl(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Reverse KL on the student's top-k, both distributions renormalised there: the paper's top-k loss.

    Formula: KL(p̄‖q̄) = Σ_{v ∈ S} p̄(v) (log p̄(v) - log q̄(v)), with p̄ and q̄ renormalised on S.

    Support: the student's top-k. Direction: student to teacher. Clamps: none.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) nats, at least 0; 0 when student equals teacher; infinite where the teacher excludes what the student may
        do; NaN where the teacher excludes all k.

    Notes
    -----
    Caution: exactly 0 at k = 1 whatever the models, and blind to mass moved between S and the rest; neither above nor
    below the exact KL by rule.

    References
    ----------
    arXiv 2604.13016, section 2 (top-k form). The authors' code trains another quantity:
    :func:`thunlp_topk_reverse_kl`.

    Examples
    --------
    >>> import torch
    >>> topk_reverse_kl(torch.tensor([0.4, 0.4]).log(), torch.tensor([0.2, 0.6]).log())
    tensor(0.1438)
    """
    student, teacher = student_topk_logprobs.log_softmax(-1), teacher_at_student_topk_logprobs.log_softmax(-1)
    return weighed_ratio(student, student, teacher).clamp(min=0)


def raw_topk_reverse_kl(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Head of the reverse KL: its terms on the student's top-k, nothing renormalised.

    Formula: Σ_{v ∈ S} p(v) (log p(v) - log q(v)).

    Support: the student's top-k, raw probabilities. Direction: student to teacher. Clamps: none.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; infinite where the teacher excludes what the student may
        do.

    Notes
    -----
    Caution: no divergence. It is negative where the teacher puts more on S than the student does: at p = (.6, .4) and
    q = (.9, .1) with k = 1 it is -.243, while the exact KL is +.311; a trainer that clamps at 0 learns nothing there.

    References
    ----------
    The sum that NeMo-RL and open changes to verl train on; see verl-project/verl #7806 and #7855 for its sign.

    Examples
    --------
    >>> import torch
    >>> raw_topk_reverse_kl(torch.tensor([0.6]).log(), torch.tensor([0.9]).log())
    tensor(-0.2433)
    """
    return weighed_ratio(student_topk_logprobs, student_topk_logprobs, teacher_at_student_topk_logprobs)


def negative_topk_kl(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Whether the raw top-k reverse KL is negative, which no divergence is.

    Formula: 1[Σ_{v ∈ S} p(v) (log p(v) - log q(v)) < 0].

    Support: the student's top-k, as in :func:`raw_topk_reverse_kl`.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) 0 or 1 in the dtype of the input; 0 when student equals teacher; always defined. Its mean is a rate.

    Notes
    -----
    It is the sign of :func:`thunlp_topk_reverse_kl` too, which is this sum over Σ_S p.

    Caution: where both models nearly agree the sign is rounding.

    References
    ----------
    verl-project/verl #7855.

    Examples
    --------
    >>> import torch
    >>> negative_topk_kl(torch.tensor([0.6]).log(), torch.tensor([0.9]).log())
    tensor(1.)
    """
    total = raw_topk_reverse_kl(student_topk_logprobs, teacher_at_student_topk_logprobs)
    return (total < 0).to(total.dtype)


def thunlp_topk_reverse_kl(student_topk_logprobs: Tensor, teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Top-k loss of the paper's own code: renormalised weights, raw log-ratio.

    Formula: Σ_{v ∈ S} p̄(v) (log p(v) - log q(v)), with p̄ renormalised on S; that is KL(p̄‖q̄) + log Σ_S p - log Σ_S q.

    Support: the student's top-k (strategy ``only_stu``). Weights: the student's (``student_p``), renormalised.
    Direction: student to teacher. Clamps: none between the models; the code's ±20 and its dual clip are on the ratio of
    new to old student, which is 1 at a first step.

    Parameters
    ----------
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; infinite where the teacher excludes what the student may
        do.

    Notes
    -----
    Caution: negative where the teacher has more mass on S by more than KL(p̄‖q̄); the weights carry no gradient, so a
    step follows Σ p̄ (log p - log q) ∇log p and not the gradient of this number.

    References
    ----------
    thunlp/OPD 0a443955, ``verl/verl/workers/actor/dp_actor.py`` (``compute_distillation_reward``) and
    ``verl/verl/trainer/ppo/core_algos.py``, with the defaults of ``on_policy_distillation.sh``.

    Examples
    --------
    >>> import torch
    >>> thunlp_topk_reverse_kl(torch.tensor([0.4, 0.4]).log(), torch.tensor([0.2, 0.6]).log())
    tensor(0.1438)
    """
    weights = student_topk_logprobs.log_softmax(-1)
    return weighed_ratio(weights, student_topk_logprobs, teacher_at_student_topk_logprobs)


def weighed_ratio(weights: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Give Σ exp(weights) (first - second) over the last axis; a token of weight 0 adds nothing.

    Examples
    --------
    >>> import torch
    >>> nothing = torch.tensor(-torch.inf)
    >>> weighed_ratio(nothing[None], nothing[None], torch.tensor([0.0]))
    tensor(0.)
    """
    factor = weights.exp()
    return (factor * (first - second).masked_fill(factor == 0, 0.0)).sum(-1)
