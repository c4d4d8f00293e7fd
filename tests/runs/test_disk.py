"""The disk is asked once for each thing, and nothing but a regular file is opened."""

import os
import sys

import pytest

from opd_diag.runs.disk import Disk, Entry

from .folders import write


def test_entries_tell_folders_files_and_links(tmp_path):
    write(tmp_path / "folder", {})
    write(tmp_path, {"file": ""})
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("gone")
    assert Disk().entries(tmp_path) == {
        "folder": Entry(True, False),
        "file": Entry(False, False),
        "to-folder": Entry(True, True),
        "circle": Entry(False, True),
        "nowhere": Entry(False, True),
    }
    assert Disk().folders(tmp_path) == ["folder", "to-folder"]


def test_a_folder_that_cannot_be_listed_has_no_names_and_is_not_empty(tmp_path):
    disk, gone = Disk(), tmp_path / "gone"
    assert (disk.names(gone), disk.folders(gone), disk.is_empty(gone)) == (frozenset(), [], False)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            disk.entries(gone)
    assert disk.is_empty(tmp_path)


def test_nothing_is_asked_twice(tmp_path):
    write(tmp_path, {"a.json": '{"b": 1}'})
    asked = []

    def heard(event, args):
        if counting and event in ("os.scandir", "open") and str(args[0]).startswith(str(tmp_path)):
            asked.append(event)

    sys.addaudithook(heard)
    disk, counting = Disk(), True
    for _ in range(3):
        assert disk.names(tmp_path) == {"a.json"}
        assert disk.json_object(tmp_path / "a.json") == ({"b": 1}, None)
        assert disk.stat(tmp_path / "a.json").st_size == 8
    counting = False
    assert sorted(asked) == ["open", "os.scandir"]


def test_what_a_listing_lacks_is_not_asked_for(tmp_path):
    write(tmp_path / "a", {"b": ""})
    asked = []
    sys.addaudithook(lambda event, args: asked.append(args[0]) if event == "os.scandir" and counting else None)
    disk, counting = Disk(), True
    assert disk.names(tmp_path) == {"a"}
    assert disk.names(tmp_path / "gone") == frozenset()
    assert disk.names(tmp_path / "a" / "..") == {"a"}
    counting = False
    assert list(map(str, asked)) == [str(tmp_path), str(tmp_path / "a" / "..")]


def test_what_it_saw_first_stays_so_while_something_writes(tmp_path):
    disk = Disk()
    assert disk.names(tmp_path) == frozenset()
    write(tmp_path, {"new": ""})
    assert disk.names(tmp_path) == frozenset()


def test_text_is_cut_at_the_limit_even_inside_a_letter(tmp_path):
    write(tmp_path, {"a": "aä", "b": b"\xff"})
    assert Disk().text(tmp_path / "a", 2) == "a"
    assert Disk().text(tmp_path / "a", 3) == "aä"
    with pytest.raises(ValueError, match="utf-8"):
        Disk().text(tmp_path / "b")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="no regular file") as caught:
            Disk().text(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("40", 40),
        ("40\n", 40),
        (" 7 ", 7),
        ("0", 0),
        ("-1", None),
        ("release", None),
        ("4 0", None),
        ("", None),
        ("٣", None),
    ],
)
def test_number(tmp_path, text, number):
    assert Disk().number(tmp_path / "gone") is None
    assert Disk().number(write(tmp_path, {"n": text}) / "n") == number
