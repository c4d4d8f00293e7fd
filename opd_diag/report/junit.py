"""Verdicts as JUnit XML, which every CI system reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from opd_diag.records.files import write_text
from opd_diag.records.verdict import Verdict

ELSEWHERE = "Name another file with --junit."

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def write_junit(path: Path, suite: str, verdicts: Sequence[Verdict], failing: Sequence[str]) -> None:
    """Write one test case a verdict, the whole file or nothing.

    Parameters
    ----------
    path
        The file.
    suite
        Name of the suite.
    verdicts
        What to write.
    failing
        Statuses that count as a failure; ``unknown`` that does not is written as skipped.
    """
    failures = sum(v.status in failing for v in verdicts)
    skipped = sum(v.status == "unknown" and v.status not in failing for v in verdicts)
    root = ElementTree.Element(
        "testsuite",
        name=_legal(suite),
        tests=str(len(verdicts)),
        failures=str(failures),
        errors="0",
        skipped=str(skipped),
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", classname=f"opd-diag.{_legal(suite)}", name=verdict.name)
        if verdict.status in failing:
            message = _legal(f"{verdict.status}: {verdict.evidence}")
            ElementTree.SubElement(case, "failure", message=message).text = _legal(verdict.advice)
        elif verdict.status == "unknown":
            ElementTree.SubElement(case, "skipped", message=_legal(verdict.evidence))
        ElementTree.SubElement(case, "system-out").text = _legal(f"{verdict.status}: {verdict.evidence}")
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n", ELSEWHERE)


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
