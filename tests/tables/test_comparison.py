"""Two runs at their ends: paired by the text of prompts, against plain arithmetic."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.catalogue import CATALOGUE, METRIC_NAMES
from opd_diag.tables.comparison import COMPARISON_COLUMNS, Side, comparison_table, direction_of
from opd_diag.verdicts import DEFAULTS
from opd_diag.verdicts.comparison import runs_differ

WEIGHTS = {m.weight for m in CATALOGUE if m.weight is not None}


def side(name, prompts, *, values, right=None):
    """A run with two states a prompt, all metrics `values[prompt]` ± .1, and one response a prompt."""
    rollouts = [
        SimpleNamespace(prompt_index=i, prompt_text=text, is_correct=None if right is None else right[i])
        for i, text in enumerate(prompts)
    ]
    rows = [
        {"prompt_index": i} | dict.fromkeys(METRIC_NAMES, values[i] + s * 0.1) | dict.fromkeys(WEIGHTS, 1.0)
        for i in range(len(prompts))
        for s in (-1, 1)
    ]
    return Side(name, {"on-policy": pd.DataFrame(rows)}, {"on-policy": rollouts})


A = side("a", list("abcdef"), values=[1, 2, 3, 4, 5, 60], right=[True, True, False, False, True, False])


def test_shared_prompts_are_paired_whatever_their_place():
    b = side("b", list("zedcba"), values=[99, 5.5, 4.5, 3.5, 2.5, 1.5])
    table = comparison_table(A, b, ["reverse_kl"])
    assert list(table.columns) == COMPARISON_COLUMNS
    row = table.iloc[0]
    assert (row["first"], row["second"], row["states"], row["metric"]) == ("a", "b", "on-policy", "reverse_kl")
    assert row["first_value"] == pytest.approx(3.0), "without the prompt that b lacks"
    assert row["second_value"] == pytest.approx(3.5)
    assert row["value"] == pytest.approx(0.5)
    assert row["ci_high"] - row["ci_low"] < 1e-6, "every prompt differs by the same"
    assert row["n_prompts"] == 5
    assert row["paired"]


def test_without_shared_prompts_it_is_welchs():
    from scipy.stats import ttest_ind

    b = side("b", list("uvwxyz"), values=[2, 3, 4, 5, 6, 61])
    row = comparison_table(A, b, ["reverse_kl"]).iloc[0]
    assert not row["paired"]
    assert row["value"] == pytest.approx(1.0)
    expected = ttest_ind([2, 3, 4, 5, 6, 61], [1, 2, 3, 4, 5, 60], equal_var=False).confidence_interval(0.95)
    assert row["ci_low"] == pytest.approx(expected.low, rel=0.05)
    assert row["n_prompts"] == 12


def test_accuracy_is_of_responses_that_both_have():
    b = side("b", list("abcdef"), values=[1] * 6, right=[True, True, True, False, True, True])
    table = comparison_table(A, b, ["reverse_kl"])
    row = table[table["metric"] == "accuracy"].iloc[0]
    assert (row["first_value"], row["second_value"]) == (pytest.approx(0.5), pytest.approx(5 / 6))
    assert row["value"] == pytest.approx(1 / 3)
    ungraded = comparison_table(A, side("b", list("abcdef"), values=[1] * 6), ["reverse_kl"])
    assert set(ungraded["metric"]) == {"reverse_kl"}


def behind_a_server(of, metric, low, high):
    """The same run, with a metric of which a server left bounds, so far from the value."""
    table = of.states["on-policy"]
    ends = {f"{metric}_low": table[metric] + low, f"{metric}_high": table[metric] + high, metric: np.nan}
    return Side(of.name, {"on-policy": table.assign(**ends)}, of.rollouts)


@pytest.mark.parametrize("served", ["both", "the second"])
def test_what_servers_leave_between_bounds_differs_by_the_least_to_the_greatest(served):
    b = side("b", list("zedcba"), values=[99, 5.5, 4.5, 3.5, 2.5, 1.5])
    first = behind_a_server(A, "forward_kl", -0.25, 0.5) if served == "both" else A
    table = comparison_table(first, behind_a_server(b, "forward_kl", -0.125, 1.0), ["forward_kl", "reverse_kl"])
    row = table.iloc[0]
    assert np.isnan(row[["value", "second_value"]].astype(float)).all()
    assert row["first_value"] == pytest.approx(np.nan if served == "both" else 3.0, nan_ok=True), "which is known"
    assert (row["p_value"] == 1.0) == (served == "both"), "of the bound next to 0, where it lies beyond"
    low, high = (0.5, 0.25) if served == "both" else (0.0, 0.0)
    assert row["bound_low"] == pytest.approx(0.5 - 0.125 - low)
    assert row["bound_high"] == pytest.approx(0.5 + 1.0 + high)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((row["bound_low"], row["bound_high"]))
    assert (row["n_prompts"], row["first_prompts"], row["paired"]) == (5, 5, True)
    assert table.iloc[1]["value"] == pytest.approx(0.5)
    assert np.isnan(table.iloc[1]["bound_low"])


def test_without_an_upper_bound_there_is_no_end():
    one, other = (behind_a_server(of, "reverse_kl", -0.5, np.inf) for of in (A, side("b", "abcdef", values=[1] * 6)))
    row = comparison_table(one, other, ["reverse_kl"]).iloc[0]
    assert (row["bound_low"], row["bound_high"]) == (-np.inf, np.inf)
    assert (row["ci_low"], row["ci_high"], row["n_prompts"]) == (-np.inf, np.inf, 6)


def test_state_sets_that_one_lacks_are_left_out():
    other = Side("b", {"start": A.states["on-policy"]}, {"start": A.rollouts["on-policy"]})
    assert comparison_table(A, other, ["reverse_kl"]).empty


def test_directions():
    assert [direction_of(m) for m in ("accuracy", "reverse_kl", "student_overlap_mass", "student_entropy")] == [
        1,
        -1,
        1,
        0,
    ]
    assert np.isin([direction_of(m) for m in METRIC_NAMES], (-1, 0, 1)).all()


def test_unshared_prompts_that_all_are_solved_are_not_therefore_alike():
    """Wilson's interval of 5 of 5 is [1 / (1 + z²/5), 1]; Welch's of two such errors has 8 degrees of freedom."""
    from scipy.stats import t

    one, two = (side(n, list(texts), values=[1] * 5, right=[True] * 5) for n, texts in (("a", "abcde"), ("b", "uvwxy")))
    row = comparison_table(one, two, []).iloc[0]
    assert (row["metric"], row["value"], row["paired"]) == ("accuracy", 0.0, False)
    reach = 1 - 1 / (1 + 1.959964**2 / 5)
    half = t.ppf(0.975, 8) * np.sqrt(2) * reach / t.ppf(0.975, 4)
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(-half, rel=1e-6), pytest.approx(half, rel=1e-6))
    assert runs_differ(row, DEFAULTS).status == "unknown"


def test_prompts_are_counted_on_each_side():
    b = side("b", list("uvw"), values=[1, 2, 3])
    row = comparison_table(A, b, ["reverse_kl"]).iloc[0]
    assert (row["n_prompts"], row["first_prompts"], row["second_prompts"]) == (9, 6, 3)
    shared = comparison_table(A, side("b", list("abc"), values=[1, 2, 3]), ["reverse_kl"]).iloc[0]
    assert (shared["n_prompts"], shared["first_prompts"], shared["second_prompts"]) == (3, 3, 3)
