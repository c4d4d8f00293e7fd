"""The distance at the teacher's states: by part, by token, and what of it was closed; against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.records.vocabulary import Token
from opd_diag.tables.distance import (
    DISTANCE_COLUMNS,
    OPENING,
    TOKEN_COLUMNS,
    closed_share,
    distance_table,
    infinite_states,
    token_table,
)

PROMPTS = 6
LENGTHS = (10, 12)


def tables(kl=lambda label, prompt, index, position: 1.0, labels=("step 0",), stop_reason="stop"):
    """Two responses to each prompt, of 10 and 12 tokens, and a state set that must not count."""
    places = [(p, i, t) for p in range(PROMPTS) for i, n in enumerate(LENGTHS) for t in range(n)]
    rows = [
        {"label": label, "states": states, "prompt_index": p, "rollout_index": i, "position": t, "sampled_id": t}
        | {"forward_kl": kl(label, p, i, t) if states == "teacher" else 99.0}
        for label in labels
        for states in ("on-policy", "teacher")
        for p, i, t in places
    ]
    states = pd.DataFrame(rows)
    key = ["label", "states", "prompt_index", "rollout_index"]
    return states, states[key].drop_duplicates().assign(stop_reason=stop_reason)


def by_part(table, label="step 0"):
    return table[table["label"] == label].set_index("part")


def test_every_state_lies_in_one_part():
    table = distance_table(*tables())
    assert list(table.columns) == DISTANCE_COLUMNS
    of = by_part(table)
    responses = 2 * PROMPTS
    assert of["n_states"].to_dict() == {
        "whole": PROMPTS * sum(LENGTHS),
        "opening": OPENING * responses,
        "end": responses,
        "middle": PROMPTS * (sum(LENGTHS) - 2 * OPENING - 2),
    }
    assert of["value"].tolist() == [1.0] * 4
    assert of.loc["whole", "per_response"] == pytest.approx(np.mean(LENGTHS))
    assert of.loc["end", "per_response"] == pytest.approx(1.0)
    for column in ("share", "token_share", "per_response"):
        parts = of.loc[["opening", "end", "middle"], column].sum()
        assert parts == pytest.approx(of.loc["whole", column])


def test_numbers_by_hand():
    kl = lambda label, p, i, t: (4.0 if t == 0 else 0.5) + 0.1 * p  # noqa: E731
    of = by_part(distance_table(*tables(kl)))
    sums = np.array([[sum(kl("", p, i, t) for t in range(n)) for i, n in enumerate(LENGTHS)] for p in range(PROMPTS)])
    assert of.loc["whole", "per_response"] == pytest.approx(sums.mean())
    assert of.loc["whole", "value"] == pytest.approx(sums.sum() / (PROMPTS * sum(LENGTHS)))
    opening = np.array([sum(kl("", p, 0, t) for t in range(OPENING)) for p in range(PROMPTS)])
    assert of.loc["opening", "share"] == pytest.approx(2 * opening.sum() / sums.sum())
    # the jackknife by prompt, written out
    without = [2 * np.delete(opening, p).sum() / np.delete(sums, p, 0).sum() for p in range(PROMPTS)]
    error = math.sqrt((PROMPTS - 1) / PROMPTS * ((np.array(without) - np.mean(without)) ** 2).sum())
    half = 2.570581836 * error  # t of 5 degrees of freedom
    assert of.loc["opening", "share_ci_high"] - of.loc["opening", "share"] == pytest.approx(half, rel=1e-6)
    assert math.isnan(of.loc["whole", "share_ci_low"])
    assert of.loc["whole", "per_response_ci_low"] < sums.mean() < of.loc["whole", "per_response_ci_high"]


def test_a_response_that_was_cut_has_no_end():
    of = by_part(distance_table(*tables(stop_reason="length")))
    assert of.loc["end", "n_states"] == 0
    assert math.isnan(of.loc["end", "value"])
    assert of.loc["end", "per_response"] == 0
    assert of.loc["middle", "n_states"] == PROMPTS * (sum(LENGTHS) - 2 * OPENING)


def test_what_is_not_finite_is_left_out():
    of = by_part(distance_table(*tables(lambda label, p, i, t: math.inf if t == 3 else math.nan if t == 4 else 1.0)))
    assert of.loc["whole", "n_states"] == PROMPTS * (sum(LENGTHS) - 4)
    assert of.loc["whole", "value"] == 1.0


def test_a_stop_token_that_the_student_rules_out_leaves_no_other_end():
    last = {(0, LENGTHS[0] - 1), (1, LENGTHS[1] - 1)}
    states, rollouts = tables(lambda label, p, i, t: math.inf if (i, t) in last and p < 2 else 1.0)
    of = by_part(distance_table(states, rollouts))
    ruled_out = 2 * len(LENGTHS)
    assert of["n_states"].to_dict() == {
        "whole": PROMPTS * sum(LENGTHS) - ruled_out,
        "opening": OPENING * 2 * PROMPTS,
        "end": 2 * PROMPTS - ruled_out,
        "middle": PROMPTS * (sum(LENGTHS) - 2 * OPENING - 2),
    }
    assert infinite_states(states) == {"step 0": (ruled_out, PROMPTS * sum(LENGTHS))}


def test_undefined_is_not_infinite():
    states, _ = tables(lambda label, p, i, t: math.nan if t == 4 else 1.0, labels=("step 0", "cold start"))
    of = PROMPTS * sum(LENGTHS)
    assert infinite_states(states) == {"step 0": (0, of), "cold start": (0, of)}


def test_no_distance_has_no_shares():
    of = by_part(distance_table(*tables(lambda *_: 0.0)))
    assert of["value"].tolist() == [0.0] * 4
    assert of["share"].isna().all()


def test_tokens_by_their_share():
    states, rollouts = tables(lambda label, p, i, t: 3.0 if t == 5 else 1.0 if t == 1 else 0.0)
    table = token_table(states, rollouts, {5: Token("five", False)})
    assert list(table.columns) == TOKEN_COLUMNS
    assert table["token_id"].tolist()[:2] == [5, 1]
    assert table["token"].tolist()[:2] == ["five", ""]
    assert table["n_states"].tolist()[:2] == [2 * PROMPTS] * 2
    assert table["share"].tolist()[:2] == [0.75, 0.25]
    assert table["share"].sum() == 1.0


def test_tokens_of_nothing():
    states, rollouts = tables()
    empty = token_table(states[states["states"] != "teacher"], rollouts, {})
    assert empty.empty
    assert list(empty.columns) == TOKEN_COLUMNS


def test_what_of_the_distance_was_closed():
    """Prompts close different shares of different distances: the ratio of sums, and its jackknife by hand."""
    before = np.array([1.0, 2.0, 3.0, 1.5, 2.5, 4.0])
    closed = np.array([0.5, 0.8, 0.2, 0.0, 1.0, 0.6])
    kl = lambda label, p, i, t: before[p] * (1 - closed[p] if label == "cold start" else 1.0)  # noqa: E731
    states, _ = tables(kl, labels=("step 0", "cold start"))
    found = closed_share(states, "step 0", "cold start")
    share = lambda keep: (before * closed)[keep].sum() / before[keep].sum()  # noqa: E731
    everyone = np.arange(PROMPTS)
    assert found.value == pytest.approx(share(everyone))
    without = np.array([share(np.delete(everyone, p)) for p in everyone])
    error = math.sqrt((PROMPTS - 1) / PROMPTS * ((without - without.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(error)
    assert found.n == PROMPTS * sum(LENGTHS)
    assert found.n_clusters == PROMPTS


def test_states_that_one_side_lacks_are_left_out_of_both():
    kl = lambda label, p, i, t: math.inf if (label, t) == ("step 0", 0) else 2.0 if label == "step 0" else 1.0  # noqa: E731
    states, _ = tables(kl, labels=("step 0", "cold start"))
    found = closed_share(states, "step 0", "cold start")
    assert found.value == 0.5
    assert found.n == PROMPTS * (sum(LENGTHS) - 2)


def test_no_distance_cannot_be_closed():
    states, _ = tables(lambda *_: 0.0, labels=("step 0", "cold start"))
    found = closed_share(states, "step 0", "cold start")
    assert math.isnan(found.value)
    assert math.isnan(found.ci_low)
