"""Verdicts and self-tests as test cases."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from opd_diag.report.junit import write_junit
from report.made_up_report import FAILED_SELFTEST, HOSTILE, SELFTESTS, VERDICTS


@pytest.mark.parametrize(
    ("failing", "failed", "skipped"),
    [
        ((), [], ["entropy_gap", "logprobs (step 0)"]),
        (("fail",), ["alignment_at_start", "shift (step 100)"], ["entropy_gap", "logprobs (step 0)"]),
        (
            ("fail", "warn", "unknown"),
            ["alignment_at_start", "shared_mass", "entropy_gap", "logprobs (step 0)", "shift (step 100)"],
            [],
        ),
    ],
)
def test_cases(tmp_path, failing, failed, skipped):
    write_junit(tmp_path / "j.xml", "my run", VERDICTS, failing, [*SELFTESTS, FAILED_SELFTEST])
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert {n: suite.get(n) for n in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "my run", "tests": "8", "failures": str(len(failed)), "errors": "0", "skipped": str(len(skipped)),
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [c.get("name") for c in cases if c.find("failure") is not None] == failed
    assert [c.get("name") for c in cases if c.find("skipped") is not None] == skipped
    assert [c.get("classname") for c in cases] == ["opd-diag.my run.verdict"] * 4 + ["opd-diag.my run.selftest"] * 4
    assert cases[5].get("name") == "shift (teacher <b>)"


def test_a_failure_says_what_was_seen_and_what_to_do(tmp_path):
    write_junit(tmp_path / "j.xml", "run", [], ["fail"], [FAILED_SELFTEST])
    failure = ElementTree.parse(tmp_path / "j.xml").find("testcase/failure")
    assert failure.get("message") == f"fail: {FAILED_SELFTEST.evidence}"
    assert failure.text == FAILED_SELFTEST.advice


def test_a_skipped_case_says_why(tmp_path):
    write_junit(tmp_path / "j.xml", "run", VERDICTS, ["fail"])
    assert ElementTree.parse(tmp_path / "j.xml").find("testcase/skipped").get("message") == VERDICTS[3].evidence


def test_any_name_of_a_run_is_legal_xml(tmp_path):
    write_junit(tmp_path / "j.xml", HOSTILE, VERDICTS, ["fail"])
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.get("name").startswith("<script>alert(1)</script>")
    assert "\x00" not in suite.get("name")
