"""Scalars of TensorBoard's event files, as torch writes them; cut short, damaged, or without the package."""

import json
import math

import numpy as np
import pytest

from opd_diag.errors import InputError, MissingExtra
from opd_diag.runs.logged import tensorboard

from .made_up_logs import events

SCALARS = [("train/loss", 5, 0.5), ("train/entropy", 5, 1.25), ("train/loss", 10, 0.25)]


def test_scalars_by_step_and_tag(tmp_path):
    assert tensorboard.scalars(events(tmp_path / "runs", *SCALARS)) == [
        (5, {"train/loss": 0.5}),
        (5, {"train/entropy": 1.25}),
        (10, {"train/loss": 0.25}),
    ]


def test_what_is_not_finite_is_undefined(tmp_path):
    read = tensorboard.scalars(events(tmp_path, ("a", 1, math.nan), ("a", 2, math.inf)))
    assert [step for step, _ in read] == [1, 2]
    assert all(math.isnan(numbers["a"]) for _, numbers in read)


def test_other_things_than_scalars_are_left_out(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    writer.add_text("note", "text")
    writer.add_histogram("weights", np.array([1.0, 2.0]), 1)
    writer.add_scalar("a", 0.5, 1, new_style=True)
    writer.close()
    assert tensorboard.scalars(max(tmp_path.iterdir())) == [(1, {"a": 0.5})]


def test_a_file_that_is_being_written_is_read_as_far_as_it_goes(tmp_path):
    file = events(tmp_path, *SCALARS)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    assert len(tensorboard.scalars(file)) == 2
    file.write_bytes(whole[:30])
    assert tensorboard.scalars(file) == []
    file.write_bytes(b"")
    assert tensorboard.scalars(file) == []


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path):
    file = events(tmp_path, *SCALARS)
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(b"train/entropy")] ^= 0xFF
    file.write_bytes(damaged)
    assert tensorboard.scalars(file) == [(5, {"train/loss": 0.5})]


@pytest.mark.parametrize("content", [b"no events at all, but text", bytes(range(256)) * 4])
def test_a_file_of_another_kind_has_none(tmp_path, content):
    file = tmp_path / "events.out.tfevents.1.host"
    file.write_bytes(content)
    assert tensorboard.scalars(file) == []
    assert tensorboard.arguments(file) == {}


def test_the_training_arguments_of_hugging_face(tmp_path):
    """As its own callback writes them."""
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import TensorBoardCallback

    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=0.125, report_to="none")
    state = TrainerState(is_world_process_zero=True, global_step=5)
    callback = TensorBoardCallback()
    callback.on_train_begin(arguments, state, TrainerControl())
    callback.on_log(arguments, state, TrainerControl(), logs={"loss": 0.5, "eval_loss": 0.75})
    callback.on_train_end(arguments, state, TrainerControl())
    [file] = tmp_path.glob("runs/*/events.out.tfevents.*")
    assert tensorboard.arguments(file)["learning_rate"] == 0.125
    assert tensorboard.scalars(file) == [(5, {"train/loss": 0.5}), (5, {"eval/loss": 0.75})]


@pytest.mark.parametrize("text", ["no JSON", "[1]", "[" * 100_000, json.dumps("beta")], ids=range(4))
def test_arguments_that_are_none(tmp_path, text):
    assert tensorboard.arguments(events(tmp_path, ("a", 1, 0.5), text=text)) == {}


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError) as caught:
        tensorboard.scalars(tmp_path / "events.out.tfevents.1.host")
    assert str(caught.value) == (
        f"{tmp_path / 'events.out.tfevents.1.host'} cannot be read: No such file or directory. Check the file and its "
        "permissions."
    )


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(tensorboard.importlib, "import_module", absent)
    with pytest.raises(MissingExtra) as caught:
        tensorboard.scalars(tmp_path / "events.out.tfevents.1.host")
    assert str(caught.value) == (
        "This needs tensorboard, which is not installed: run pip install 'opd-diag[tensorboard]'."
    )
