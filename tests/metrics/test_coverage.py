"""Coverage of one set of states by another: by hand, a naive version, and its expectation where nothing differs."""

from __future__ import annotations

import math

import pytest
import torch

from opd_diag import metrics
from opd_diag.metrics import coverage

NAN = math.nan


def naive(reference, reference_groups, other, other_groups, neighbours):
    """State by state in plain Python."""
    found = []
    for state, group in zip(reference, reference_groups, strict=True):
        near = sorted(math.dist(state, v) for v, g in zip(reference, reference_groups, strict=True) if g != group)
        others = [math.dist(state, v) for v, g in zip(other, other_groups, strict=True) if g != group]
        known = len(near) >= neighbours and others
        found.append(float(min(others) <= near[neighbours - 1]) if known else NAN)
    return found


def same(found, expected):
    assert torch.equal(found.isnan(), torch.tensor(expected).isnan()), (found, expected)
    assert torch.equal(found.nan_to_num(-1), torch.tensor(expected).nan_to_num(-1)), (found, expected)


def test_by_hand():
    # On a line, k = 1, groups a a b c at 0, 1, 3, 10. Radii to the nearest of another group: 3, 2, 2, 7.
    # Others: 4 of group a, 13 of group d. Own groups left out: 0 (a) sees 13 only, at 13 > 3: no. 1 (a): 12 > 2: no.
    # 3 (b): 4 is at 1 <= 2: yes. 10 (c): 13 is at 3 <= 7: yes.
    line = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    same(metrics.covered(line, [0, 0, 1, 2], torch.tensor([[4.0], [13.0]]), [0, 3], neighbours=1), [0.0, 0.0, 1.0, 1.0])


def test_the_radius_itself_is_within():
    line = torch.tensor([[0.0], [2.0]])
    same(metrics.covered(line, [0, 1], torch.tensor([[-2.0], [-2.0]]), [2, 2], neighbours=1), [1.0, 0.0])
    again = torch.tensor([[1.0, 1e4]]).repeat(7, 1)
    same(metrics.covered(again, range(7), again, range(7)), [1.0] * 7)


