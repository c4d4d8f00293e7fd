"""Digests of a file are those of its bytes, tensor by tensor; a file that moves under the reader is refused."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save

from opd_diag.errors import CheckpointError
from opd_diag.runs import contents
from opd_diag.runs.contents import Stamp, Stopped, pieces, read_content, refuse_changed

ARRAYS = {
    "weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "bias": np.zeros(7, np.float16),
    "empty": np.zeros((0, 4), np.float32),
    "count": np.array(3, np.int64),
}


def written(folder, data, name="model.safetensors"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("piece", [1, 7, 2**22])
def test_every_tensor_has_the_digest_of_its_bytes(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(contents, "PIECE", piece)
    file = written(tmp_path, save(ARRAYS))
    found = read_content(file)
    assert set(found.tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        tensor = found.tensors[name]
        assert (tensor.shape, tensor.size) == (array.shape, array.nbytes)
        assert tensor.digest == hashlib.sha256(array.tobytes()).hexdigest()
        assert file.read_bytes()[tensor.start :][: tensor.size] == array.tobytes()
    assert {name: tensor.dtype for name, tensor in found.tensors.items()} == {
        "weight": "F32", "bias": "F16", "empty": "F32", "count": "I64"
    }  # fmt: skip
    assert found.stamp == Stamp.of(file)


def test_any_other_file_has_the_digest_of_all_of_it(tmp_path):
    file = written(tmp_path, b"{}", "config.json")
    assert (read_content(file).digest, read_content(file).tensors) == (hashlib.sha256(b"{}").hexdigest(), {})


def header(table, data=b""):
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        save(ARRAYS)[:-1],
        save(ARRAYS) + b" ",
        header([]),
        header({"a": 1}),
        header({"a": ENTRY | {"data_offsets": [4, 0]}}, b"1234"),
        header({"a": ENTRY | {"data_offsets": [1, 4]}}, b"1234"),
        header({"a": ENTRY, "b": ENTRY}, b"1234"),
        b"\x05" + bytes(7) + b"{nope",
    ],
    ids=["empty", "short", "cut", "longer", "list", "number", "backwards", "a hole", "overlap", "no JSON"],
)
def test_what_is_no_whole_safetensors_is_bytes(tmp_path, data):
    found = read_content(written(tmp_path, data))
    assert (found.digest, found.tensors) == (hashlib.sha256(data).hexdigest(), {})


def test_reading_stops_when_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "PIECE", 100)
    asked = []
    with pytest.raises(Stopped):
        read_content(written(tmp_path, save(ARRAYS)), lambda: asked.append(1) or len(asked) == 3)
    assert len(asked) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("harm", ["cut", "longer", "gone", "touched"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, name, harm):
    monkeypatch.setattr(contents, "PIECE", 100)
    file = written(tmp_path, save({"a": np.zeros(10_000, np.float32)}), name)
    how = {
        "cut": ("it ends ", lambda: os.truncate(file, 1000)),
        "longer": ("from 40,", lambda: os.truncate(file, 50_000)),
        "gone": ("it is gone (No such file or directory)", file.unlink),
        "touched": ("written anew, with equally many bytes", lambda: os.utime(file, ns=(1, 1))),
    }
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 2:
            how[harm][1]()
        return False

    with pytest.raises(CheckpointError) as caught:
        read_content(file, stop)
    assert str(caught.value).startswith(f"{file} changed while it was read: {how[harm][0]}")


def test_links_and_permissions_are_no_change(tmp_path):
    file = written(tmp_path, b"1234")
    stamp = Stamp.of(file)
    os.link(file, tmp_path / "link")
    file.chmod(0o600)
    refuse_changed(file, stamp)
    assert Stamp.of(file) != stamp


def test_pieces_are_read_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "PIECE", 3)
    with written(tmp_path, b"abcdefg").open("rb") as handle:
        assert [bytes(piece) for piece in pieces(handle, 7)] == [b"abc", b"def", b"g"]
        handle.seek(2)
        with pytest.raises(CheckpointError, match="it ends 3 bytes early"):
            list(pieces(handle, 6))
