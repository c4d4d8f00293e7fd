"""A folder is classified from its names: what is not there, what may not be read, what goes before what."""

import os
from pathlib import Path

import pytest

from opd_diag.runs.weights import classify_weights, has_tokenizer

from .folders import TENSORS, adapter, full_model, sharded_model, write
from .trainers import rank_files


def blocked(folder):
    weights = classify_weights(folder)
    assert weights is not None
    return weights.code, weights.blocker, weights.way_out


def test_a_folder_without_a_model_is_none(tmp_path):
    assert classify_weights(tmp_path) is None
    assert classify_weights(write(tmp_path, {"tokenizer.json": "{}", "optimizer.pt": b"x", "notes.txt": "x"})) is None


def test_missing_folder_and_file(tmp_path):
    folder = tmp_path / "gone"
    said = f"Expected a model folder, but {folder} does not exist."
    assert blocked(folder) == ("NO_WEIGHTS", said, "Correct the path.")
    folder.write_text("x")
    assert blocked(folder) == ("NO_WEIGHTS", f"Expected a model folder, but {folder} is a file.", "Correct the path.")


def test_an_adapter_goes_before_full_weights_and_those_before_shards_of_ranks(tmp_path):
    rank_files(tmp_path)
    write(tmp_path, {"config.json": "{}"})
    assert classify_weights(tmp_path).kind == "fsdp"
    full_model(tmp_path)
    assert classify_weights(tmp_path).kind == "full"
    adapter(tmp_path)
    assert classify_weights(tmp_path).kind == "adapter"


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    def refusing(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refusing)
    said = f"{tmp_path} cannot be read: Permission denied."
    assert blocked(tmp_path) == ("UNREADABLE", said, "Check that the file exists and that you may read it.")


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "model.safetensors.index.json"])
def test_a_text_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    adapter(tmp_path) if name.startswith("adapter") else sharded_model(tmp_path)
    opened = os.open

    def refusing(file, *args, **kwargs):
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    said = f"{tmp_path / name} cannot be read: Permission denied."
    assert blocked(tmp_path) == ("UNREADABLE", said, "Check that the file exists and that you may read it.")


def test_links_in_a_circle_and_to_nothing(tmp_path):
    full_model(tmp_path)
    file = tmp_path / "model.safetensors"
    for target, why in (
        ("model.safetensors", "Too many levels of symbolic links"),
        ("gone", "No such file or directory"),
    ):
        file.unlink()
        file.symlink_to(target)
        code, blocker, _ = blocked(tmp_path)
        assert (code, blocker) == ("UNREADABLE", f"{file} cannot be read: {why}.")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("model.safetensors", "INCOMPLETE_WEIGHTS", "model.safetensors is no regular file."),
        ("config.json", "UNREADABLE", "{}/config.json cannot be read: it is no regular file."),
    ],
)
def test_a_pipe_is_not_waited_for(tmp_path, name, code, said):
    full_model(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert blocked(tmp_path)[:2] == (code, said.format(tmp_path))


def test_links_to_weights_are_followed_as_the_hub_cache_has_them(tmp_path):
    full_model(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "snapshot" / name).symlink_to(Path("..", "blobs", name))
    assert classify_weights(tmp_path / "snapshot").blocker is None


def test_a_file_that_grows_while_it_is_looked_at_is_incomplete(tmp_path):
    full_model(tmp_path, **{"model.safetensors": TENSORS[:-9]})
    assert blocked(tmp_path)[0] == "INCOMPLETE_WEIGHTS"
    full_model(tmp_path)
    assert classify_weights(tmp_path).blocker is None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_has_tokenizer(tmp_path, name):
    assert not has_tokenizer(full_model(tmp_path))
    assert has_tokenizer(write(tmp_path, {name: "{}"}))
