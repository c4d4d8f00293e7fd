"""Numbers out of text logs, however damaged, cut short or full of NaN."""

import json
import math

import pytest

from opd_diag.errors import InputError
from opd_diag.runs.logged import lines

from .made_up_logs import HF_STATE, LLAMA_FACTORY, PRIME, ROLL, SWIFT, TORCHTUNE, VERL, write


def test_the_history_of_hugging_face(tmp_path):
    read = lines.trainer_state(write(tmp_path / "trainer_state.json", HF_STATE))
    assert [step for step, _ in read] == [5, 5, 10]
    assert read[1][1] == {"eval_loss": 0.75, "eval_entropy": 1.5, "epoch": 0.25, "step": 5.0}


def test_the_history_of_roll(tmp_path):
    read = lines.worker_state(write(tmp_path / "worker_state_pipeline.json", ROLL))
    assert read == [
        (0, {"system/step": 0.0, "critic/kl": 0.5, "val_correct/all/mean": 0.25}),
        (1, {"system/step": 1.0, "critic/kl": 0.25}),
    ]


def test_swift_has_its_step_in_text(tmp_path):
    read = lines.logging_lines(write(tmp_path / "logging.jsonl", SWIFT))
    assert read == [
        (5, {"loss": 0.5, "teacher_kl": 0.25, "memory(GiB)": 20.5}),
        (10, {"loss": 0.25, "teacher_kl": 0.125, "memory(GiB)": 20.5}),
    ]
    megatron = write(tmp_path / "megatron.jsonl", '{"loss": 0.5, "iteration": "3/10"}\n')
    assert lines.logging_lines(megatron) == [(3, {"loss": 0.5})]


def test_flat_lines(tmp_path):
    assert [step for step, _ in lines.flat_lines(write(tmp_path / "metrics.jsonl", PRIME))] == [1, 1, 2]
    factory = lines.flat_lines(write(tmp_path / "trainer_log.jsonl", LLAMA_FACTORY))
    assert [(step, numbers["loss"]) for step, numbers in factory] == [(10, 1.5), (20, 1.25)]


def test_verl(tmp_path):
    read = lines.verl_lines(write(tmp_path / "experiment.jsonl", VERL))
    assert [step for step, _ in read] == [0, 1, 2]
    assert read[2][1]["actor/distillation/loss"] == 0.25


def test_torchtune(tmp_path):
    first, second = lines.torchtune_lines(write(tmp_path / "log_1.txt", TORCHTUNE))
    assert first == (1, {"loss": 0.5, "class_loss": 0.75, "kd_loss": 0.25, "lr": 2e-05})
    assert math.isnan(second[1].pop("loss"))
    assert second == (2, {"class_loss": 0.5})
    as_json = write(tmp_path / "log_1.jsonl", '{"step": 1, "loss": 0.5}\n')
    assert lines.torchtune_lines(as_json) == [(1, {"step": 1.0, "loss": 0.5})]


def test_what_is_not_finite_is_undefined(tmp_path):
    text = '{"step": 1, "a": NaN, "b": Infinity, "c": -Infinity, "d": null, "e": 1e999, "f": ' + "9" * 400 + "}\n"
    [(step, numbers)] = lines.flat_lines(write(tmp_path / "metrics.jsonl", text))
    assert step == 1
    assert all(math.isnan(numbers[name]) for name in "abcdef")


def test_what_is_no_number_is_left_out(tmp_path):
    text = '{"step": 1, "a": "0.5", "b": true, "c": [1], "d": {"e": 1}, "f": 0.5}\n'
    assert lines.flat_lines(write(tmp_path / "metrics.jsonl", text)) == [(1, {"step": 1.0, "f": 0.5})]


@pytest.mark.parametrize(
    "damaged",
    [
        '{"step": 2, "a": 0.',  # half written
        "\0\0\0\0",
        "[1, 2]",
        "null",
        '{"a": 1}',
        '{"step": -1, "a": 1}',
        '{"step": 1.5, "a": 1}',
        '{"step": "2", "a": 1}',
        '{"step": true, "a": 1}',
        '{"step": NaN, "a": 1}',
        '{"step": 1e300, "a": 1}',
        '{"step": 2, "a": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"step": 2, "a": ' + "[" * 100_000,
    ],
    ids=range(14),
)
def test_damaged_lines_are_passed_over(tmp_path, damaged):
    text = '{"step": 1, "a": 0.5}\n' + damaged + '\n\n{"step": 3, "a": 0.25}\n' + damaged
    assert [(s, n["a"]) for s, n in lines.flat_lines(write(tmp_path / "metrics.jsonl", text))] == [(1, 0.5), (3, 0.25)]


def test_bytes_that_are_no_text(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"step": 1, "caf\xe9": 0.5}\r\n\xff\xfe\n{"step": 2, "\xe6\xb5\x8b": 0.25}\n')
    assert [set(numbers) for _, numbers in lines.flat_lines(file)] == [{"step", "caf�"}, {"step", "测"}]


def test_lone_surrogates_in_names_become_marks(tmp_path):
    text = '{"step": 1, "a\\ud800": 0.5, "\\ud83d\\ude00": 0.25}\n'
    [(_, numbers)] = lines.flat_lines(write(tmp_path / "metrics.jsonl", text))
    assert numbers == {"step": 1.0, "a�": 0.5, "😀": 0.25}


@pytest.mark.parametrize("history", ["{}", "[]", '{"log_history": null}', '{"log_history": [3, null, {"loss": 1}]}'])
def test_a_history_without_entries(tmp_path, history):
    assert lines.trainer_state(write(tmp_path / "trainer_state.json", history)) == []


@pytest.mark.parametrize("text", ["", json.dumps(HF_STATE)[:-30], "[" * 100_000], ids=["empty", "half", "nested"])
def test_a_history_that_is_being_written(tmp_path, text):
    file = write(tmp_path / "trainer_state.json", text)
    with pytest.raises(InputError) as caught:
        lines.trainer_state(file)
    assert str(caught.value) == (
        f"{file} is no readable JSON: it is damaged, or being written just now. Run the same command again, or leave "
        "the log out with --logs and the path of another one."
    )


def test_a_log_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError) as caught:
        lines.flat_lines(tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory. Check the file and its permissions."
