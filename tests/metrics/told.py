"""Teachers that told their probabilities at some ids, others that would have told the same, and naive extremes."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import entr, rel_entr


class Told(NamedTuple):
    """One state: student p and teacher q as float64 arrays; at `known` q was told, elsewhere it is at most `cap`."""

    p: np.ndarray
    q: np.ndarray
    known: np.ndarray
    cap: float

    @property
    def unknown(self):
        return np.setdiff1d(np.arange(len(self.p)), self.known)

    @property
    def mass(self):
        return 1 - self.q[self.known].sum()

    @property
    def arguments(self):
        """As the functions take them."""
        return log(self.p), torch.tensor(self.known), log(self.q[self.known]), log(np.array(self.cap))

    def with_tail(self, tail):
        """The whole teacher with other probabilities at the unknown ids."""
        q = self.q.copy()
        q[self.unknown] = tail
        return q


def log(x):
    return torch.from_numpy(np.asarray(x, dtype=np.float64)).log()


def told(generator, vocabulary, k, *, spread=2.0, extra=0):
    """Let a random teacher tell its top-k, and some ids more."""
    p = generator.dirichlet(np.exp(spread * generator.standard_normal(vocabulary)))
    q = p * np.exp(generator.standard_normal(vocabulary))
    q = q / q.sum()
    order = np.argsort(-q)
    known = np.concatenate([order[:k], generator.permutation(order[k:])[:extra]])
    return Told(p, q, known, q[order[k - 1]])


NAMES = ["teacher_entropy", "forward_kl", "reverse_kl", "jensen_shannon", "common_mass"]


def measured(p, q):
    """All five quantities of a whole pair; q need not sum to 1."""
    mixture = (p + q) / 2
    return {
        "teacher_entropy": entr(q).sum(),
        "forward_kl": max(0.0, rel_entr(q, p).sum()),
        "reverse_kl": max(0.0, rel_entr(p, q).sum()),
        "jensen_shannon": (rel_entr(p, mixture) + rel_entr(q, mixture)).sum() / 2,
        "common_mass": np.minimum(p, q).sum(),
    }


def low_high(bounds, name):
    of = getattr(bounds, name)
    return of.low.tolist(), of.high.tolist()


def mildest(p, mass, cap):
    """q = min(cap, λ p) of a mass, λ by bisection."""
    if mass <= 0:
        return np.zeros_like(p)
    if cap * (p > 0).sum() <= mass:
        raise ValueError("no such λ")
    ratio = math.exp(brentq(lambda x: np.minimum(cap, math.exp(x) * p).sum() - mass, -50, 80, xtol=1e-14))
    return np.minimum(cap, ratio * p)


def extremes(n, mass, cap):
    """Every extreme point of {0 ≤ q ≤ cap, Σ q = mass}: all ids but one are at 0 or at the cap."""
    full = min(int(mass / cap + 1e-12), n)
    left = mass - full * cap
    if left < 1e-12:
        for at_cap in itertools.combinations(range(n), full):
            yield np.isin(np.arange(n), at_cap) * cap
        return
    for one in range(n):
        for at_cap in itertools.combinations([v for v in range(n) if v != one], full):
            q = np.isin(np.arange(n), at_cap) * cap
            q[one] = left
            yield q


def any_tail(generator, n, mass, cap):
    """A random point of the polytope: between a few of its extreme points."""
    points = []
    for _ in range(generator.integers(1, 4)):
        order = generator.permutation(n)
        full = min(int(mass / cap + 1e-12), n)
        q = np.zeros(n)
        q[order[:full]] = cap
        if full < n:
            q[order[full]] = max(0.0, mass - full * cap)
        points.append(q)
    points.append(np.full(n, mass / n))
    return generator.dirichlet(np.full(len(points), 0.5)) @ np.array(points)
