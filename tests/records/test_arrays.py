"""Arrays in a file: to the bit, whole or not at all, mapped, and nothing of a damaged file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opd_diag.errors import StoreError
from opd_diag.records import arrays as module
from opd_diag.records.arrays import load_arrays, load_described, save_arrays, scratch

KINDS = (
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)


@pytest.fixture
def some():
    random = np.random.default_rng(0)
    named = {kind: (100 * random.random((7, 3))).astype(kind) for kind in KINDS}
    return named | {"none": np.empty((0, 4), dtype=np.float32), "view": np.arange(20.0)[::2], "one": np.array(2.5)}


def same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert second[name].dtype == array.dtype
        np.testing.assert_array_equal(second[name], array, err_msg=name, strict=True)


def test_come_back_to_the_bit(tmp_path, some):
    some["float32"][0] = [np.nan, np.inf, -np.inf]
    save_arrays(tmp_path / "a.safetensors", some, {"what": "Ω", "n": 3})
    arrays, about = load_described(tmp_path / "a.safetensors")
    same(some, arrays)
    assert about == {"what": "Ω", "n": 3}


def test_the_library_of_the_format_reads_and_writes_the_same(tmp_path, some):
    save_arrays(tmp_path / "ours.safetensors", some)
    same(some, load_file(tmp_path / "ours.safetensors"))
    plain = {name: np.ascontiguousarray(array) for name, array in some.items()}
    save_file(plain, tmp_path / "theirs.safetensors")
    same(plain, load_arrays(tmp_path / "theirs.safetensors"))


def test_equal_arrays_are_equal_files(tmp_path, some):
    for name in ("a", "b"):
        save_arrays(tmp_path / name, dict(some), {"b": 1, "a": 2} if name == "a" else {"a": 2, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_written_to_what_was_read_does_not_reach_the_file(tmp_path):
    save_arrays(tmp_path / "a", {"x": np.zeros(5)})
    before = (tmp_path / "a").read_bytes()
    load_arrays(tmp_path / "a")["x"][:] = 1.0
    assert (tmp_path / "a").read_bytes() == before


def test_reading_maps_and_does_not_load(tmp_path):
    save_arrays(tmp_path / "a", {"x": np.zeros(40_000_000, dtype=np.uint8), "y": np.arange(4)})
    code = (
        "import sys; from pathlib import Path; from opd_diag.records.arrays import load_arrays\n"
        "kinds = ('RssAnon', 'RssFile')\n"
        "held = lambda: sum(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(kinds))\n"
        "before = held(); arrays = load_arrays(Path(sys.argv[1])); assert arrays['y'].sum() == 6\n"
        "print(held() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # kB, of 40,000


@pytest.mark.parametrize("harm", ["cut", "empty", "no header", "long header", "gone", "pickle"])
def test_a_damaged_file_is_one_sentence(tmp_path, some, harm):
    path = tmp_path / "a.safetensors"
    save_arrays(path, some)
    good = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        harmed = {"cut": good[:-9], "empty": b"", "no header": b"\0" * 8, "long header": b"\xff" * 8 + good[8:]}
        path.write_bytes(harmed.get(harm, b"\x80\x04}."))
    with pytest.raises(StoreError) as caught:
        load_arrays(path)
    assert str(caught.value).startswith(f"{path} is no readable file of arrays: ")
    assert str(caught.value).endswith(". Delete it and run report again.")


def test_a_type_that_is_not_ours_is_refused(tmp_path):
    header = b'{"x":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(StoreError, match="BF16"):
        load_arrays(tmp_path / "a")


class TestScratch:
    def test_small_ones_are_memory_and_large_ones_a_file_that_is_gone(self, monkeypatch, tmp_path):
        monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
        small, large = scratch((3, 4), np.float32), scratch((module.IN_MEMORY // 8 + 1,), np.float64)
        assert (small.shape, small.dtype, large.dtype) == ((3, 4), np.float32, np.float64)
        assert isinstance(large.base, np.memmap)
        assert not isinstance(small.base, np.memmap)
        large[:] = np.arange(len(large))
        assert large.sum() == len(large) * (len(large) - 1) / 2
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be claimed here")
    def test_a_full_disk_is_one_sentence(self, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(module.os, "posix_fallocate", full)
        with pytest.raises(StoreError, match=r"^Cannot write .*: No space left on device\. Free some space"):
            scratch((module.IN_MEMORY + 1,), np.uint8)
