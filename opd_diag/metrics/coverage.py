"""Which states of a reference set lie near a state of another set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_STATES = 1024
"""Reference states whose distances to all others are held at once."""


def covered(
    reference: Tensor,
    reference_groups: Sequence[int] | Tensor,
    other: Tensor,
    other_groups: Sequence[int] | Tensor,
    *,
    neighbours: int = 5,
) -> Tensor:
    """Whether each reference state has a state of the other set in its neighbourhood.

    Formula: r_i = distance from state i to its `neighbours`-th nearest reference state of another group; state i is
    covered when some state of the other set, of another group than i's, lies within r_i. The share of covered states
    is the *coverage* of Naeem et al., with states of the same group left out on both sides: responses to one prompt
    share their beginning, and would be near each other whatever was learned.

    Parameters
    ----------
    reference
        (N, d) vectors, as the teacher's final hidden states at its own states.
    reference_groups
        (N,) group (prompt) of each.
    other
        (M, d) vectors, as the teacher's final hidden states at the student's states.
    other_groups
        (M,) group of each; equal labels mean the same prompt.
    neighbours
        Which nearest neighbour sets the radius, at least 1.

    Returns
    -------
    Tensor
        (N,) float32: 1 covered, 0 not, NaN where fewer than `neighbours` reference states of other groups, or no other
        state of another group, are there; also where a vector of the reference is not finite.

    Raises
    ------
    ValueError
        The shapes do not fit, or `neighbours` is below 1.

    Notes
    -----
    What to expect when both sets come from one distribution: with independent states, n reference states and m others
    of other groups, all n + m are in a random order by distance, and state i is uncovered exactly when the k nearest
    are all reference states. So the mean is 1 - Π_{j<k} (n - j)/(n + m - j), for m = n and n large 1 - 2^-k (.969 for
    5). Pass equal numbers of states: with m = n/2 others it is 1 - (2/3)^k (.868).

    Caution: states of one response come in clumps, and then fewer independent neighbours are near than `neighbours`
    says: equal distributions give less than .969, down to 1 - 2^-1 where every group is one clump. And sets
    that answer the same prompts are not independent: where both write the same, more than .969. Compare with a
    checkpoint of the same run, not with 1. Distances are Euclidean, so directions of large variance decide.

    References
    ----------
    Naeem et al. (2020), Reliable fidelity and diversity metrics for generative models, arXiv 2002.09797, section
    3.2; the expectation is theirs, with the states of the same group left out on both sides.

    Examples
    --------
    >>> line = torch.tensor([[0.0], [1.0], [10.0]])
    >>> covered(line, [0, 1, 2], torch.tensor([[0.5], [0.6]]), [0, 1], neighbours=1)
    tensor([1., 1., 0.])
    """
    groups, others = torch.as_tensor(reference_groups), torch.as_tensor(other_groups)
    if reference.ndim != 2 or other.ndim != 2 or reference.shape[1] != other.shape[1]:
        raise ValueError(f"Expected shapes (N, d) and (M, d), found {(*reference.shape,)} and {(*other.shape,)}.")
    if groups.shape != reference.shape[:1] or others.shape != other.shape[:1] or neighbours < 1:
        raise ValueError("Every vector needs one group, and neighbours must be at least 1.")
    blocks = range(0, len(reference), BLOCK_STATES)
    parts = [
        _covered(
            reference[i : i + BLOCK_STATES],
            groups[i : i + BLOCK_STATES],
            (reference, groups),
            (other, others),
            neighbours,
        )
        for i in blocks
    ]
    return torch.cat(parts) if parts else torch.empty(0)


def _covered(
    states: Tensor, own: Tensor, reference: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], neighbours: int
) -> Tensor:
    to_reference, to_other = _distances(states, own, *reference), _distances(states, own, *other)
    if to_reference.shape[1] < neighbours or not to_other.shape[1]:
        return torch.full((len(states),), torch.nan)
    radius = to_reference.kthvalue(neighbours, dim=1).values
    nearest = to_other.amin(1)
    return torch.where(radius.isinf() | nearest.isinf(), torch.nan, (nearest <= radius).float())


def _distances(states: Tensor, own: Tensor, vectors: Tensor, groups: Tensor) -> Tensor:
    """Give (n, N) Euclidean distances; infinity within a group."""
    distances = torch.cdist(states.double(), vectors.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.nan_to_num_(nan=torch.inf)  # a vector that is not finite is near to none
    return distances.masked_fill_(own[:, None] == groups[None, :], torch.inf)
