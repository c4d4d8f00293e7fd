"""All tables of a run together."""

from __future__ import annotations

import pandas as pd

from opd_diag.tables import Tables, assemble, concentration_table, from_rows, measure, rollout_table

from .made_up import a_run, rollout, scored
from .test_coverage import coverage


def test_rows_come_in_the_order_given():
    parts = a_run(steps=(0, 5, 10))
    tables = assemble((s.pair for s in parts), k=8)
    assert isinstance(tables, Tables)
    expected = [(s.scores.provenance["student"]["label"], s.scores.provenance["states"]) for s in parts]
    for table in (tables.states, tables.rollouts, tables.concentration, tables.summary):
        assert list(dict.fromkeys(zip(table["label"], table["states"], strict=True))) == expected
        assert list(table.index) == list(range(len(table)))
    states = pd.concat([measure(*s.pair, k=8) for s in parts], ignore_index=True)
    pd.testing.assert_frame_equal(tables.states, states)
    pd.testing.assert_frame_equal(
        tables.concentration, pd.concat([concentration_table(*s.pair) for s in parts], ignore_index=True)
    )


def test_derived_tables_follow_from_the_rows_alone():
    parts, near = a_run(on_teacher=True, back=True), coverage()
    tables = assemble((s.pair for s in parts), k=8, coverage=near)
    rollouts = pd.concat([rollout_table(measure(*s.pair, k=8), s.rollouts) for s in parts], ignore_index=True)
    again = from_rows(tables.states, rollouts, tables.concentration, near, stops=tables.stops)
    for name in ("summary", "depth", "differences", "rollouts", "coverage", "split", "stops", "strata"):
        assert len(getattr(again, name)) > 0, name
        pd.testing.assert_frame_equal(getattr(again, name), getattr(tables, name))


def test_k_is_cut_to_a_small_vocabulary():
    made = scored([rollout(0, 0, 1)], vocabulary=8)
    tables = assemble([made.pair], k=16)
    assert set(tables.states["k"]) == {8}
    known = tables.summary[tables.summary["metric"] == "overlap_ratio"]
    assert list(known["k"]) == [8]
    assert list(known["value"]) == [1.0]


def test_tables_made_by_hand_may_leave_out_coverage_and_split():
    tables = assemble((s.pair for s in a_run()), k=8)
    bare = Tables(
        tables.states, tables.rollouts, tables.summary, tables.concentration, tables.depth, tables.differences
    )
    assert bare.coverage.empty
    assert bare.split.empty
    assert list(bare.coverage.columns) == list(tables.coverage.columns)
    assert list(bare.split.columns) == list(tables.split.columns)
    assert len(tables.split) > 0
