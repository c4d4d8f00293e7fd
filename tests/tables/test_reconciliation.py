"""A recorded batch against the loss of the update it served: which number belongs to which, and when none does."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.records.rollout import Provenance, Rollout, in_training
from opd_diag.tables.logged import LOGGED_COLUMNS
from opd_diag.tables.reconciliation import RECONCILIATION_COLUMNS, reconciliation_table


def rollout(prompt, step, exactness="ids", origin="recorded"):
    source = Provenance(origin, in_training(step), "", step, 1.0, 1.0, None)
    return Rollout(prompt, 0, f"{prompt}", None, (1,), (1,), (2, 3), "length", source, exactness=exactness)


def states(step, values, name="near-on-policy", metric="reverse_kl"):
    """Two states of each of some prompts, with these values."""
    rows = [(step, f"step {step}", name, p, 0, v) for p, of in enumerate(values) for v in of]
    return pd.DataFrame(rows, columns=["step", "label", "states", "prompt_index", "rollout_index", metric])


def log(*rows, metric="reverse_kl", key="loss"):
    table = pd.DataFrame([(s, metric, v, key, "trainer_state.json", "") for s, v in rows], columns=LOGGED_COLUMNS)
    return table.astype({"step": "Int64", "value": float})


def outcome(logged, *, of=None, rollouts=None, recorded=2):
    of = states(4, [(1.0, 2.0), (3.0, 6.0)]) if of is None else of
    rollouts = [rollout(0, 4), rollout(1, 4)] if rollouts is None else rollouts
    table = reconciliation_table([(of, rollouts)], {"step 4": recorded}, logged)
    assert list(table.columns) == RECONCILIATION_COLUMNS
    (row,) = table.to_dict("records")
    return row


def test_the_mean_over_tokens_is_the_loss_of_the_next_update():
    row = outcome(log((4, 9.0), (5, 3.0), (6, 8.0)))
    assert (row["step"], row["label"], row["metric"], row["value"]) == (4, "step 4", "reverse_kl", 3.0)
    assert (row["logged"], row["logged_step"], row["updates"], row["difference"]) == (3.0, 5, 1, 0.0)
    assert (row["outcome"], row["n_states"], row["n_rollouts"], row["n_recorded"]) == ("agree", 4, 2, 2)


@pytest.mark.parametrize(
    ("logged", "word"), [(3.0009, "agree"), (2.9991, "agree"), (3.0011, "differ"), (2.0, "differ")]
)
def test_to_a_thousandth_of_a_nat(logged, word):
    row = outcome(log((4, 0.0), (5, logged)))
    assert row["outcome"] == word
    assert row["difference"] == pytest.approx(3.0 - logged)


def test_the_first_update_has_no_log_before_it():
    of = states(0, [(1.0, 2.0)])
    table = reconciliation_table([(of, [rollout(0, 0)])], {"step 0": 1}, log((1, 1.5)))
    assert table["outcome"].tolist() == ["agree"]


@pytest.mark.parametrize(
    ("rows", "updates"), [([(5, 3.0)], 5), ([(3, 3.0), (5, 3.0)], 2), ([(4, 3.0), (6, 3.0)], 2), ([(10, 3.0)], 10)]
)
def test_a_mean_over_updates_is_no_loss_of_one(rows, updates):
    row = outcome(log(*rows))
    assert (row["outcome"], row["updates"]) == ("mean over updates", updates)
    assert math.isnan(row["difference"])


def test_nothing_logged_after_the_checkpoint():
    row = outcome(log((3, 1.0), (4, 3.0)))
    assert row["outcome"] == "not logged"
    assert math.isnan(row["logged"])
    assert pd.isna(row["logged_step"])


def test_a_part_of_the_batch_is_not_the_batch():
    row = outcome(log((4, 9.0), (5, 3.0)), recorded=3)
    assert (row["outcome"], row["n_rollouts"], row["n_recorded"]) == ("partial batch", 2, 3)


def test_responses_of_later_weights_do_not_count():
    row = outcome(log((4, 9.0), (5, 1.5)), rollouts=[rollout(0, 4), rollout(1, 5)], recorded=1)
    assert (row["value"], row["outcome"], row["n_states"]) == (1.5, "agree", 2)


@pytest.mark.parametrize(
    "rollouts",
    [[rollout(0, 4, exactness="text-stripped")] * 2, [rollout(0, 4, origin="sampled")] * 2, [rollout(0, 5)] * 2],
)
def test_what_is_not_the_batch_as_ids(rollouts):
    of = states(4, [(1.0, 2.0)])
    assert reconciliation_table([(of, rollouts)], {}, log((4, 1.0), (5, 1.5))).empty


def test_other_state_sets_are_passed_over():
    of = states(4, [(1.0, 2.0)], name="on-policy")
    assert reconciliation_table([(of, [rollout(0, 4)])], {}, log((4, 1.0), (5, 1.5))).empty


@pytest.mark.parametrize("metric", ["forward_kl", "jensen_shannon"])
def test_the_loss_may_be_another_divergence(metric):
    of = states(4, [(1.0, 2.0)], metric=metric)
    table = reconciliation_table([(of, [rollout(0, 4)])], {}, log((4, 1.0), (5, 1.5), metric=metric))
    assert table[["metric", "outcome"]].values.tolist() == [[metric, "agree"]]


def test_another_name_than_loss_is_defined_in_another_way():
    of = states(4, [(1.0, 2.0)])
    assert reconciliation_table([(of, [rollout(0, 4)])], {}, log((4, 1.0), (5, 1.5), key="kl")).empty


def test_undefined_states_are_no_zeros():
    row = outcome(log((4, 9.0), (5, 2.0)), of=states(4, [(1.0, 2.0), (3.0, math.nan)]))
    assert (row["value"], row["n_states"]) == (2.0, 3)