@pytest.mark.parametrize("neighbours", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_naive_version(seed, neighbours, monkeypatch):
    monkeypatch.setattr(coverage, "BLOCK_STATES", 7)
    generator = torch.Generator().manual_seed(seed)
    reference, other = torch.randn(40, 3, generator=generator), 0.2 + 0.4 * torch.randn(30, 3, generator=generator)
    groups, others = torch.randint(0, 4, (40,), generator=generator), torch.randint(0, 4, (30,), generator=generator)
    found = metrics.covered(reference, groups, other, others, neighbours=neighbours)
    expected = naive(reference.tolist(), groups.tolist(), other.tolist(), others.tolist(), neighbours)
    same(found, expected)
    assert 0 < found.mean() < 1
    alone = metrics.covered(reference, torch.arange(40), other, 40 + torch.arange(30), neighbours=neighbours)
    assert not torch.equal(alone, found), "groups must matter"


def test_blocks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    reference, other = torch.randn(50, 8, generator=generator), torch.randn(50, 8, generator=generator)
    groups = torch.arange(50) // 5
    whole = metrics.covered(reference, groups, other, groups)
    monkeypatch.setattr(coverage, "BLOCK_STATES", 13)
    assert torch.equal(metrics.covered(reference, groups, other, groups), whole)


def expected_share(n, m, neighbours):
    """Chance that the nearest `neighbours` of n reference and m other states are not all reference states."""
    return 1 - math.comb(n, neighbours) / math.comb(n + m, neighbours)


@pytest.mark.parametrize(("others_a_group", "neighbours"), [(4, 5), (4, 2), (2, 5)])
def test_expectation_under_equality(others_a_group, neighbours):
    """Independent states of one distribution, 12 groups of 4, in half as many others or as many."""
    generator = torch.Generator().manual_seed(7)
    groups, others = torch.arange(48) // 4, torch.arange(12 * others_a_group) // others_a_group
    shares = torch.stack(
        [
            metrics.covered(
                torch.randn(48, 3, generator=generator), groups,
                torch.randn(len(others), 3, generator=generator), others, neighbours=neighbours,
            ).mean()
            for _ in range(300)
        ]
    )  # fmt: skip
    expected = expected_share(44, 11 * others_a_group, neighbours)
    assert shares.mean() == pytest.approx(expected, abs=4 * float(shares.std()) / math.sqrt(300))
    assert shares.std() / math.sqrt(300) < 0.005
    limit = 1 - (4 / (4 + others_a_group)) ** neighbours
    assert expected == pytest.approx(limit, abs=0.02)


def test_clumps_lower_the_expectation():
    """Each group one clump: all neighbours come from the nearest one, and the others' is nearer half of the time."""
    generator = torch.Generator().manual_seed(8)
    groups = torch.arange(60) // 5
    shares = []
    for _ in range(200):
        sides = [torch.randn(12, 3, generator=generator)[groups] for _ in range(2)]
        clumps = [side + 1e-3 * torch.randn(60, 3, generator=generator) for side in sides]
        shares.append(metrics.covered(clumps[0], groups, clumps[1], groups).mean())
    assert torch.stack(shares).mean() == pytest.approx(0.5, abs=0.05)


def test_far_away_covers_nothing_and_the_same_states_cover_all():
    generator = torch.Generator().manual_seed(3)
    reference, groups = torch.randn(40, 5, generator=generator), torch.arange(40) // 2
    assert metrics.covered(reference, groups, reference + 100, groups).sum() == 0
    assert metrics.covered(reference, groups, reference, groups).mean() == 1
    one_place = reference[:1].expand(40, 5)
    assert metrics.covered(reference, groups, one_place, groups).mean() < 0.6, "one place cannot cover everything"


def test_order_and_names_of_groups_do_not_matter():
    generator = torch.Generator().manual_seed(4)
    reference, other = torch.randn(60, 4, generator=generator), 1 + torch.randn(60, 4, generator=generator)
    groups = torch.arange(60) // 6
    found = metrics.covered(reference, groups, other, groups)
    first, second = torch.randperm(60, generator=generator), torch.randperm(60, generator=generator)
    names = 100 - 3 * groups
    again = metrics.covered(reference[first], names[first], other[second], names[second])
    assert torch.equal(again, found[first])
    assert 0 < found.mean() < 1


def test_moving_turning_and_scaling_both_sets_change_nothing():
    generator = torch.Generator().manual_seed(5)
    reference, other = (torch.randn(40, 4, generator=generator).double() for _ in range(2))
    groups = torch.arange(40) // 4
    turned = torch.linalg.qr(torch.randn(4, 4, generator=generator).double()).Q
    found = metrics.covered(reference, groups, other, groups, neighbours=2)
    again = metrics.covered(3 * reference @ turned + 50, groups, 3 * other @ turned + 50, groups, neighbours=2)
    assert torch.equal(found, again)
    assert found.mean() < 1


def test_too_few_groups_are_undefined():
    states = torch.arange(12.0)[:, None]
    one_group = metrics.covered(states, [0] * 12, states, [0] * 12)
    assert one_group.isnan().all()
    assert len(one_group) == 12
    # Group 0 has 9 states, group 1 three: states of 0 see three others, states of 1 see nine.
    same(metrics.covered(states, [0] * 9 + [1] * 3, states, [2] * 12), [NAN] * 9 + [1.0] * 3)
    same(metrics.covered(states[:6], range(6), states[:1], [3]), [1.0] * 3 + [NAN] + [1.0] * 2)
    assert metrics.covered(states, range(12), torch.empty(0, 1), []).isnan().all()
    assert metrics.covered(torch.empty(0, 1), [], states, range(12)).shape == (0,)


def test_what_is_not_finite_is_near_to_none():
    states = torch.arange(8.0)[:, None]
    broken = states.clone()
    broken[3] = NAN
    found = metrics.covered(broken, range(8), torch.cat([broken, torch.tensor([[math.inf]])]), range(9), neighbours=2)
    same(found, [1.0] * 3 + [NAN] + [1.0] * 4)


def test_refuses_shapes_that_do_not_fit():
    states = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"found \(3, 2\) and \(3, 1\)"):
        metrics.covered(states, range(3), torch.zeros(3, 1), range(3))
    with pytest.raises(ValueError, match="one group"):
        metrics.covered(states, range(2), states, range(3))
    with pytest.raises(ValueError, match="at least 1"):
        metrics.covered(states, range(3), states, range(3), neighbours=0)
