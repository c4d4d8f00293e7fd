"""The command ``compare``: its refusals; what it prints of two reports is tested with the study."""

from __future__ import annotations

from typer.testing import CliRunner

from opd_diag.cli import app


def test_a_folder_without_a_report_is_one_sentence(tmp_path):
    result = CliRunner().invoke(
        app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]
    )
    assert result.exit_code == 2
    assert "holds no finished report: there is no summary.parquet" in result.stderr
    assert not (tmp_path / "c").exists()


def test_page_and_tables(tiny_run, tmp_path):
    outs = [tmp_path / name for name in ("one", "two")]
    for out, seed in zip(outs, ("1", "2"), strict=True):
        options = ("--out", str(out), "--seed", seed, "--max-new-tokens", "6", "--states", "on-policy", "--quiet")
        assert CliRunner().invoke(app, ["report", str(tiny_run.run_dir), *options]).exit_code == 0
    result = CliRunner().invoke(app, ["compare", *map(str, outs), "--out", str(tmp_path / "both")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("one and two: ")
    assert {"compare.html", "compare.json", "differences.csv", "summary.csv"} <= {
        f.name for f in (tmp_path / "both").iterdir()
    }
