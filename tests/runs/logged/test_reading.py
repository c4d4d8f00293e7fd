"""One number a row: the trainers' steps as finished updates, and the newest of two logs that overlap."""

import json
import math
from dataclasses import replace
from typing import get_args

from opd_diag.runs.logged import find_logs, read_logs
from opd_diag.runs.logged.finding import LogFormat
from opd_diag.runs.logged.reading import COUNTERS, OVERRIDDEN, READERS

from .made_up_logs import HF_STATE, PRIME, ROLL, SWIFT, TINKER, VERL, events, log, write


def told(*files):
    return [(row.step, row.key, row.value) for row in read_logs(files)]


def test_every_format_has_a_reader():
    assert set(READERS) == set(get_args(LogFormat))


def test_hugging_face(tmp_path):
    assert told(log(tmp_path / "trainer_state.json", HF_STATE, "trainer_state")) == [
        (5, "loss", 0.5),
        (5, "entropy", 1.25),
        (5, "completions/mean_length", 18.5),
        (5, "eval_loss", 0.75),
        (5, "eval_entropy", 1.5),
        (10, "loss", 0.25),
        (10, "entropy", 1.0),
        (10, "completions/mean_length", 17.5),
    ]


def test_trainers_that_count_from_0(tmp_path):
    assert told(log(tmp_path / "metrics.jsonl", TINKER, "metrics")) == [
        (0, "test/env/all/reward", 0.5),
        (1, "optim/lr", 0.0001),
        (1, "teacher_kl", 0.75),
        (1, "test/env/all/reward", 0.625),
        (2, "optim/lr", 0.0001),
        (2, "teacher_kl", 0.5),
    ]
    assert told(log(tmp_path / "worker_state_pipeline.json", ROLL, "worker_state")) == [
        (0, "val_correct/all/mean", 0.25),
        (1, "critic/kl", 0.5),
        (2, "critic/kl", 0.25),
    ]


def test_trainers_that_count_from_1(tmp_path):
    assert (1, "ref_kl/mean", -0.75) in told(log(tmp_path / "metrics.jsonl", PRIME, "metrics"))
    assert (10, "teacher_kl", 0.125) in told(log(tmp_path / "logging.jsonl", SWIFT, "logging"))
    assert told(log(tmp_path / "exp.jsonl", VERL, "verl"))[0] == (0, "val-core/gsm8k/acc/mean@1", 0.25)


def test_what_only_counts_is_no_number_of_the_log(tmp_path):
    assert not COUNTERS & {
        key for _, key, _ in told(log(tmp_path / "exp.jsonl", VERL), log(tmp_path / "metrics.jsonl", PRIME))
    }


def state(*entries):
    return {"log_history": [{"step": step, "loss": loss} for step, loss in entries]}


def test_the_newest_of_two_logs_that_overlap(tmp_path):
    """A run that was resumed from step 10: the older log goes on to 20, the newer one says other things from 15 on."""
    older = replace(
        log(tmp_path / "a/trainer_state.json", state((5, 0.5), (10, 0.4), (15, 0.3), (20, 0.2))), written=1.0
    )
    newer = replace(log(tmp_path / "b/trainer_state.json", state((5, 0.5), (10, 0.4), (15, 0.35))), written=2.0)
    rows = read_logs([older, newer])
    assert [(row.step, row.value) for row in rows] == [(5, 0.5), (10, 0.4), (15, 0.35), (20, 0.2)]
    assert [row.note for row in rows] == ["", "", OVERRIDDEN, ""]
    assert [row.source.parent.name for row in rows] == ["a", "a", "b", "a"]


def test_a_later_line_of_one_log_holds(tmp_path):
    text = "".join(json.dumps({"step": s, "a": a}) + "\n" for s, a in ((1, 0.5), (2, 0.4), (2, 0.3), (1, 0.5)))
    rows = read_logs([log(tmp_path / "metrics.jsonl", text)])
    assert [(row.step, row.value, row.note) for row in rows] == [(1, 0.5, ""), (2, 0.3, OVERRIDDEN)]


def test_undefined_twice_is_no_difference(tmp_path):
    rows = read_logs([log(tmp_path / "metrics.jsonl", '{"step": 1, "a": NaN}\n{"step": 1, "a": null}\n')])
    assert [(math.isnan(row.value), row.note) for row in rows] == [(True, "")]


def test_event_files_of_one_run_are_one_log(tmp_path):
    events(tmp_path / "runs" / "first", ("train/epoch", 5, 0.5), ("train/loss", 5, 0.5))
    events(tmp_path / "runs" / "second", ("train/loss", 10, 0.25))
    rows = read_logs(find_logs(tmp_path))
    assert [(row.step, row.key, row.value, row.trainer.name) for row in rows] == [
        (5, "train/loss", 0.5, "Hugging Face"),
        (10, "train/loss", 0.25, "Hugging Face"),
    ]


def test_logs_of_different_formats_stand_beside_each_other(tmp_path):
    write(tmp_path / "trainer_state.json", HF_STATE)
    write(tmp_path / "logging.jsonl", SWIFT)
    rows = read_logs(find_logs(tmp_path))
    assert {(row.form, row.value) for row in rows if (row.step, row.key) == (5, "loss")} == {
        ("trainer_state", 0.5),
        ("logging", 0.5),
    }


def test_no_logs():
    assert read_logs([]) == []
