from __future__ import annotations

import pytest

from opd_diag.report import Report
from report.made_up_report import made_up_report


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Report:
    """Give a report that is written once."""
    made = made_up_report(tmp_path_factory.mktemp("out"), "collapse")
    made.write()
    return made


@pytest.fixture(scope="session")
def html(report) -> str:
    return (report.out_dir / "report.html").read_text(encoding="utf-8")
