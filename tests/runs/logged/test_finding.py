"""Which logs a run folder has, told by names; links, other runs and folders that cannot be read."""

import os
from pathlib import Path

import pytest

from opd_diag.errors import InputError
from opd_diag.runs.logged.finding import DEEPEST, MOST_FOLDERS, find_logs, log_file_at

from .made_up_logs import HF_STATE, PRIME, ROLL, SWIFT, TORCHTUNE, VERL, write


def names(run_dir: Path) -> set[tuple[str, str]]:
    return {(file.format, file.path.relative_to(run_dir).as_posix()) for file in find_logs(run_dir)}


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("trainer_state.json", HF_STATE, "trainer_state"),
        ("logging.jsonl", SWIFT, "logging"),
        ("trainer_log.jsonl", "", "trainer_log"),
        ("metrics.jsonl", PRIME, "metrics"),
        ("project/experiment-7.jsonl", VERL, "verl"),
        ("pipeline/checkpoint-20/pipeline/worker_state_pipeline.json", ROLL, "worker_state"),
        ("runs/Aug22_host/events.out.tfevents.1755000000.host.12.0", "", "tensorboard"),
        ("tensorboard_log/project/experiment/events.out.tfevents.1755000000.host.12.0", "", "tensorboard"),
        ("logs/log_1755000000.txt", TORCHTUNE, "torchtune"),
        ("logs/log_1755000000.jsonl", '{"step": 1, "loss": 0.5}\n', "torchtune"),
    ],
)
def test_every_format_by_its_name(tmp_path, name, content, form):
    write(tmp_path / name, content)
    assert names(tmp_path) == {(form, name)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("40.jsonl", VERL),  # rollouts of verl
        ("completions.jsonl", '{"step": ["1"], "prompt": ["p"]}\n'),
        ("notes.jsonl", '{"data": {}, "step": 1}\n'),
        ("empty.jsonl", ""),
        ("log.txt", TORCHTUNE),
        ("worker_state_actor.json", ROLL),
        ("events.out.tfevents.1755000000.host.profile-empty", ""),
        ("rollouts/project.jsonl", VERL),
        (".cache/metrics.jsonl", PRIME),
    ],
)
def test_what_is_no_log_is_passed_over(tmp_path, name, content):
    write(tmp_path / name, content)
    assert names(tmp_path) == set()


def test_of_checkpoints_the_highest_and_the_newest_tell(tmp_path):
    for step in (20, 100, 40):
        write(tmp_path / f"checkpoint-{step}" / "trainer_state.json", HF_STATE)
        os.utime(tmp_path / f"checkpoint-{step}" / "trainer_state.json", (step, 1000 if step == 40 else step))
    (tmp_path / "checkpoint-300").mkdir()  # being written
    found = find_logs(tmp_path)
    assert [file.path.parent.name for file in found] == ["checkpoint-100", "checkpoint-40"]
    assert [file.written for file in found] == [100.0, 1000.0]


def test_the_oldest_comes_first_and_tensorboard_counts_from_its_name(tmp_path):
    for begun in (300, 100, 200):
        file = write(tmp_path / "runs" / f"events.out.tfevents.{begun}.host.1.0", "")
        os.utime(file, (1, 1000 - begun))
    assert [file.written for file in find_logs(tmp_path)] == [100.0, 200.0, 300.0]


def test_other_runs_inside_are_left_out(tmp_path):
    write(tmp_path / "checkpoint-20" / "trainer_state.json", HF_STATE)
    write(tmp_path / "ablation" / "checkpoint-20" / "trainer_state.json", HF_STATE)
    write(tmp_path / "ablation" / "logging.jsonl", SWIFT)
    assert names(tmp_path) == {("trainer_state", "checkpoint-20/trainer_state.json")}


def test_logs_of_a_run_one_folder_down_are_found_where_the_folder_itself_is_no_run(tmp_path):
    write(tmp_path / "v0-20260822-101010" / "checkpoint-20" / "trainer_state.json", HF_STATE)
    write(tmp_path / "v0-20260822-101010" / "logging.jsonl", SWIFT)
    assert {form for form, _ in names(tmp_path)} == {"trainer_state", "logging"}


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere" / "metrics.jsonl", PRIME)
    run = tmp_path / "run"
    run.mkdir()
    (run / "logs").symlink_to(tmp_path / "elsewhere")
    (run / "again").symlink_to(tmp_path / "elsewhere")
    (run / "loop").symlink_to(run)
    (run / "self").symlink_to("self")
    (run / "gone").symlink_to("nothing")
    assert len(find_logs(run)) == 1


def test_only_regular_files_are_logs(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    os.mkfifo(tmp_path / "experiment-7.jsonl")  # which would be opened to look at its first line
    write(tmp_path / "logging.jsonl", SWIFT)
    assert names(tmp_path) == {("logging", "logging.jsonl")}


def test_depth_is_bounded(tmp_path):
    deepest = tmp_path.joinpath(*["d"] * DEEPEST)
    write(deepest / "metrics.jsonl", PRIME)
    write(deepest / "d" / "logging.jsonl", SWIFT)
    assert {form for form, _ in names(tmp_path)} == {"metrics"}


def test_the_number_of_folders_is_bounded_and_what_is_near_comes_first(tmp_path):
    for i in range(MOST_FOLDERS):
        (tmp_path / f"e{i:05d}").mkdir()
    write(tmp_path / "e00000" / "metrics.jsonl", PRIME)
    write(tmp_path / "e00000" / "deeper" / "logging.jsonl", SWIFT)
    assert {form for form, _ in names(tmp_path)} == {"metrics"}


def test_five_hundred_checkpoints_cost_one_look_each(tmp_path, monkeypatch):
    for step in range(500):
        write(tmp_path / f"checkpoint-{step}" / "trainer_state.json", HF_STATE)
    calls = []
    stat, scan = os.stat, os.scandir
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: (calls.append("stat"), stat(*args, **kwargs))[1])
    monkeypatch.setattr(os, "scandir", lambda *args: (calls.append("scandir"), scan(*args))[1])
    assert find_logs(tmp_path)[-1].path.parent.name == "checkpoint-499"
    assert calls.count("scandir") == 1
    assert calls.count("stat") <= 505


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError) as caught:
        find_logs(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} cannot be read: No such file or directory. Check its permissions."
    )


def test_a_file_that_is_no_log(tmp_path):
    with pytest.raises(InputError) as caught:
        log_file_at(write(tmp_path / "train.log", "loss 0.5"))
    assert str(caught.value) == (
        f"{tmp_path / 'train.log'} is no log that can be read. Expected trainer_state.json, logging.jsonl, "
        "trainer_log.jsonl, metrics.jsonl, JSON lines with 'step' and 'data', worker_state_pipeline.json, "
        "TensorBoard's events.out.tfevents.* or torchtune's log_*.txt, or the folder of one. Correct --logs."
    )


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError) as caught:
        log_file_at(tmp_path / "metrics.jsonl")
    assert str(caught.value) == (
        f"Expected a log file, or a folder with logs; {tmp_path / 'metrics.jsonl'} does not exist. Correct --logs."
    )
