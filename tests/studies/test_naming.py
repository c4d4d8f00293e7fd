"""Short names that tell paths apart."""

from __future__ import annotations

import re

import pytest

from opd_diag.studies.naming import distinct_names, folder_name


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["org/model"], ["model"]),
        (["/a/b/x", "/a/c/x"], ["b/x", "c/x"]),
        (["/a/b/x", "/z/b/x", "/a/b/y"], ["a/b/x", "z/b/x", "a/b/y"]),
        (["x", "y/x"], ["x", "y/x"]),
    ],
)
def test_names(paths, names):
    assert distinct_names(paths) == names


def test_folders_of_names_that_look_alike_as_folders_differ():
    names = ["a/b-c", "a-b/c", "a-b-c", "x" * 61, "x" * 62, "..", "", "né_1.5"]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[2] == "a-b-c"
    assert folders[-1] == "né_1.5"
    assert re.fullmatch("a-b-c-[0-9a-f]{8}", folders[0])
    assert not {"..", "."} & set(folders)
    assert all(0 < len(folder) <= 69 and "/" not in folder for folder in folders)
