"""Rows on which of the teacher's states are covered: their types, their files, and what a summary makes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from student_intervals import within

from opd_diag.errors import StoreError
from opd_diag.tables import assemble, difference_table, save_coverage
from opd_diag.tables.coverage import COVERAGE_COLUMNS, coverage_rows, load_coverage, slug_of

from .made_up import a_run, naive_mean
from .test_summary import naive_difference, numbers, one

NAN = float("nan")


def coverage(labels=("step 10", "step 20"), steps=(10, 20), prompts=6, dtype=float):
    """Six states a prompt and checkpoint; the share that is covered falls, and some are undefined."""
    rng, tables = np.random.default_rng(0), []
    for i, (label, step) in enumerate(zip(labels, steps, strict=True)):
        n = 6 * prompts
        values = (rng.random(n) < 0.9 - 0.5 * (i % 2)).astype(dtype)
        if dtype is float:
            values[3 + i :: 11] = NAN
        table = pd.DataFrame({"prompt_index": np.repeat(np.arange(prompts), 6), "rollout_index": np.arange(n) % 2})
        table = table.assign(position=np.arange(n) % 3, label=label, teacher="big", is_covered=values)
        tables.append(table.assign(step=step, prompt_id=[f"p{p}" for p in table["prompt_index"]]))
    return pd.concat(tables, ignore_index=True).astype({"step": "Int64"})


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run(on_teacher=True)), k=8, coverage=coverage())


def test_columns_and_types():
    for table in (coverage_rows(None), coverage_rows(coverage())):
        assert list(table.columns) == COVERAGE_COLUMNS
        assert table["step"].dtype == "Int64"
        assert table["is_covered"].dtype == "boolean"
    assert coverage_rows(None).empty
    known = coverage()["is_covered"]
    assert list(coverage_rows(coverage())["is_covered"].isna()) == list(known.isna())
    assert list(coverage_rows(coverage(dtype=bool))["is_covered"]) == list(coverage(dtype=bool)["is_covered"])


def test_summary_is_the_mean_over_the_teachers_states(tables):
    of = coverage()
    rows = tables.summary[tables.summary["metric"] == "teacher_state_coverage"]
    assert list(zip(rows["label"], rows["states"], strict=True)) == [("step 10", "on-policy"), ("step 20", "on-policy")]
    assert set(rows["aggregation"]) == {"state mean"}
    for label in ("step 10", "step 20"):
        near, row = of[of["label"] == label], one(rows, label=label)
        assert numbers(row) == pytest.approx(within(naive_mean(near["is_covered"], near["prompt_index"])))
        known = near[near["is_covered"].notna()]
        assert (row["n_states"], row["n_undefined"]) == (len(known), len(near) - len(known))
        assert row["n_rollouts"] == known.groupby(["prompt_index", "rollout_index"]).ngroups
        assert row["n_prompts"] == 6
        assert row["n_undefined"] > 0


def test_differences_are_paired_by_prompt(tables):
    of = coverage()
    first, second = (of[of["label"] == label] for label in ("step 10", "step 20"))
    row = one(tables.differences, metric="teacher_state_coverage")
    assert row["states"] == "on-policy"
    assert numbers(row) == pytest.approx(
        naive_difference(first["is_covered"], first["prompt_index"], second["is_covered"], second["prompt_index"])
    )
    assert row["value"] < -0.2
    back = difference_table(tables.states, tables.rollouts, [("step 20", "step 10")], tables.coverage)
    assert one(back, metric="teacher_state_coverage")["value"] == pytest.approx(-row["value"])


def test_undefined_everywhere_is_nan_and_counted():
    nowhere = coverage().assign(is_covered=NAN)
    tables = assemble((s.pair for s in a_run()), k=8, coverage=nowhere)
    row = one(tables.summary, metric="teacher_state_coverage", label="step 10")
    assert np.isnan(numbers(row)).all()
    assert (row["n_states"], row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (0, 0, 0, 36)
    assert np.isnan(one(tables.differences, metric="teacher_state_coverage")["value"])


def write_all(out_dir, table):
    """Write the rows of each checkpoint to the file of its name, as a replay does."""
    for label, group in table.groupby("label", sort=False):
        save_coverage(out_dir / "coverage" / f"{slug_of(label, group)}.parquet", group)


def test_not_looked_at_has_no_rows():
    tables = assemble((s.pair for s in a_run()), k=8)
    assert "teacher_state_coverage" not in set(tables.summary["metric"]) | set(tables.differences["metric"])
    assert list(tables.coverage.columns) == COVERAGE_COLUMNS
    half = assemble((s.pair for s in a_run()), k=8, coverage=coverage(labels=["step 20"], steps=[20]))
    assert set(half.summary[half.summary["metric"] == "teacher_state_coverage"]["label"]) == {"step 20"}
    assert "teacher_state_coverage" not in set(half.differences["metric"])


@pytest.mark.parametrize("steps", [(10, 20), (20, 10), (None, None)], ids=["steps", "unsorted", "labels"])
def test_round_trip(tmp_path, steps):
    labels = ["b/1", "a"] if steps[0] is None else [f"step {s}" for s in steps]
    table = coverage_rows(coverage(labels=labels, steps=[pd.NA if s is None else s for s in steps]))
    write_all(tmp_path, table)
    assert len(list((tmp_path / "coverage").iterdir())) == 2
    checkpoints = table[["label", "step"]].drop_duplicates()
    pd.testing.assert_frame_equal(load_coverage(tmp_path, checkpoints), table)
    missing = pd.DataFrame({"label": ["step 99"], "step": [99]}).astype({"step": "Int64"})
    assert load_coverage(tmp_path, missing).empty
    assert len(load_coverage(tmp_path, pd.concat([checkpoints, missing]))) == len(table)


def test_without_a_folder_it_is_empty(tmp_path):
    found = load_coverage(tmp_path, coverage()[["label", "step"]])
    assert found.empty
    assert list(found.columns) == COVERAGE_COLUMNS


def test_damage_is_named(tmp_path):
    write_all(tmp_path, coverage())
    file = tmp_path / "coverage/step-000010.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:60])
    with pytest.raises(StoreError, match=r"step-000010\.parquet is no readable coverage table.*Run report again"):
        load_coverage(tmp_path, coverage()[["label", "step"]])
    coverage().drop(columns="is_covered").to_parquet(file)
    with pytest.raises(StoreError, match=r"is_covered.*Run report again"):
        load_coverage(tmp_path, coverage()[["label", "step"]])
