"""Entropies and what separates them: Eq. 8 of arXiv 2604.13016."""

from __future__ import annotations

from torch import Tensor


def entropy(logprobs: Tensor) -> Tensor:
    """Entropy of a distribution over the whole vocabulary.

    Formula: H = -Σ_v p(v) log p(v), with 0 log 0 = 0.

    Parameters
    ----------
    logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (...) nats, in [0, log V].

    References
    ----------
    Shannon (1948).

    Examples
    --------
    >>> import torch
    >>> entropy(torch.tensor([0.5, 0.5, 0.0]).log())
    tensor(0.6931)
    """
    p = logprobs.exp()
    # abs, not neg: a certain state has entropy 0, not -0.
    return p.mul_(logprobs.masked_fill(p == 0, 0.0)).sum(-1).clamp_(max=0).abs_()


def entropy_gap(student_entropy: Tensor, teacher_entropy: Tensor) -> Tensor:
    """Distance of the two entropies, state by state.

    Formula: |H(q) - H(p)|; the absolute value is taken at each state, *before* averaging.

    Parameters
    ----------
    student_entropy, teacher_entropy
        (...) nats.

    Returns
    -------
    Tensor
        (...) nats, at least 0; 0 when student equals teacher.

    Notes
    -----
    Caution: not |mean H(q) - mean H(p)|, which can be a hundred times smaller on the same data; and two models of
    equal entropy may prefer different tokens.

    References
    ----------
    arXiv 2604.13016, Eq. 8.

    Examples
    --------
    >>> import torch
    >>> entropy_gap(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])).mean()
    tensor(1.)
    """
    return (teacher_entropy - student_entropy).abs()


def entropy_difference(student_entropy: Tensor, teacher_entropy: Tensor) -> Tensor:
    """Signed difference of the two entropies, student minus teacher.

    Formula: H(p) - H(q).

    Parameters
    ----------
    student_entropy, teacher_entropy
        (...) nats.

    Returns
    -------
    Tensor
        (...) nats, any sign; 0 when student equals teacher; above 0 where the student is the flatter one.

    Notes
    -----
    Caution: states of opposite sign cancel in its mean; the entropy gap is what does not cancel.

    Examples
    --------
    >>> import torch
    >>> entropy_difference(torch.tensor(1.0), torch.tensor(1.5))
    tensor(-0.5000)
    """
    return student_entropy - teacher_entropy
