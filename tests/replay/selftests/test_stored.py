"""The file of the self-tests: what is written is read, and old folders have none."""

from __future__ import annotations

import json
import math

import pytest

from opd_diag.errors import StoreError
from opd_diag.inference import HeadCheck
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.selftests.stored import load_selftests, write_selftests

TESTS = (
    SelfTest("shift", "teacher", "pass", 0.5, math.nan, "Best at 0.", ""),
    SelfTest("ends", "step 0", "fail", 2.0, 0.0, "Two lack it.", "Record it."),
)


def test_what_is_written_is_read(tmp_path):
    write_selftests(tmp_path / "selftest.json", [HeadCheck("step 0", 0.0, 1e-4, 64)], (), TESTS)
    assert [t.as_record() for t in load_selftests(tmp_path)] == [t.as_record() for t in TESTS]
    stored = json.loads((tmp_path / "selftest.json").read_text())
    assert list(stored) == ["head", "logprobs", "tests"]
    assert stored["head"][0]["model"] == "step 0"


def test_a_report_of_an_older_version_has_none(tmp_path):
    assert load_selftests(tmp_path) == ()
    (tmp_path / "selftest.json").write_text('{"head": [], "logprobs": []}')
    assert load_selftests(tmp_path) == ()


@pytest.mark.parametrize("text", ["[1]", "{", '{"tests": [{"nome": 1}]}', '{"tests": 3}'])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / "selftest.json").write_text(text)
    with pytest.raises(StoreError, match="holds no self-tests"):
        load_selftests(tmp_path)
