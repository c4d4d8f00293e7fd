"""``opd-diag horizon``: a page in OUT_DIR, exit codes, mistakes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from opd_diag.cli import app


def invoke(*args):
    return CliRunner().invoke(app, ["horizon", *map(str, args)])


def test_its_page_lies_in_the_reports_folder(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--states", "on-policy,teacher", "--checkpoints", "30", "--max-prompts", "5", "--quiet"]
    result = invoke(tiny_run.run_dir, *options, "--no-continuations", "--fail-on", "unknown")
    assert result.exit_code == 1, result.output
    assert "page: opd-diag/run/horizon/horizon.html" in result.stdout
    assert "Continuations were left out." in result.stdout
    assert (tmp_path / "opd-diag" / "run" / "horizon" / "cohort.csv").is_file()
    assert (tmp_path / "opd-diag" / "run" / ".opd-diag.json").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--depths", "4,x"], "--depths must be whole numbers separated by commas, found '4,x'."),
        (["--continuations", "-1"], "Option continuations must be 0 or more, found -1."),
        (["--grader", "nothing"], "Expected MODULE:FUNCTION, as my_graders:math, found 'nothing'."),
    ],
)
def test_a_users_mistake_is_one_sentence(tiny_run, tmp_path, options, said):
    result = invoke(tiny_run.run_dir, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [f"error: {said}"]
    assert not (tmp_path / "out").exists()
