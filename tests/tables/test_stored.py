"""What lies in OUT_DIR says the same as what was in memory."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest

from opd_diag.errors import StoreError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import save_rollouts
from opd_diag.tables import assemble, load_tables, save_states, save_stops

from .made_up import a_run
from .test_coverage import coverage, write_all


def stored(out_dir, parts, near=None):
    tables = assemble((s.pair for s in parts), k=8, coverage=near)
    save_states(out_dir, tables.states)
    save_stops(out_dir, tables.stops)
    write_all(out_dir, tables.coverage)
    for i, part in enumerate(parts):
        about = part.scores.provenance
        slug = Checkpoint(about["student"]["label"], about["student"]["step"], out_dir, "full").slug
        if about["states"] == "on-policy":
            save_rollouts(out_dir / f"rollouts/{slug}.jsonl", part.rollouts)
        if i == 0:
            save_rollouts(out_dir / "rollouts/start.jsonl", part.rollouts)
        if about["states"] == "teacher":
            save_rollouts(out_dir / "rollouts/teacher.jsonl", part.rollouts)
    return tables


def as_json_has_it(concentration):
    """The concentration table after a trip through JSON, as a report's reader has it."""
    return pd.DataFrame(json.loads(concentration.to_json(orient="records", double_precision=15))).astype(
        {"step": "Int64"}
    )


@pytest.mark.parametrize("steps", [(10, 20, 30), (None, None), (30, 10)], ids=["steps", "labels", "unsorted"])
def test_round_trip_keeps_every_number_and_the_order(tmp_path, steps):
    labels = [f"checkpoint {i}" if step is None else f"step {step}" for i, step in enumerate(steps)]
    near = coverage(labels, [pd.NA if step is None else step for step in steps])
    tables = stored(tmp_path, a_run(steps=steps, on_teacher=True, back=True), near)
    assert set(tables.states["states"]) == {"on-policy", "start", "teacher", "back"}
    again = load_tables(tmp_path, as_json_has_it(tables.concentration))
    for name in ("states", "rollouts", "summary", "depth", "differences", "coverage", "split", "stops", "strata"):
        before, after = getattr(tables, name), getattr(again, name)
        assert len(before) > 0
        assert list(before.columns) == list(after.columns), name
        for column in before.columns:
            known = before[column].notna()
            assert (after[column].notna() == known).all(), (name, column)
            assert (after[column][known] == before[column][known]).all(), (name, column)


def test_one_file_a_checkpoint_and_state_set(tmp_path):
    stored(tmp_path, a_run(steps=(10, 20)))
    assert sorted(os.listdir(tmp_path / "states")) == [
        f"step-0000{step}.{states}.parquet" for step in (10, 20) for states in ("on-policy", "start")
    ]


def test_stops_have_files_where_they_are_looked_at(tmp_path):
    tables = stored(tmp_path, a_run(steps=(10, 20), on_teacher=True, back=True))
    assert sorted(os.listdir(tmp_path / "stops")) == [
        f"step-0000{step}.{states}.parquet" for step in (10, 20) for states in ("on-policy", "teacher")
    ]
    rows = tmp_path / "stops/step-000020.teacher.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"step-000020\.teacher\.parquet.*Run report again"):
        load_tables(tmp_path, as_json_has_it(tables.concentration))
    rows.unlink()
    with pytest.raises(StoreError, match=r"step-000020\.teacher\.parquet.*Run report again"):
        load_tables(tmp_path, as_json_has_it(tables.concentration))


def test_missing_and_damaged_files_are_named(tmp_path):
    tables = stored(tmp_path, a_run(steps=(10, 20)))
    concentration = as_json_has_it(tables.concentration)
    rows = tmp_path / "states/step-000020.start.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"step-000020\.start\.parquet.*Run report again"):
        load_tables(tmp_path, concentration)
    rows.unlink()
    with pytest.raises(StoreError, match=r"step-000020\.start\.parquet.*Run report again"):
        load_tables(tmp_path, concentration)
    for column in ("forward_kl", "gradient_squared_norm"):
        pd.read_parquet(tmp_path / "states/step-000020.on-policy.parquet").drop(columns=column).to_parquet(rows)
        with pytest.raises(StoreError, match=f"lacks {column}: another version wrote it"):
            load_tables(tmp_path, concentration)


@pytest.mark.parametrize("shared", ["start", "teacher"])
def test_missing_rollouts_are_an_error_of_the_store(tmp_path, shared):
    tables = stored(tmp_path, a_run(steps=(10, 20), on_teacher=True))
    (tmp_path / f"rollouts/{shared}.jsonl").unlink()
    with pytest.raises(StoreError, match=rf"{shared}\.jsonl.*Run report again"):
        load_tables(tmp_path, as_json_has_it(tables.concentration))


def test_a_report_without_coverage_has_none(tmp_path):
    tables = stored(tmp_path, a_run(steps=(10, 20)))
    again = load_tables(tmp_path, as_json_has_it(tables.concentration))
    pd.testing.assert_frame_equal(again.coverage, tables.coverage)
    assert again.coverage.empty
    assert "teacher_state_coverage" not in set(again.summary["metric"])
