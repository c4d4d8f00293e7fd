"""A checkpoint's file name is safe and orders as its step does."""

from pathlib import Path

import pytest

from opd_diag.records.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("label", "step", "slug"),
    [
        ("step 0", 0, "step-000000"),
        ("step 40", 40, "step-000040"),
        ("final", 110, "step-000110"),
        ("step 12345678", 12345678, "step-12345678"),
        ("my/model v1.5", None, "my-model-v1-5"),
    ],
)
def test_slug(label, step, slug):
    assert Checkpoint(label, step, Path("x"), "full").slug == slug


def test_loadable_until_something_blocks():
    assert Checkpoint("a", 1, Path("x"), "full").loadable
    assert not Checkpoint("a", 1, Path("x"), "full", blocker="It is truncated.").loadable
