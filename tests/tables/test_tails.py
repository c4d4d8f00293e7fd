"""Percentiles and what the largest values hold, by hand and by other formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_diag import stats
from opd_diag.tables.tails import TAIL_COLUMNS, percentile_place, tail_table, top_share

from .test_rewards import naive_share

INF, NAN = math.inf, math.nan


def states(values, label="step 0", prompts=8, states="on-policy"):
    """One state a value, of prompts in turn."""
    return pd.DataFrame(
        {"step": 0, "label": label, "teacher": "big", "states": states, "reverse_kl": np.asarray(values, float)}
    ).assign(prompt_index=np.arange(len(values)) % prompts)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=300), st.sampled_from([50, 90, 99]))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values, percent):
    found = values[percentile_place(values, percent)]
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert all(100 * sum(v <= value for v in values) < percent * len(values) for value in values if value < found)


def test_percentiles_of_a_hundred_values():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert [values[percentile_place(values, p)] for p in (1, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]


def test_what_is_infinite_is_larger_than_all_others():
    assert percentile_place([1.0, INF, 2.0, 3.0], 99) == 1
    assert percentile_place([1.0, INF, 2.0, 3.0], 50) == 2


def test_of_one_value_every_percentile_is_it():
    assert [percentile_place([7.0], percent) for percent in (50, 90, 99)] == [0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(1, 5))
def test_the_farthest_tenth_by_brute_force(seed, n, groups):
    rng = np.random.default_rng(seed)
    sizes, prompts = rng.exponential(size=n), rng.integers(0, groups, n)

    def brute(of):
        wanted, total = len(of) / 10, 0.0
        for size in sorted(of, reverse=True):
            total, wanted = total + size * min(1.0, max(0.0, wanted)), wanted - 1
        return total / sum(of) if len(of) >= 10 else NAN

    share, left_out = top_share(sizes, prompts, 0.1)
    assert share == pytest.approx(brute(sizes), nan_ok=True)
    assert left_out == pytest.approx([brute(sizes[prompts != p]) for p in np.unique(prompts)], nan_ok=True)


class TestTable:
    def test_a_row_by_hand(self):
        """Of 200 states two are far: the farthest hundredth holds 100 of 100 + 198."""
        (row,) = tail_table(states([50.0, 50.0] + [1.0] * 198)).to_dict("records")
        assert list(row) == TAIL_COLUMNS
        assert [row[name] for name in ("p50", "p90", "p99")] == [1.0, 1.0, 1.0]
        assert row["held_by_1"] == pytest.approx(100 / 298)
        assert row["held_by_10"] == pytest.approx(118 / 298)
        assert (row["n_states"], row["n_prompts"], row["n_undefined"], row["n_infinite"]) == (200, 8, 0, 0)

    def test_its_interval_is_the_jackknife_over_prompts(self):
        values = np.random.default_rng(1).exponential(size=400)
        (row,) = tail_table(states(values)).to_dict("records")
        left_out = [naive_share(values[np.arange(400) % 8 != prompt]) for prompt in range(8)]
        expected = stats.clustered_jackknife(naive_share(values), left_out, n=400)
        found = [row["held_by_1"], row["held_by_1_ci_low"], row["held_by_1_ci_high"]]
        assert 0.01 < expected.ci_low < expected.ci_high < 1
        assert found == pytest.approx([expected.value, expected.ci_low, expected.ci_high])
        assert expected.is_approximate
        assert row["held_by_1_approximate"] is True

    def test_an_interval_of_many_like_prompts_is_not_approximate(self):
        """One far state a prompt: what the farthest hundredth holds is the same without each."""
        (row,) = tail_table(states(np.repeat([100.0, 1.0], [40, 3960]), prompts=40)).to_dict("records")
        assert row["held_by_1"] == pytest.approx(4000 / 7960)
        assert (row["held_by_1_approximate"], row["held_by_10_approximate"]) == (False, False)

    def test_an_interval_stays_where_a_share_can_be(self):
        """All of the distance is one state of one prompt: without it each share is as of equal states."""
        values = np.array([1e6] + [1.0] * 1599)
        (row,) = tail_table(states(values)).to_dict("records")
        for name, top in (("held_by_1", 0.01), ("held_by_10", 0.1)):
            left_out = [top] + [row[name]] * 7  # near enough: the seven others hold the same
            uncut = stats.clustered_jackknife(row[name], left_out, n=1600)
            assert uncut.ci_low < top < 1 < uncut.ci_high
            assert (row[f"{name}_ci_low"], row[f"{name}_ci_high"]) == (top, 1.0)
            assert row[f"{name}_approximate"] is True

    def test_without_an_interval_nothing_is_approximate(self):
        (row,) = tail_table(states([2.0] + [1.0] * 199, prompts=4)).to_dict("records")
        assert math.isnan(row["held_by_1_ci_low"])
        assert row["held_by_1_approximate"] is False

    def test_a_row_a_checkpoint_and_set(self):
        parts = [states([1.0], "a"), states([2.0], "a", states="start"), states([3.0], "b")]
        table = tail_table(pd.concat(parts))
        assert list(zip(table["label"], table["states"], table["p99"], strict=True)) == [
            ("a", "on-policy", 1.0), ("a", "start", 2.0), ("b", "on-policy", 3.0),
        ]  # fmt: skip

    def test_undefined_states_are_counted_and_left_out(self):
        (row,) = tail_table(states([1.0, NAN, 3.0, NAN])).to_dict("records")
        assert (row["n_states"], row["n_undefined"], row["p50"], row["p99"]) == (2, 2, 1.0, 3.0)

    def test_of_infinite_states_no_share_is_told(self):
        (row,) = tail_table(states([INF] * 3 + [1.0] * 197)).to_dict("records")
        assert (row["p50"], row["p90"], row["p99"], row["n_infinite"]) == (1.0, 1.0, INF, 3)
        assert math.isnan(row["held_by_1"])
        assert math.isnan(row["held_by_10"])

    @pytest.mark.parametrize("values", [[0.0] * 200, [NAN] * 3])
    def test_nothing_is_held_where_nothing_is(self, values):
        (row,) = tail_table(states(values)).to_dict("records")
        assert math.isnan(row["held_by_1"])
        assert math.isnan(row["held_by_10"])

    @pytest.mark.parametrize(("n", "known"), [(9, (False, False)), (10, (False, True)), (100, (True, True))])
    def test_too_few_states_have_no_farthest_hundredth_or_tenth(self, n, known):
        (row,) = tail_table(states([1.0] * n)).to_dict("records")
        assert tuple(not math.isnan(row[name]) for name in ("held_by_1", "held_by_10")) == known

    def test_no_state_is_no_row(self):
        assert tail_table(states([])).empty
