"""A trainer's log goes through a whole report, and a wrong one is refused before any work."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import opd_diag
from opd_diag.diagnosis import plan_report
from opd_diag.errors import InputError

HISTORY = [{"step": step, "loss": 1.0 / step, "entropy": 0.5, "grad_norm": 0.25} for step in (10, 20, 30)]


def test_the_log_of_the_run_folder_stands_in_the_report(own_run, tmp_path, without_pages):
    (own_run.checkpoint(30) / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    made = opd_diag.diagnose(own_run.run_dir, out=tmp_path / "out", states=["on-policy"], beta=1.0)
    table = made.tables.logged
    assert list(table["metric"]) == ["reverse_kl", "student_entropy", "grad_norm"] * 3
    assert list(table.loc[table["metric"] == "reverse_kl", "value"]) == [1 / 10, 1 / 20, 1 / 30]
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(row["step"], row["trainer_key"]) for row in stored["logged"] if row["metric"] == "reverse_kl"] == [
        (10, "loss"),
        (20, "loss"),
        (30, "loss"),
    ]
    assert stored["provenance"]["settings"]["beta"] == 1.0
    assert "--beta 1.0" in stored["provenance"]["command"]


def test_a_log_in_another_place(own_run, tmp_path):
    log = tmp_path / "logs" / "experiment.jsonl"
    log.parent.mkdir()
    log.write_text('{"step":1,"data":{"actor/entropy":0.5}}\n{"step":2,"data":{"actor/entropy":0.2')
    planned = plan_report(own_run.run_dir, logs=str(log.parent))
    assert [(row.step, row.key, row.value, row.source) for row in planned.logged.rows] == [
        (1, "actor/entropy", 0.5, log)
    ]


def test_a_damaged_log_in_the_run_folder_is_a_note(own_run):
    file = own_run.checkpoint(30) / "trainer_state.json"
    file.write_text('{"log_history": [')
    assert (
        f"The trainer's trainer_state.json was left out: {file} is no readable JSON: it is damaged, or being written "
        "just now. Run the same command again, or leave the log out with --logs and the path of another one."
    ) in plan_report(own_run.run_dir).notes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "Expected a log file, or a folder with logs; {path} does not exist. Correct --logs."),
        ("empty", "{path} holds no log that can be read. Correct --logs, or leave it out."),
    ],
)
def test_a_wrong_log_is_refused_before_any_work(own_run, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        plan_report(own_run.run_dir, out=tmp_path / "out", logs=str(tmp_path / name))
    assert str(caught.value) == message.format(path=tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_logged_csv_is_there_without_a_log_too(tiny_run, tmp_path, without_pictures):
    made = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path, states=["on-policy"], max_prompts=2)
    assert made.tables.logged.empty
    assert list(pd.read_csv(tmp_path / "logged.csv").columns) == list(made.tables.logged.columns)
    assert "What the trainer logged" not in (tmp_path / "report.html").read_text(encoding="utf-8")
