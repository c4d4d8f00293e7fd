"""A safetensors file is whole exactly when its header accounts for every byte."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from opd_diag.runs.integrity import HEADER_LIMIT, file_damage

from .folders import TENSORS


def damage(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    return file_damage(file)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        save({}),
        save({"empty": np.zeros((0, 3), np.float32)}),
        save({"a": np.ones(5, np.float16)}, metadata={"format": "pt"}),
    ],
    ids=["two tensors", "no tensor", "empty tensor", "metadata"],
)
def test_files_that_safetensors_itself_writes_are_whole(tmp_path, content):
    assert damage(tmp_path, content) is None


def test_a_cut_anywhere_in_the_file_is_seen(tmp_path):
    for length in range(len(TENSORS)):
        assert "is truncated: expected" in damage(tmp_path, TENSORS[:length]), length


def test_the_message_names_both_sizes_once_the_header_is_whole(tmp_path):
    assert damage(tmp_path, TENSORS[:-3]) == f"is truncated: expected {len(TENSORS)} bytes, found {len(TENSORS) - 3}"


def test_bytes_too_many_are_damage_too(tmp_path):
    assert damage(tmp_path, TENSORS + b"x") == f"is damaged: expected {len(TENSORS)} bytes, found {len(TENSORS) + 1}"


@pytest.mark.parametrize("length", [0, 1, HEADER_LIMIT + 1, 2**63, 2**64 - 1])
def test_an_absurd_header_length_is_refused_without_reading_it(tmp_path, length):
    expected = f"is damaged: no safetensors header (it would be {length} bytes long)"
    assert damage(tmp_path, length.to_bytes(8, "little") + bytes(40)) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"\xff\xfe\xff",
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": {"data_offsets": [0]}}',
        b'{"a": {"data_offsets": "xy"}}',
        b'{"a": {"dtype": "F32"}}',
        b"[" * 100_000,
    ],
)
def test_a_header_that_is_no_table_of_tensors_is_damage(tmp_path, header):
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    assert damage(tmp_path, content) == "is damaged: its header is no table of tensors"


def test_only_the_largest_end_counts(tmp_path):
    header = json.dumps({"b": {"data_offsets": [4, 12]}, "a": {"data_offsets": [0, 4]}}).encode()
    assert damage(tmp_path, len(header).to_bytes(8, "little") + header + bytes(12)) is None


def test_a_git_lfs_pointer_is_called_by_its_name(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    assert damage(tmp_path, pointer) == "is a Git LFS pointer, not the weights themselves"
