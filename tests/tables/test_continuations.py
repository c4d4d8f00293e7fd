"""Continuations in tables, on counts made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.continuations import (
    ADVANTAGE,
    ATTEMPT_COLUMNS,
    CONTINUATION_COLUMNS,
    Continuation,
    advantage_difference,
    chosen,
    continuation_table,
    continued_table,
)


def attempts(shares, prompts=10, depth=4):
    """Ten prompts; of a kind of prefix and a writer the first so many of ten are right."""
    rows = [
        (prefix, 0 if prefix == "none" else depth, writer, prompt, 0, float(prompt < right), float(prompt % 2), 0.0)
        for prefix, by_writer in shares.items()
        for writer, right in zip(("teacher", "student"), by_writer, strict=True)
        for prompt in range(prompts)
    ]
    return pd.DataFrame(rows, columns=ATTEMPT_COLUMNS)


SHARES = {"none": (8, 4), "student": (5, 4), "teacher": (8, 5), "filler": (6, 4)}


def test_the_advantage_is_the_difference_of_the_accuracies():
    table = continuation_table(attempts(SHARES))
    assert list(table.columns) == CONTINUATION_COLUMNS
    values = table.set_index(["prefix", "metric"])["value"]
    for prefix, (theirs, own) in SHARES.items():
        assert values[prefix, "teacher_accuracy"] == pytest.approx(theirs / 10)
        assert values[prefix, "student_accuracy"] == pytest.approx(own / 10)
        assert values[prefix, ADVANTAGE] == pytest.approx((theirs - own) / 10)
    assert ((table["ci_low"] <= table["value"]) & (table["value"] <= table["ci_high"])).all()
    accuracies = table[table["metric"] != ADVANTAGE]
    assert accuracies["ci_low"].min() >= 0
    assert accuracies["ci_high"].max() <= 1


def test_the_students_prefixes_are_parted_by_what_came_of_them():
    """Odd prompts are of correct responses; 1 and 3 of the five the teacher rights, 0, 2 and 4 of the others."""
    values = continuation_table(attempts(SHARES)).set_index(["prefix", "metric"])
    assert values.loc[("student, correct", "teacher_accuracy"), "value"] == pytest.approx(2 / 5)
    assert values.loc[("student, wrong", "teacher_accuracy"), "value"] == pytest.approx(3 / 5)
    assert values.loc[("student, wrong", ADVANTAGE), "n_prompts"] == 5


def test_prefixes_are_counted_and_not_their_continuations():
    twice = pd.concat([attempts(SHARES), attempts(SHARES)])
    rows = continuation_table(twice).set_index(["prefix", "metric"]).loc[("student", ADVANTAGE)]
    assert (rows["n_prefixes"], rows["n_rollouts"], rows["n_prompts"]) == (10, 40, 10)


def test_kinds_are_compared_prompt_by_prompt():
    found = advantage_difference(attempts(SHARES), "student", "teacher", 4)
    assert found.value == pytest.approx(0.1 - 0.3)
    assert found.n_clusters == 10
    assert found.ci_low < -0.2 < found.ci_high


def test_no_difference_at_all_leaves_something_open():
    alike = attempts({"student": (5, 5), "teacher": (5, 5)})
    found = advantage_difference(alike, "student", "teacher", 4)
    assert found.value == 0
    assert found.ci_low == pytest.approx(-(1.96**2) / (10 + 1.96**2), abs=1e-3)  # Wilson's of none of ten


def test_a_kind_that_was_not_tried():
    found = advantage_difference(attempts({"student": (5, 5)}), "student", "filler", 4)
    assert np.isnan(found.value)
    assert found.n_clusters == 0


def test_what_cannot_be_graded_is_left_out():
    rollout = SimpleNamespace(prompt_index=3, is_correct=True)
    other = SimpleNamespace(prompt_index=4, is_correct=None)
    parts = [Continuation("student", 2, "teacher", of, 1, None, False) for of in (rollout, other)]
    table = continued_table(parts)
    assert table["prompt_index"].tolist() == [3]
    assert np.isnan(table["of_correct"].iloc[0])
    assert chosen(table, "student, wrong", 2).empty


def test_of_nothing():
    assert continuation_table(continued_table([])).empty
