"""A file of ours is the old one or the new one, never half of either."""

import os
import stat
import subprocess
import sys

import pytest

from opd_diag.errors import StoreError
from opd_diag.records.files import LEFTOVER, checksum, content_key, replaced_whole, write_json, write_text


def test_the_new_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "new" / "folder" / "a.txt"
    for text in ("old", "new ü"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert os.listdir(file.parent) == ["a.txt"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def broken_write():
        with replaced_whole(file) as part:
            part.write_text("half of the n")
            assert part.parent == tmp_path
            raise error

    with pytest.raises(error):
        broken_write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["tempfile.mkstemp", "os.replace", "pathlib.Path.mkdir", "pathlib.Path.write_text"])
def test_a_full_disk_is_one_sentence_with_the_way_out(tmp_path, monkeypatch, where):
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(where, full_disk)
        with pytest.raises(StoreError) as caught:
            write_text(file, "new")
    assert str(caught.value) == (
        f"Cannot write {file}: No space left on device. Free some space and run the same command again: what was "
        "finished is kept."
    )
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(StoreError, match=r"Cannot write .*a\.txt: File exists\. Choose another folder with --out\."):
        write_text(tmp_path / "out" / "a.txt", "new")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StoreError, match=r"Cannot write .*a\.txt: Is a directory\. Choose another folder with --out\."):
        write_text(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_who_writes_elsewhere_is_told_another_way_out(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StoreError, match=r"Is a directory\. Use another name\.$"):
        write_text(tmp_path / "a.txt", "new", "Use another name.")


def limited(size, call):
    """Run `call` in a process whose files may not grow past `size` bytes; give what it printed."""
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "import pathlib, sys\n"
        "import numpy as np, pandas as pd\n"
        "from opd_diag.errors import StoreError\n"
        "from opd_diag.records.files import *\n"
        "from opd_diag.records.arrays import save_arrays\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        f"    {call}\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    return lambda path: subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    ).stdout.strip()


CALLS = {
    "text": "write_text(path, 'x' * 99_999)",
    "arrays": "save_arrays(path, {'a': np.arange(99_999.0)})",
    "parquet": "with replaced_whole(path) as part: pd.DataFrame({'a': np.arange(99_999.0)}).to_parquet(part)",
    "csv": "with replaced_whole(path) as part: pd.DataFrame({'a': np.arange(99_999.0)}).to_csv(part)",
}


@pytest.mark.parametrize("name", CALLS)
def test_every_kind_of_file_that_the_system_refuses_is_one_sentence(tmp_path, name):
    """A real failure of the kernel, in whatever form the library at hand passes it on."""
    file = tmp_path / "a"
    file.write_text("old")
    said = limited(4096, CALLS[name])(file)
    assert said == f"Cannot write {file}: File too large. Choose another folder with --out."
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", CALLS)
def test_a_disk_that_is_really_full(small_disk, name):
    file = small_disk / "a"
    file.write_text("old")
    said = limited(2**40, CALLS[name].replace("99_999", "9_999_999"))(file)
    assert said.startswith(f"Cannot write {file}: No space left on device. Free some space and run the same command")
    assert file.read_text() == "old"
    assert os.listdir(small_disk) == ["a"]


def test_a_leftover_is_recognised_by_its_name(tmp_path):
    with replaced_whole(tmp_path / "a.txt") as part:
        assert [p.name for p in tmp_path.glob(LEFTOVER)] == [part.name]
        part.write_text("")
    assert not list(tmp_path.glob(LEFTOVER))


def test_the_checksum_follows_every_bit(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abb")
    assert checksum(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checksum(tmp_path / "b") != checksum(tmp_path / "a")


def test_half_characters_do_not_stop_a_write(tmp_path):
    write_text(tmp_path / "a.txt", "x\udce9y")
    assert (tmp_path / "a.txt").read_text() == "x?y"


def test_json_is_readable_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": [\n  1,\n  null\n ],\n "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert '"ü"' in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_content_key_follows_content_not_order():
    keys = [content_key(data) for data in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}, {"a": 1}, "\ud800")]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert all(len(key) == 64 for key in keys)
