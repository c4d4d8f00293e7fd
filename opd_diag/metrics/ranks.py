"""How alike two rankings of tokens are, with more weight on the top."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.concentration import rank_in, up_to

PERSISTENCE = 0.9
"""The first ten ranks then have 86 % of the weight (Webber et al., section 4.4)."""


def rank_biased_overlap(
    student_topk_ids: Tensor, teacher_topk_ids: Tensor, *, persistence: float = PERSISTENCE
) -> Tensor:
    """Rank-biased overlap of the two top-k lists, extrapolated beyond their end.

    Formula: RBO_EXT = (X_K / K) r^K + ((1 - r) / r) Σ_{d=1}^{K} (X_d / d) r^d, with X_d the tokens that the first d of
    both lists share, r the persistence and K the depth, all ids given.

    Support: the ranks of all ids given; what lies beyond them is taken to agree as they do.

    Parameters
    ----------
    student_topk_ids, teacher_topk_ids
        (..., K) distinct ids, best first, any integer dtype.
    persistence
        r in (0, 1): the chance that a reader who looks at one rank looks at the next.

    Returns
    -------
    Tensor
        (...) float64 in [0, 1]; 1 when student equals teacher; 0 where no token is shared; always defined.

    Raises
    ------
    ValueError
        The shapes differ, or the persistence is not in (0, 1).

    Notes
    -----
    Caution: knows ranks and no probabilities, so it falls where two nearly equal probabilities change places; ties are
    broken by the lower id on both sides.

    References
    ----------
    Webber, Moffat and Zobel (2010), A similarity measure for indefinite rankings: the extrapolated form of two lists of
    equal length.

    Examples
    --------
    >>> rank_biased_overlap(torch.tensor([3, 1]), torch.tensor([1, 3]), persistence=0.5)
    tensor(0.5000, dtype=torch.float64)
    """
    if student_topk_ids.shape != teacher_topk_ids.shape:
        raise ValueError(
            f"Top-k ids must have one shape, found {tuple(student_topk_ids.shape)} and {tuple(teacher_topk_ids.shape)}."
        )
    if not 0 < persistence < 1:
        raise ValueError(f"The persistence must be in (0, 1), found {persistence}.")
    depth = student_topk_ids.shape[-1]
    places = torch.arange(depth, device=student_topk_ids.device)
    joined = torch.maximum(places, rank_in(teacher_topk_ids, student_topk_ids))
    shared = up_to(joined, torch.ones_like(joined, dtype=torch.float64))
    agreement = shared / (places + 1)
    weights = (1 - persistence) * persistence ** places.double()
    return ((agreement * weights).sum(-1) + agreement[..., -1] * persistence**depth).clamp(0.0, 1.0)
