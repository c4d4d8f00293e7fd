"""Short names that tell paths apart."""

from __future__ import annotations

import pytest

from opd_diag.studies.naming import distinct_names


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
