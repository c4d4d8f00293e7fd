"""Pairs of distributions to hold the catalogue's laws against, and what can be changed about one."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from .conftest import scores_from

N, V, K = 60, 400, 16
"""States, vocabulary, tokens compared."""

SHARPENED = 12.0
"""How many times sharper a state is made, so that its top-k hold all but 1e-7 of the probability."""


def distributions(seed=0, scale=2.5, distance=1.5):
    """Two models that resemble each other, as (N, V) log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    first = scale * torch.randn(N, V, generator=generator, dtype=torch.float64)
    second = first + distance * torch.randn(N, V, generator=generator, dtype=torch.float64)
    return first.log_softmax(-1).float(), second.log_softmax(-1).float()


class Drawn(NamedTuple):
    """A pair of models that hypothesis drew: ordinary states and those where one or both are sharp."""

    student: torch.Tensor
    teacher: torch.Tensor
    sampled: torch.Tensor
    """The student's second best at every state."""

    @property
    def scores(self):
        return scored(self.student, self.teacher, self.sampled)


@lru_cache(maxsize=64)
def drawn_pair(seed, scale, distance):
    """Draw the pair; a quarter of the states each: both ordinary, both sharp, the student sharp, the teacher sharp."""
    generator = torch.Generator().manual_seed(seed)
    first = scale * torch.randn(N, V // 4, generator=generator, dtype=torch.float64)
    second = first + distance * torch.randn(N, V // 4, generator=generator, dtype=torch.float64)
    sharp = torch.arange(N).remainder(4)
    first[(sharp == 1) | (sharp == 2)] *= SHARPENED
    second[(sharp == 1) | (sharp == 3)] *= SHARPENED
    student, teacher = first.log_softmax(-1).float(), second.log_softmax(-1).float()
    return Drawn(student, teacher, top_first(student)[:, 1])


PAIRS = st.builds(
    drawn_pair,
    seed=st.integers(0, 10_000),
    scale=st.floats(1.2, 2.5).map(lambda x: round(x, 2)),
    distance=st.floats(0.5, 2.0).map(lambda x: round(x, 2)),
)
"""Pairs to hold a law against."""


def scored(student, teacher, sampled):
    """Scores without stop tokens."""
    return scores_from(student, teacher, sampled)


def extremes():
    """Pairs at the edges of what models give, by name."""
    student, teacher = distributions(scale=8.0, distance=8.0)
    certain = torch.full((N, V), -math.inf)
    certain[:, 7] = 0.0
    uniform = torch.full((N, V), -math.log(V))
    holes = student.masked_fill(torch.rand(N, V, generator=torch.Generator().manual_seed(0)) < 0.3, -math.inf)
    holes[:, 0] = 0.0
    reversed_ids = torch.arange(V - 1, -1, -1)
    return {
        "far apart": (student, teacher),
        "certain student": (certain, teacher),
        "certain teacher": (student, certain),
        "uniform": (uniform, uniform),
        "uniform teacher": (student, uniform),
        "disjoint": (distributions(scale=8.0)[0].sort(dim=-1).values, student.sort(dim=-1).values[:, reversed_ids]),
        "impossible tokens": (holes.log_softmax(-1), teacher),
        "all but equal": (student, (student + 1e-6 * teacher).log_softmax(-1)),
    }


def top_first(logprobs):
    """Ids best first, all of them."""
    return logprobs.argsort(dim=-1, descending=True)


# One perturbation for each thing a metric may depend on. Each leaves the rest alone as far as it can, so that
# `depends_on` says which metrics move and which do not.


def other_topk_ids(logprobs):
    """Exchange the three best tokens with three of the tail: the same probabilities at other ids."""
    order = top_first(logprobs)
    inside, outside = order[:, :3], order[:, -3:]
    changed = logprobs.scatter(-1, inside, logprobs.gather(-1, outside))
    return changed.scatter(-1, outside, logprobs.gather(-1, inside))


def other_topk_probabilities(logprobs):
    """Spread the mass of the K best tokens among them as at twice the temperature; ids, order and tail stay."""
    ids = top_first(logprobs)[:, :K]
    inside = logprobs.gather(-1, ids).double()
    flatter = (inside / 2).log_softmax(-1) + inside.logsumexp(-1, keepdim=True)
    return logprobs.scatter(-1, ids, flatter.float())


def other_sharpness(logprobs):
    """Half of the temperature: ids and order stay, every probability changes."""
    return (2 * logprobs.double()).log_softmax(-1).float()


def other_tail(logprobs):
    """Give the tokens outside the 32 best each other's probabilities; the best keep ids and probabilities."""
    ids = top_first(logprobs)[:, 32:]
    return logprobs.scatter(-1, ids, logprobs.gather(-1, ids.flip(-1)))


def flat_tail(logprobs):
    """Spread the probability outside the 32 best tokens evenly; the best keep ids and probabilities."""
    ids = top_first(logprobs)[:, 32:]
    tail = logprobs.gather(-1, ids).exp()
    return logprobs.scatter(-1, ids, tail.mean(-1, keepdim=True).log().expand_as(tail))


PERTURBATIONS = {
    "topk ids": (other_topk_ids,),
    "topk probabilities": (other_topk_probabilities, other_sharpness),
    "crossed probabilities": (other_tail, flat_tail),
    "whole distributions": (other_tail, flat_tail),
}
"""What changes each thing a metric may depend on; sampled tokens are changed in the scores."""
