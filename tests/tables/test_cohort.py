"""Cohorts: who reaches a length, and what of it is kept."""

from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.tables.cohort import cohort, cohorts, depth_edges, halves, halves_of_run, typical_length


def rollouts(lengths, label="step 0", states="on-policy"):
    """One rollout a prompt, of these lengths; the value of a state is its position."""
    rows = [
        {"label": label, "states": states, "prompt_index": prompt, "rollout_index": 0, "position": position}
        for prompt, length in enumerate(lengths)
        for position in range(length)
    ]
    return pd.DataFrame(rows, columns=["label", "states", "prompt_index", "rollout_index", "position"])


def test_the_typical_length_is_the_median():
    assert typical_length(rollouts([2, 9, 5])) == 5
    assert typical_length(rollouts([])) == 0


def test_a_cohort_is_the_beginning_of_those_that_reach_the_length():
    reach = cohort(rollouts([2, 9, 5]), 5)
    assert reach["prompt_index"].tolist() == [1] * 5 + [2] * 5
    assert reach["position"].tolist() == [0, 1, 2, 3, 4] * 2


def test_rollouts_of_different_writers_are_told_apart():
    """Prompt 0 is long for one and short for the other."""
    table = pd.concat([rollouts([6]), rollouts([2], states="teacher"), rollouts([6], label="step 9")])
    reach = cohorts(table, 4)
    assert reach.groupby(["label", "states"]).size().to_dict() == {
        ("step 0", "on-policy"): 4,
        ("step 9", "on-policy"): 4,
    }


def test_halves_of_an_odd_length():
    early, late = halves(rollouts([7, 3]), 5)
    assert (early["position"].tolist(), late["position"].tolist()) == ([0, 1], [2, 3, 4])


def test_halves_of_a_run_take_the_length_of_the_last_checkpoints_own():
    table = pd.concat([rollouts([8, 8]), rollouts([4, 6, 6], label="step 9"), rollouts([9], "step 9", "teacher")])
    own, theirs, before, length = halves_of_run(table)
    assert length == 6
    assert [len(part) for part in own] == [6, 6]
    assert [len(part) for part in theirs] == [3, 3]
    assert [len(part) for part in before] == [6, 6]


def test_halves_of_nothing():
    assert halves_of_run(pd.DataFrame())[3] == 0


@pytest.mark.parametrize(("length", "most"), [(1, 8), (8, 8), (9, 8), (1000, 32)])
def test_edges_cover_the_length_once(length, most):
    edges = depth_edges(length, most)
    assert (edges[0], edges[-1]) == (0, length)
    assert edges == sorted(set(edges))
    assert len(edges) <= most + 1
