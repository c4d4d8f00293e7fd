"""The names people import: exactly these, documented, and loaded only when used."""

from __future__ import annotations

import inspect

import pytest

import opd_diag

NAMES = {
    "Report", "Rollout", "Scores", "SelfTest", "Verdict", "check", "diagnose", "doctor",
    "find_checkpoints", "load_model", "load_rollouts",
    "measure", "sample_rollouts", "score", "summarize", "wrap_model",
}  # fmt: skip
ROOMS = {"metrics", "plots", "stats", "tables", "records", "runs"}


def test_the_names_are_pinned():
    assert set(opd_diag.__all__) == NAMES
    assert list(opd_diag.__all__) == sorted(opd_diag.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there_and_documented(name):
    thing = getattr(opd_diag, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)
    assert thing.__module__.startswith("opd_diag.")


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_rooms_are_reached_without_importing_them(name):
    assert opd_diag.__getattr__(name).__name__ == f"opd_diag.{name}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'diagnosis_of'"):
        opd_diag.diagnosis_of  # noqa: B018


def test_completion_sees_every_name():
    assert set(dir(opd_diag)) >= NAMES
