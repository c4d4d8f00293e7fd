"""How much the training signal of one sampled token can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.overlap import require_shape
from opd_diag.metrics.union import union_logprobs

RESOLUTION = 1e-3
"""Nats. Where the candidates' log-ratios spread by less, the ratio is undefined: float32 keeps log-probabilities to
about 1e-6 to 1e-5, and below this more than a per cent of it would be rounding."""

NOISELESS = 1e-9
"""Share of noise in signal and noise together under which there is none but rounding."""

NEAR_ZERO = 1e-4
"""Nats. Advantage under which a token says next to nothing (OPSA, arXiv 2608.31046)."""


def signal_to_noise(
    student_topk_ids: Tensor,
    teacher_topk_ids: Tensor,
    student_topk_logprobs: Tensor,
    teacher_at_student_topk_logprobs: Tensor,
    student_at_teacher_topk_logprobs: Tensor,
    teacher_topk_logprobs: Tensor,
    sampled_ids: Tensor,
    student_sampled_logprobs: Tensor,
    teacher_sampled_logprobs: Tensor,
) -> Tensor:
    """Signal-to-noise ratio of the policy gradient of one sampled token, in closed form.

    Formula: Var_p̄[ρ] / (Σ_{v ∈ C} (1 - p̄(v)) (ρ(v) - b)² - Var_p̄[ρ]), with ρ = log p - log q, the best baseline
    b = Σ (1 - p̄) ρ / Σ (1 - p̄), the candidates C = S ∪ T ∪ {y}, y the sampled token, and p̄ the student's
    probabilities renormalised on C. Signal is the squared length of the expected gradient, noise the variance of the
    gradient of one token drawn from p̄, both in the Fisher metric.

    Support: C. p̄ is renormalised because only then is it the distribution of something drawn and the noise a variance,
    never negative; q need not be, a constant in ρ cancels. C is stated because over the whole vocabulary the weights
    1 - p̄ would let the tail decide.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., k) distinct ids, any integer dtype.
    student_topk_logprobs, teacher_at_student_topk_logprobs
        (..., k) log-probabilities of both at `student_topk_ids`.
    student_at_teacher_topk_logprobs, teacher_topk_logprobs
        (..., k) log-probabilities of both at `teacher_topk_ids`.
    sampled_ids
        (...) the sampled token; below 0 where there is none.
    student_sampled_logprobs, teacher_sampled_logprobs
        (...) log-probabilities of both at `sampled_ids`; not read where there is none.

    Returns
    -------
    Tensor
        (...) at least 0. NaN where there is no noise: with two candidates or fewer, where the baseline removes all of
        it; when student equals teacher, or nearly (`RESOLUTION`); and where either model excludes a candidate.

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Caution: about one state and one draw at the logits, so it says how reliable a push is, not how useful; and it
    falls as k grows, since every candidate adds noise.

    References
    ----------
    IER, arXiv 2609.24432; the minimum over b follows by setting its derivative to 0.

    Examples
    --------
    >>> ids, p, q = torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    >>> signal_to_noise(ids, ids, p, q, p, q, torch.tensor(0), p[0], q[0])
    tensor(0.9457)
    """
    student, teacher = union_logprobs(
        student_topk_ids,
        teacher_topk_ids,
        student_topk_logprobs,
        teacher_at_student_topk_logprobs,
        student_at_teacher_topk_logprobs,
        teacher_topk_logprobs,
    )
    require_shape(student_topk_ids[..., 0], sampled_ids, student_sampled_logprobs, teacher_sampled_logprobs)
    sampled = sampled_ids.unsqueeze(-1)
    known = (student_topk_ids == sampled).any(-1) | (teacher_topk_ids == sampled).any(-1) | (sampled_ids < 0)
    student = torch.cat([student, student_sampled_logprobs.masked_fill(known, -torch.inf).unsqueeze(-1)], dim=-1)
    teacher = torch.cat([teacher, teacher_sampled_logprobs.masked_fill(known, -torch.inf).unsqueeze(-1)], dim=-1)
    absent = (student == -torch.inf) & (teacher == -torch.inf)
    p = student.log_softmax(-1).exp()
    ratio = (student - teacher).masked_fill(absent, 0.0)
    rest = (1 - p).masked_fill(absent, 0.0)
    centred = ratio - (rest * ratio).sum(-1, keepdim=True) / rest.sum(-1, keepdim=True)
    both = (rest * centred.square()).sum(-1)
    signal = (p * (centred - (p * centred).sum(-1, keepdim=True)).square()).sum(-1)
    noise = both - signal
    clear = (both >= RESOLUTION**2 * rest.sum(-1)) & (noise > NOISELESS * both) & both.isfinite()
    return (signal / noise).where(clear, torch.nan)


def near_zero_advantage(
    student_sampled_logprobs: Tensor, teacher_sampled_logprobs: Tensor, *, threshold: float = NEAR_ZERO
) -> Tensor:
    """Whether the advantage of the sampled token is next to nothing.

    Formula: 1[|log q(y) - log p(y)| < threshold], y the sampled token.

    Support: the sampled token.

    Parameters
    ----------
    student_sampled_logprobs, teacher_sampled_logprobs
        (...) log-probabilities of the sampled token.
    threshold
        Nats, above 0.

    Returns
    -------
    Tensor
        (...) 0 or 1 in the dtype of the input; 1 when student equals teacher; NaN where nothing was sampled. Its mean
        is a rate.

    Raises
    ------
    ValueError
        The threshold is not above 0.

    Notes
    -----
    Caution: sampled tokens are mostly those of which both models are sure, so a high rate is ordinary; what counts is
    how much signal the others hold.

    References
    ----------
    OPSA, arXiv 2608.31046, states 51.7 % below 1e-4 in its runs.

    Examples
    --------
    >>> near_zero_advantage(torch.tensor([-0.5, -0.5]), torch.tensor([-0.50001, -0.6]))
    tensor([1., 0.])
    """
    if not threshold > 0:
        raise ValueError(f"The threshold must be above 0, found {threshold}.")
    size = (teacher_sampled_logprobs - student_sampled_logprobs).abs()
    return (size < threshold).to(size.dtype).where(~size.isnan(), torch.nan)
