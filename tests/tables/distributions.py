"""Pairs of distributions to hold the catalogue's laws against, what can be changed about one, and plain formulas."""

from __future__ import annotations

import math

import torch

N, V, K = 60, 400, 16
"""States, vocabulary, tokens compared."""


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


def distributions(seed=0, scale=2.5, distance=1.5):
    """Two models that resemble each other, as (N, V) log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    first = scale * torch.randn(N, V, generator=generator, dtype=torch.float64)
    second = first + distance * torch.randn(N, V, generator=generator, dtype=torch.float64)
    return first.log_softmax(-1).float(), second.log_softmax(-1).float()


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
    """Flatten the probabilities of the K best tokens towards their mean; ids, order and tail stay."""
    ids = top_first(logprobs)[:, :K]
    p = logprobs.gather(-1, ids).exp()
    return logprobs.scatter(-1, ids, (0.4 * p + 0.6 * p.mean(-1, keepdim=True)).log())


def other_tail(logprobs):
    """Spread the probability outside the 32 best tokens evenly; the best keep ids and probabilities."""
    ids = top_first(logprobs)[:, 32:]
    tail = logprobs.gather(-1, ids).exp()
    return logprobs.scatter(-1, ids, tail.mean(-1, keepdim=True).log().expand_as(tail))


PERTURBATIONS = {
    "topk ids": other_topk_ids,
    "topk probabilities": other_topk_probabilities,
    "whole distributions": other_tail,
}


def formulas(p, q, sampled):
    """Every metric at one state by its `formula`, from two whole distributions of plain floats."""
    ids = range(len(p))
    tops = [sorted(ids, key=lambda v: (-x[v], v))[:K] for x in (p, q)]
    shared = set(tops[0]) & set(tops[1])
    p_shared, q_shared = sum(p[v] for v in shared), sum(q[v] for v in shared)
    inside = [p[v] / p_shared * math.log((q[v] / q_shared) / (p[v] / p_shared)) for v in shared]
    entropies = [-sum(x[v] * math.log(x[v]) for v in ids) for x in (p, q)]
    kl = sum(p[v] * math.log(p[v] / q[v]) for v in ids)
    pushes = [(p[v] * (math.log(p[v] / q[v]) - kl)) ** 2 for v in ids]
    only = [set(top) - shared for top in tops]
    on = [sum(pushes[v] for v in of) / sum(pushes) for of in (shared, *only, set(ids) - shared - only[0] - only[1])]
    return {
        "overlap_ratio": len(shared) / K,
        "student_overlap_mass": p_shared,
        "teacher_overlap_mass": q_shared,
        "overlap_token_advantage": sum(inside) / len(shared) if shared else math.nan,
        "entropy_gap": abs(entropies[1] - entropies[0]),
        "entropy_difference": entropies[0] - entropies[1],
        "student_entropy": entropies[0],
        "teacher_entropy": entropies[1],
        "reverse_kl": kl,
        "forward_kl": sum(q[v] * math.log(q[v] / p[v]) for v in ids),
        "sampled_reverse_kl": math.log(p[sampled]) - math.log(q[sampled]),
        "top1_agreement": float(tops[0][0] == tops[1][0]),
        "shared_gradient_ratio": on[0],
        "student_only_gradient_ratio": on[1],
        "teacher_only_gradient_ratio": on[2],
        "other_gradient_ratio": on[3],
    }
