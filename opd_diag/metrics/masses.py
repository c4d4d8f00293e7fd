"""How much probability small sets of tokens hold."""

from __future__ import annotations

from torch import Tensor

from opd_diag.metrics.overlap import require_shape, shared_tokens


def topk_mass(topk_logprobs: Tensor) -> Tensor:
    """Probability that a model puts on k tokens, as its own most probable ones.

    Formula: Σ_{v ∈ S} p(v), with S the k most probable tokens of p.

    Support: the tokens given; raw probabilities of the full vocabulary, not renormalised.

    Parameters
    ----------
    topk_logprobs
        (..., k) log-probabilities at distinct ids.

    Returns
    -------
    Tensor
        (...) a probability in [0, 1]; always defined.

    Notes
    -----
    Caution: says how sharp one model is, nothing about the other; it bounds that model's overlap mass from above.

    References
    ----------
    verl logs it as ``distillation/teacher_mass``, on the teacher's top-k (verl-project/verl 1dda039b9,
    ``verl/trainer/distillation/fsdp/losses.py``).

    Examples
    --------
    >>> import torch
    >>> topk_mass(torch.tensor([0.5, 0.25]).log())
    tensor(0.7500)
    """
    return topk_logprobs.exp().sum(-1).clamp(max=1.0)


def overlap_mass_ratio(topk_ids: Tensor, other_topk_ids: Tensor, topk_logprobs: Tensor) -> Tensor:
    """Share of a model's own top-k mass that lies on shared tokens.

    Formula: Σ_{v ∈ S ∩ T} p(v) / Σ_{v ∈ S} p(v); for the teacher, with T and q in the places of S and p.

    Support: the model's own top-k; its raw probabilities in both sums.

    Parameters
    ----------
    topk_ids, other_topk_ids
        (..., k) distinct ids of the model and of the other one, any integer dtype.
    topk_logprobs
        (..., k) the model's log-probabilities at `topk_ids`.

    Returns
    -------
    Tensor
        (...) a ratio in [0, 1]; 1 when student equals teacher; 0 where nothing is shared; always defined, as the most
        probable token has some probability.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: takes k and sharpness out of the overlap mass, but one shared top token can make it nearly 1 by itself.

    References
    ----------
    Eq. 9 and 10 of arXiv 2604.13016, divided by what bounds them.

    Examples
    --------
    >>> import torch
    >>> overlap_mass_ratio(torch.tensor([3, 1]), torch.tensor([3, 5]), torch.tensor([0.6, 0.2]).log())
    tensor(0.7500)
    """
    shared = shared_tokens(topk_ids, other_topk_ids)
    require_shape(shared, topk_logprobs)
    mass = topk_logprobs.exp()
    return (mass.masked_fill(~shared, 0.0).sum(-1) / mass.sum(-1)).clamp(max=1.0)


def teachable_mass(teacher_at_student_topk_logprobs: Tensor) -> Tensor:
    """Probability that the teacher puts on the student's top-k: what it wants that the student may well do.

    Formula: Σ_{v ∈ S} q(v), with S the k most probable tokens of the student.

    Support: the student's top-k; the teacher's exact probabilities there, in its top-k or not.

    Parameters
    ----------
    teacher_at_student_topk_logprobs
        (..., k) the teacher's log-probabilities at the student's top-k.

    Returns
    -------
    Tensor
        (...) a probability in [0, 1]; the student's top-k mass when student equals teacher; always defined.

    Notes
    -----
    Caution: high where there is nothing left to learn too, so read it beside the KL: teachable is a large divergence at
    a large mass.

    References
    ----------
    arXiv 2605.26844 (teachability, Cmass_true); TIP, arXiv 2604.14084, for the quadrants. Their later steps scale by
    quantiles of one batch and do not compare across checkpoints; this number does.

    Examples
    --------
    >>> import torch
    >>> teachable_mass(torch.tensor([0.25, 0.125]).log())
    tensor(0.3750)
    """
    return topk_mass(teacher_at_student_topk_logprobs)
