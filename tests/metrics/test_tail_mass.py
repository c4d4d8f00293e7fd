"""What known ids leave to the others, also where they contradict the cap or sum to more than 1."""

from __future__ import annotations

import math

import pytest
import torch

from opd_diag import metrics
from opd_diag.metrics.tail_mass import tail_mass
from opd_diag.metrics.teacher_bounds import bounds_of_entropy

from .told import log


def test_a_cap_that_contradicts_what_is_known_gives_way():
    # r = .5 on two ids of at most .1 each: they must have .25 each.
    tail = tail_mass(torch.tensor([0, 1]), log([0.25, 0.25]), log(0.1), 4, 0.0)
    assert [part.item() for part in tail] == pytest.approx([0.5, 0.5, 0.25, 2], abs=1e-12)
    found = bounds_of_entropy(log([0.25, 0.25]), tail)
    assert (found.low.item(), found.high.item()) == pytest.approx((math.log(4), math.log(4)), abs=1e-9)
    mass = metrics.teacher_mass_bounds(torch.tensor([0, 1]), log([0.25, 0.25]), log(0.1), torch.tensor([3]), 4, slack=0)
    assert (mass.low.item(), mass.high.item()) == pytest.approx((0.25, 0.25), abs=1e-12)
    # More than 1 is known: nothing is left.
    tail = tail_mass(torch.tensor([0, 1]), log([0.75, 0.5]), log(0.1), 4, 1e-5)
    assert [part.item() for part in tail[:2]] == [0, 0]


@pytest.mark.parametrize("n", range(1, 40))
def test_a_cap_that_gave_way_is_met_by_all_unknown_ids(n):
    # All of r at the cap, to the last digit: nothing is left over that would have to go where the student has nothing.
    rest = torch.linspace(0.01, 0.9, 200, dtype=torch.float64)
    p = torch.cat([torch.tensor([0.5]), torch.full((n,), 0.5 / n)]).double().log().expand(200, -1)
    known = torch.zeros(200, 1, dtype=torch.int64), (1 - rest).log().unsqueeze(-1)
    found = metrics.tail_bounds(p, *known, rest.log() - 5, slack=0.0)
    teacher = torch.cat([1 - rest[:, None], (rest / n)[:, None].expand(-1, n)], dim=-1).log()
    for name in ("forward_kl", "reverse_kl", "jensen_shannon"):
        value = getattr(metrics, name)(p.contiguous(), teacher)
        for end in (getattr(found, name).low, getattr(found, name).high):
            assert end.tolist() == pytest.approx(value.tolist(), abs=1e-10), name


def test_slack_moves_both_ends_of_the_mass():
    known = torch.tensor([0]), log([0.75]), log(0.25)
    for slack, expected in [(0.0, (0.25, 0.25)), (0.1, (0.15, 0.35)), (0.6, (0.0, 0.75))]:
        tail = tail_mass(*known, 4, slack)
        assert (tail.low.item(), tail.high.item()) == pytest.approx(expected, abs=1e-12)
    assert tail_mass(*known, 1, 0.1)[:2] == (0.0, 0.0)
