"""A trainer's log in our names: signs turned, differences said, everything else kept as it was."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots.quantities import QUANTITIES
from opd_diag.runs.logged import LogsOfRun, logs_of_run
from opd_diag.runs.logged.reading import OVERRIDDEN
from opd_diag.tables import assemble, logged_table
from opd_diag.tables.logged import LOGGED_COLUMNS, OURS, logged_curve, spread_rows

from .made_up import a_run

RUN = Path(__file__).parents[2] / "data" / "new"


def table_of(folder, *lines, name="metrics.jsonl", beta=None):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return logged_table(logs_of_run(folder, beta=beta), folder)


def test_every_name_of_ours_is_a_quantity_of_reports():
    assert set(OURS) <= set(QUANTITIES)


def test_a_sign_is_turned_and_said(tmp_path):
    table = table_of(tmp_path, {"step": 1, "ref_kl/mean": -0.75}, {"step": 2, "ref_kl/mean": 0.5})
    assert list(table.columns) == LOGGED_COLUMNS
    assert list(table["metric"]) == ["sampled_reverse_kl"] * 2
    assert list(table["value"]) == [0.75, -0.5]
    assert list(table["trainer_key"]) == ["ref_kl/mean"] * 2
    assert set(table["source"]) == {"metrics.jsonl"}
    assert set(table["note"]) == {
        "Opposite sign: logged is log q - log p at the sampled token. A mean over responses of their own means, so "
        "that short ones count more."
    }


def test_what_means_nothing_to_us_keeps_its_name(tmp_path):
    table = table_of(tmp_path, {"step": 1, "optim/lr": 0.125, "reverse_kl": 0.5})
    assert list(table["metric"]) == ["optim/lr", "trainer/reverse_kl"], "no name of ours for what it may not be"
    assert list(table["trainer_key"]) == ["optim/lr", "reverse_kl"]
    assert list(table["value"]) == [0.125, 0.5]
    assert list(table["note"]) == ["", ""]


def test_what_looks_like_a_metric_and_is_none_says_why(tmp_path):
    (row,) = table_of(tmp_path, {"step": 1, "progress/batch": 1, "sdft/mean_teacher_entropy": 0.5}).itertuples()
    assert (row.step, row.metric, row.value) == (2, "sdft/mean_teacher_entropy", 0.5)
    assert row.note == "Of the teacher's top-k alone, renormalised."


def test_a_number_that_was_logged_twice_is_said_beside_its_definition(tmp_path):
    table = table_of(tmp_path, {"step": 1, "entropy/all/mean": 0.5}, {"step": 1, "entropy/all/mean": 0.25})
    assert list(table["value"]) == [0.25]
    assert list(table["note"]) == [f"At the temperature of sampling. {OVERRIDDEN}"]


def test_what_is_undefined_stays_so(tmp_path):
    table = table_of(tmp_path, {"step": 1, "ref_kl/mean": math.nan}, {"step": 2, "ref_kl/mean": None})
    assert table["value"].isna().all()
    assert len(table) == 2
    assert logged_curve(table, "sampled_reverse_kl").empty


def test_no_log_is_an_empty_table(tmp_path):
    table = logged_table(LogsOfRun(), tmp_path)
    assert list(table.columns) == LOGGED_COLUMNS
    assert table.empty
    assert logged_curve(table, "reverse_kl").empty
    tables = assemble([(s.scores, s.rollouts) for s in a_run()], k=4)
    assert list(tables.logged.columns) == LOGGED_COLUMNS


def test_tables_of_a_run_carry_it(tmp_path):
    logged = table_of(tmp_path, {"step": 1, "ref_kl/mean": -0.75})
    assert assemble([(s.scores, s.rollouts) for s in a_run()], k=4, logged=logged).logged is logged


def test_a_source_elsewhere_is_written_out(tmp_path):
    table_of(tmp_path / "logs", {"step": 1, "ref_kl/mean": -0.75})
    (tmp_path / "run").mkdir()
    table = logged_table(logs_of_run(tmp_path / "run", tmp_path / "logs"), tmp_path / "run")
    assert set(table["source"]) == {str(tmp_path / "logs" / "metrics.jsonl")}


def test_a_source_whose_name_is_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    table_of(folder, {"step": 1, "ref_kl/mean": -0.75})
    table = logged_table(logs_of_run(tmp_path), tmp_path)
    assert set(table["source"]) == {"caf?/metrics.jsonl"}


def test_one_curve_of_several_logs(tmp_path):
    """TensorBoard would have every step, the trainer's state every other one: the curve is the fuller of the two."""
    rows = [(step, "reverse_kl", 0.5, "loss", "trainer_state.json", "") for step in (2, 4)]
    rows += [(step, "reverse_kl", 0.25, "train/loss", "events", "") for step in (4, 1, 3)]
    table = pd.DataFrame(rows, columns=LOGGED_COLUMNS)
    assert list(logged_curve(table, "reverse_kl")["step"]) == [1, 3, 4]
    assert list(logged_curve(table.iloc[:4], "reverse_kl")["step"]) == [2, 4], "the first of two that are equally full"
    assert logged_curve(table.assign(metric="grad_norm"), "grad_norm").empty


@pytest.mark.parametrize(("n", "most", "expected"), [(3, 5, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (1000, 2, [0, 999])])
def test_rows_are_spread_evenly(n, most, expected):
    assert list(spread_rows(pd.DataFrame({"a": np.arange(n)}), most)["a"]) == expected


def test_the_log_of_a_real_run():
    """The bundled run's, which TRL's DistillationTrainer wrote: its loss is named once beta is known."""
    table = logged_table(logs_of_run(RUN, beta=1.0), RUN)
    state = json.loads((RUN / "checkpoint-160" / "trainer_state.json").read_text())
    losses = [(entry["step"], entry["loss"]) for entry in state["log_history"]]
    curve = logged_curve(table, "reverse_kl")
    assert list(zip(curve["step"], curve["value"], strict=True)) == losses
    assert len(losses) == 32
    assert {*curve["source"]} == {"checkpoint-160/trainer_state.json"}
    for ours, theirs in (
        ("student_entropy", "entropy"),
        ("response_length", "completions/mean_length"),
        ("truncation_rate", "completions/clipped_ratio"),
    ):
        assert list(logged_curve(table, ours)["value"]) == [entry[theirs] for entry in state["log_history"]]
    assert logged_curve(logged_table(logs_of_run(RUN), RUN), "reverse_kl").empty
