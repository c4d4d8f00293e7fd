"""The command ``compare``: its refusals; what it prints of two reports is tested with the study."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from opd_diag.cli import app
from opd_diag.replay.marker import MARKER


def test_a_folder_without_a_report_is_one_sentence(tmp_path):
    result = CliRunner().invoke(
        app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]
    )
    assert result.exit_code == 2
    assert "holds no finished report: there is no summary.parquet" in result.stderr
    assert not (tmp_path / "c").exists()


@pytest.fixture(scope="module")
def reports(tiny_run, tmp_path_factory, module_without_pictures):
    folder = tmp_path_factory.mktemp("compare")
    outs = [folder / name for name in ("one", "two")]
    for out, seed in zip(outs, ("1", "2"), strict=True):
        options = ("--out", str(out), "--seed", seed, "--max-new-tokens", "6", "--states", "on-policy", "--quiet")
        assert CliRunner().invoke(app, ["report", str(tiny_run.run_dir), *options]).exit_code == 0
    return [*map(str, outs)]


@pytest.mark.parametrize("to", ["a", "link", "other"])
def test_a_report_is_no_output_folder(tmp_path, to):
    """A compared one, by whichever name, and any other that holds a report."""
    for name in ("a", "b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "other" / MARKER).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / to)])
    assert result.exit_code == 2
    assert " ".join(result.stderr.split()) == (
        f"error: The output folder {tmp_path / to} holds a report. Choose another with --out."
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_page_and_tables(reports, tmp_path):
    result = CliRunner().invoke(app, ["compare", *reports, "--out", str(tmp_path / "both")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("one and two: ")
    assert {"compare.html", "compare.json", "differences.csv", "summary.csv"} <= {
        f.name for f in (tmp_path / "both").iterdir()
    }


@pytest.mark.parametrize(("fail_on", "code"), [("unknown", 1), ("fail", 0)])
def test_its_exit_code_is_what_was_asked_for(reports, tmp_path, fail_on, code):
    result = CliRunner().invoke(app, ["compare", *reports, "--out", str(tmp_path / "both"), "--fail-on", fail_on])
    assert result.exit_code == code, result.output
    statuses = {
        verdict["status"] for verdict in json.loads((tmp_path / "both" / "compare.json").read_text())["verdicts"]
    }
    assert "unknown" in statuses
    assert "fail" not in statuses
