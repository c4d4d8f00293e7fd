"""Verdicts and self-tests as JUnit XML, which every CI system reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from opd_diag.records.files import write_text
from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict

ELSEWHERE = "Name another file with --junit."

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


@dataclass(frozen=True)
class _Case:
    """One test case."""

    kind: str
    """``verdict`` or ``selftest``."""
    name: str
    status: str
    evidence: str
    advice: str

    @property
    def said(self) -> str:
        return f"{self.status}: {self.evidence}"


def write_junit(
    path: Path, suite: str, verdicts: Sequence[Verdict], failing: Sequence[str], selftests: Sequence[SelfTest] = ()
) -> None:
    """Write one test case a verdict and one a self-test, the whole file or nothing.

    Parameters
    ----------
    path
        The file.
    suite
        Name of the suite.
    verdicts
        What to write.
    failing
        Statuses that count as a failure; ``unknown`` that does not is written as skipped, with its reason.
    selftests
        What the measurement said of itself; written after the verdicts.
    """
    cases = list(_cases(verdicts, selftests))
    root = ElementTree.Element(
        "testsuite",
        name=_legal(suite),
        tests=str(len(cases)),
        failures=str(sum(case.status in failing for case in cases)),
        errors="0",
        skipped=str(sum(case.status == "unknown" and case.status not in failing for case in cases)),
    )
    for case in cases:
        _write_case(root, f"opd-diag.{suite}.{case.kind}", case, failing)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n", ELSEWHERE)


def _cases(verdicts: Sequence[Verdict], selftests: Sequence[SelfTest]) -> Iterator[_Case]:
    for verdict in verdicts:
        yield _Case("verdict", verdict.name, verdict.status, verdict.evidence, verdict.advice)
    for test in selftests:
        name = f"{test.name} ({test.model})" if test.model else test.name
        yield _Case("selftest", name, test.status, test.evidence, test.advice)


def _write_case(root: ElementTree.Element, classname: str, case: _Case, failing: Sequence[str]) -> None:
    element = ElementTree.SubElement(root, "testcase", classname=_legal(classname), name=_legal(case.name))
    if case.status in failing:
        failure = ElementTree.SubElement(element, "failure", message=_legal(case.said))
        failure.text = _legal(case.advice)
    elif case.status == "unknown":
        ElementTree.SubElement(element, "skipped", message=_legal(case.evidence))
    ElementTree.SubElement(element, "system-out").text = _legal(case.said)


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
