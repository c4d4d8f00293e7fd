"""``opd-diag outcome``: a page, a table of verdicts, exit codes."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from opd_diag.cli import app


@pytest.fixture(scope="module")
def out_dir(tiny_run, tmp_path_factory, module_without_pages):
    from opd_diag.diagnosis import diagnose

    out = tmp_path_factory.mktemp("outcome") / "report"
    options = {"rollouts_per_prompt": 2, "max_new_tokens": 4, "states": ("on-policy",), "checkpoints": "30"}
    report = diagnose(tiny_run.run_dir, out=out, **options)
    report.tables.summary.to_parquet(out / "summary.parquet")  # which the page's writer does
    return out


@pytest.fixture
def graders(tmp_path, monkeypatch):
    (tmp_path / "graders.py").write_text("def alike(text, answer):\n    return len(text) % 2 == 0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("graders", None)


def test_its_page_and_verdicts(out_dir, graders):
    result = CliRunner().invoke(app, ["outcome", str(out_dir), "--out", "made", "--grader", "graders:alike"])
    assert result.exit_code == 0, result.output
    assert "pass_at_k" in result.stdout
    assert "gap_recovery" in result.stdout
    assert "page: made/outcome.html" in result.stdout
    record = json.loads((graders / "made" / "outcome.json").read_text())
    assert {row["label"] for row in record["tables"]["attempts"]} == {"step 0", "step 30"}


def test_it_lies_in_the_report_by_default(out_dir, graders):
    result = CliRunner().invoke(app, ["outcome", str(out_dir), "--grader", "graders:alike", "--fail-on", "unknown"])
    assert result.exit_code == 1  # no teacher: what of its lead arrived is not known
    assert (out_dir / "outcome" / "outcome.html").exists()


def test_a_users_mistake_is_one_sentence(tmp_path):
    result = CliRunner().invoke(app, ["outcome", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no finished report" in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
