"""All that a trainer logged, for a report: nothing in the run folder stops it, a log that was named must be right."""

import json

import pytest

from opd_diag.errors import InputError, MissingExtra
from opd_diag.runs.logged import LogsOfRun, logs_of_run, tensorboard

from .made_up_logs import HF_STATE, PRIME, events, write

ARGUMENTS = json.dumps({"beta": 1.0, "teacher_model_name_or_path": "t"})


@pytest.fixture
def no_tensorboard(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(tensorboard.importlib, "import_module", absent)


def test_a_folder_without_logs(tmp_path):
    assert logs_of_run(tmp_path) == LogsOfRun((), {}, ())


def test_logs_of_the_run_folder(tmp_path):
    write(tmp_path / "checkpoint-10" / "trainer_state.json", HF_STATE)
    found = logs_of_run(tmp_path)
    assert (len(found.rows), found.options, found.notes) == (8, {}, ())


@pytest.mark.parametrize("named", ["logs", "logs/metrics.jsonl"])
def test_a_named_log_is_taken_in_their_place(tmp_path, named):
    write(tmp_path / "run" / "checkpoint-10" / "trainer_state.json", HF_STATE)
    write(tmp_path / "logs" / "metrics.jsonl", PRIME)
    found = logs_of_run(tmp_path / "run", tmp_path / named)
    assert {row.form for row in found.rows} == {"metrics"}


def test_beta_comes_from_the_arguments_that_tensorboard_has_or_from_the_user(tmp_path):
    assert logs_of_run(tmp_path, beta=0.5).options == {"beta": 0.5}
    events(tmp_path / "runs", ("train/loss", 1, 0.5), text=ARGUMENTS)
    assert logs_of_run(tmp_path).options == {"beta": 1.0}
    assert logs_of_run(tmp_path, beta=0.5).options == {"beta": 0.5}


def test_what_cannot_be_read_in_the_run_folder_is_noted(tmp_path):
    file = write(tmp_path / "checkpoint-10" / "trainer_state.json", "{")
    write(tmp_path / "metrics.jsonl", PRIME)
    found = logs_of_run(tmp_path)
    assert {row.form for row in found.rows} == {"metrics"}
    assert found.notes == (
        f"The trainer's trainer_state.json was left out: {file} is no readable JSON: it is damaged, or being written "
        "just now. Run the same command again, or leave the log out with --logs and the path of another one.",
    )


def test_event_files_without_the_package_are_noted_once(tmp_path, no_tensorboard):
    for name in ("first", "second"):
        write(tmp_path / "runs" / name / "events.out.tfevents.1.host.1.0", "")
    write(tmp_path / "trainer_state.json", HF_STATE)
    found = logs_of_run(tmp_path)
    assert len(found.rows) == 8
    assert found.notes == (
        "The trainer's events.out.tfevents.1.host.1.0 was left out: This needs tensorboard, which is not installed: "
        "run pip install 'opd-diag[tensorboard]'.",
    )


def test_event_files_that_were_named_need_the_package(tmp_path, no_tensorboard):
    write(tmp_path / "runs" / "events.out.tfevents.1.host.1.0", "")
    with pytest.raises(MissingExtra):
        logs_of_run(tmp_path, tmp_path / "runs")


def test_a_named_folder_without_logs(tmp_path):
    with pytest.raises(InputError) as caught:
        logs_of_run(tmp_path, tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no log that can be read. Correct --logs, or leave it out."


def test_logs_that_differ_are_noted(tmp_path):
    def lines(*steps, value):
        return "".join(json.dumps({"step": step, "a": value}) + "\n" for step in steps)

    write(tmp_path / "metrics.jsonl", lines(1, 2, 3, value=0.5) + lines(3, value=0.25))
    assert logs_of_run(tmp_path).notes == ("At step 3 the trainer's logs differ; the newest one was taken.",)
    write(tmp_path / "metrics.jsonl", lines(1, 2, 3, value=0.5) + lines(2, 3, value=0.25))
    assert logs_of_run(tmp_path).notes == ("At 2 steps, 2 to 3, the trainer's logs differ; the newest one was taken.",)
