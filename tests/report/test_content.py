from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from opd_diag.errors import StoreError
from report.made_up_report import made_up_report


def test_writes_all_files(report):
    names = {p.relative_to(report.out_dir).as_posix() for p in report.out_dir.rglob("*") if p.is_file()}
    assert {"report.html", "report.json", "report.md", "summary.csv", "summary.parquet"} <= names
    figures = [n for n in names if n.startswith("figures/")]
    assert len(figures) == 9 + 19 + 3 + 9 + 4 + 3
    assert not [n for n in names if n.endswith(".part")]


def test_tables_come_back_as_they_were(report):
    stored = pd.read_parquet(report.out_dir / "summary.parquet")
    pd.testing.assert_frame_equal(stored, report.tables.summary)
    assert len(pd.read_csv(report.out_dir / "summary.csv")) == len(stored)


@pytest.mark.parametrize("name", ["strata", "averages", "logged"])
def test_long_tables_have_files_of_their_own(report, name):
    table = getattr(report.tables, name)
    pd.testing.assert_frame_equal(pd.read_parquet(report.out_dir / f"{name}.parquet"), table)
    csv = pd.read_csv(report.out_dir / f"{name}.csv")
    assert list(csv.columns) == list(table.columns)
    assert csv["value"].tolist() == pytest.approx(table["value"].tolist())


def test_pictures_are_whole_svg_files(report):
    from xml.etree import ElementTree

    for path in (report.out_dir / "figures").iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_folder_that_cannot_be_written(tmp_path, without_pictures):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        made_up_report(blocked).write()


def test_importing_the_report_loads_no_plotting_library():
    code = "import sys, opd_diag.report; print(*{'matplotlib', 'seaborn', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
