"""Whether the gradients of different prompts push the output matrix the same way, or cancel."""

from __future__ import annotations

import torch
from torch import Tensor


def reverse_kl_gradient(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Gradient of the reverse KL with respect to the student's logits.

    Formula: g(v) = p(v) (log p(v) - log q(v) - KL(p‖q)).

    Parameters
    ----------
    student_logprobs, teacher_logprobs
        (..., V) normalised log-probabilities.

    Returns
    -------
    Tensor
        (..., V) float64; sums to 0, and is 0 where the student excludes a token. Not finite where the KL is not.

    Examples
    --------
    >>> reverse_kl_gradient(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor([ 0.2747, -0.2747], dtype=torch.float64)
    """
    s, t = student_logprobs.double(), teacher_logprobs.double()
    p = s.exp()
    ratio = torch.where(p > 0, s - t, 0.0)
    return p * (ratio - (p * ratio).sum(-1, keepdim=True))


def gradient_products(gradients: Tensor, hidden: Tensor) -> Tensor:
    """Inner products of the gradients of states with respect to the output matrix.

    Formula: G_t = g_t h_tᵀ, ⟨G_t, G_u⟩ = (g_t · g_u)(h_t · h_u): no matrix of V × d is made.

    Parameters
    ----------
    gradients
        (N, V) with respect to what the matrix gives, from :func:`reverse_kl_gradient`.
    hidden
        (N, d) what the matrix is applied to.

    Returns
    -------
    Tensor
        (N, N) float64; the diagonal holds ‖G_t‖².

    Examples
    --------
    >>> gradient_products(torch.tensor([[1.0, -1.0], [2.0, -2.0]]), torch.tensor([[1.0], [3.0]]))
    tensor([[ 2., 12.],
            [12., 72.]], dtype=torch.float64)
    """
    g, h = gradients.double(), hidden.double()
    return (g @ g.T) * (h @ h.T)


def gradient_coherence(
    products: Tensor, squared_norms: Tensor, counts: Tensor, least: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How far gradients of different prompts point the same way; and the same without each prompt.

    Formula: mean of ⟨G_t, G_u⟩ over pairs of states of different prompts, divided by the mean of ‖G_t‖² over states.
    With one state a prompt, E‖mean of N gradients‖² = E‖G‖² (1 + (N - 1) · coherence) / N: what is left of a batch of
    N prompts.

    Support, weights: the whole vocabulary; every pair and every state counts alike, so long gradients count more.

    Parameters
    ----------
    products
        (P, P) Σ ⟨G_t, G_u⟩ over the states of two prompts; the diagonal is not looked at.
    squared_norms
        (P,) Σ ‖G_t‖² over the states of a prompt.
    counts
        (P,) how many states that is.
    least
        (P,) Σ ‖G_t‖² that would be rounding; default: none.

    Returns
    -------
    tuple of Tensor
        The coherence, () float64, at most about 1: 1 where all gradients are equal, 0 on average where they have
        nothing in common, below 0 where prompts work against each other. And (P,), the same without each prompt, for a
        jackknife. NaN where there are fewer than two prompts with a state, and where the sum of ‖G_t‖² is 0 or below
        the sum of `least`, as when student equals teacher.

    Notes
    -----
    Caution: of the output matrix alone, where it serves as the head; a matrix that is also the embedding gets another
    gradient there. Equal gradients say that a batch adds up, not that it leads anywhere: a student that must only learn
    to stop has coherent gradients too.

    References
    ----------
    Section 6.2 of arXiv 2604.13016 supposes that a teacher can fail because its gradients spread over many directions,
    and does not test it; this is one way to.

    Examples
    --------
    >>> products = torch.tensor([[9.0, 2.0], [2.0, 9.0]])
    >>> gradient_coherence(products, torch.tensor([4.0, 4.0]), torch.tensor([1, 1]))[0]
    tensor(0.5000, dtype=torch.float64)
    """
    between = products.double() - torch.diag(products.diagonal().double())
    n, norms = counts.double(), squared_norms.double()
    floor = torch.zeros_like(norms) if least is None else least.double()
    everything = [between.sum(), norms.sum(), n.sum(), n.square().sum(), floor.sum()]
    each = [2 * between.sum(-1), norms, n, n.square(), floor]
    return _ratio(*everything), _ratio(*(whole - part for whole, part in zip(everything, each, strict=True)))


def _ratio(between: Tensor, norms: Tensor, n: Tensor, squares: Tensor, least: Tensor) -> Tensor:
    pairs = n * n - squares
    known = (pairs > 0) & (norms > 0) & (norms >= least)
    return torch.where(known, (between / pairs) / (norms / n), torch.nan)
