"""The order that bounds rest on: two parts as one, ids at the cap, and the laws against the whole quantities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from opd_diag import metrics
from opd_diag.metrics.unknown import (
    FORWARD_KL,
    JENSEN_SHANNON,
    NEGATIVE_COMMON_MASS,
    REVERSE_KL,
    Unknown,
    ascending,
    without,
)

from .told import log, mildest

LAWS = [REVERSE_KL, FORWARD_KL, JENSEN_SHANNON, NEGATIVE_COMMON_MASS]
WHOLE = [metrics.reverse_kl, metrics.forward_kl, metrics.jensen_shannon, lambda *pair: -metrics.common_mass(*pair)]


@pytest.mark.parametrize(("law", "whole"), [*zip(LAWS, WHOLE, strict=True)], ids=["reverse", "forward", "js", "common"])
def test_a_law_is_what_an_id_adds_to_the_whole_quantity(law, whole, random_pair):
    pair = random_pair(50, 20, holes=0.2)
    assert law.of(*pair).sum(-1).tolist() == pytest.approx(whole(*pair).tolist(), abs=1e-12)
    nothing, something = torch.tensor([-math.inf, -1.0]).double().unbind()
    assert law.of(nothing, nothing).item() == 0
    assert not law.of(nothing, something).isnan()
    assert not law.of(something, nothing).isnan()


@pytest.mark.parametrize("law", LAWS, ids=["reverse", "forward", "js", "common"])
def test_the_ratios_of_a_law_are_where_it_turns(law):
    def of(ratio):  # at p = .01
        return law.of(log(0.01), log(0.01 * ratio)).item()

    if math.isinf(law.least_ratio):
        assert of(0.1) > of(0.5) > of(0.999) >= of(50.0)
    else:
        assert of(law.least_ratio) < min(of(law.least_ratio * 1.01), of(law.least_ratio * 0.99))
    if math.isinf(law.even_ratio):
        assert of(99.0) <= of(1e-9)
    else:
        assert of(law.even_ratio) == pytest.approx(of(0.0), abs=1e-12)
        assert of(law.even_ratio * 1.01) > of(0.0) > of(law.even_ratio * 0.99)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_parts_are_one_order(dtype):
    generator = torch.Generator().manual_seed(0)
    # Ties, impossible ids, and parts of another size in each state.
    many = torch.randint(-6, 0, (5, 30), generator=generator).to(dtype)
    few = torch.randint(-6, 0, (5, 7), generator=generator).to(dtype)
    many[1, :4], few[1, :2], many[2, 10:], few[2, 3:], few[3], many[4] = -math.inf, -math.inf, *(math.inf,) * 4
    unknown = Unknown(ascending(many), ascending(few))
    for state in range(5):
        together = torch.cat([many[state], few[state]])
        expected = together[together < math.inf].sort().values.double()
        n = len(expected)
        assert unknown.n[state].item() == n
        places = torch.arange(max(n, 1)).expand(5, -1).clamp(max=unknown.n - 1).clamp(min=0)
        assert torch.equal(unknown.logprobs(places)[state, :n], expected)
        counts = torch.arange(n + 1).expand(5, -1).minimum(unknown.n)
        sums = torch.cat([torch.zeros(1), expected.exp().cumsum(-1)])
        assert unknown.sums(counts)[state].tolist() == pytest.approx(sums.tolist(), abs=1e-12)
        for value in (-math.inf, -6.5, -3.0, -2.9, 0.0):
            above = unknown.above(torch.full((5, 1), value, dtype=torch.float64))
            assert above[state].item() == (expected > value).sum()


def test_known_ids_are_left_out():
    logprobs = torch.arange(6.0).neg().expand(2, 6)
    left = without(logprobs, torch.tensor([[5, 0], [-1, 2]]))
    assert [ascending(left).n.flatten().tolist(), left.isinf().sum(-1).tolist()] == [[4, 5], [3, 2]]
    assert left[1].tolist() == [0, -1, math.inf, -3, -4, -5, math.inf]
    assert logprobs[0, 0] == 0  # nothing is written into what came in


def test_ids_at_the_cap_are_those_of_the_bisected_ratio():
    generator = np.random.default_rng(0)
    counts = []
    for _ in range(60):
        p = generator.dirichlet(np.full(40, 0.3)) + 1e-12
        cap = float(generator.uniform(0.03, 0.2))
        mass = float(generator.uniform(0.0, min(1, 40 * cap) * 0.95))
        unknown = Unknown(ascending(log(p[:33])), ascending(log(p[33:])))
        found = unknown.at_cap(torch.tensor([mass]).double(), torch.tensor([cap]).double()).item()
        assert found == (mildest(p, mass, cap) >= cap * (1 - 1e-9)).sum()
        counts.append(found)
    assert min(counts) == 0
    assert max(counts) > 5


def test_small_probabilities_keep_their_digits():
    # One id of .5 and 100,000 of 1e-20: half of the mass .5 has to go to the small ones, by a cap of 1e-5.
    p = np.full(100_001, 1e-20)
    p[7] = 0.5
    unknown = Unknown(ascending(log(p)), ascending(torch.tensor([math.inf]).double()))
    assert unknown.sums(torch.tensor([100_000])).item() == pytest.approx(1e-15, rel=1e-9)
    at_cap = unknown.at_cap(torch.tensor([0.5]).double(), torch.tensor([1e-5]).double())
    ratio = brentq(lambda x: 1e-5 + 1e5 * min(1e-5, x * 1e-20) - 0.5, 1e10, 1e16)
    assert ratio * 1e-20 < 1e-5
    assert at_cap.item() == 1
