"""The command ``teachers``: what it prints and writes, its exit codes."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from opd_diag.cli import app


def asked(*arguments):
    return CliRunner().invoke(app, ["teachers", *map(str, arguments)])


def test_a_page_and_its_tables(tiny_run, tmp_path):
    out = tmp_path / "out"
    result = asked(
        *("--student", tiny_run.student, "--teacher", tiny_run.teacher, "--teacher", tiny_run.checkpoint(30)),
        *("--prompts", tiny_run.prompts, "--max-new-tokens", 6, "--max-prompts", 6, "--out", out, "--quiet"),
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("student: ")
    assert lines[-1] == f"page: {out / 'teachers.html'}"
    assert any("teachers_alike[teacher, checkpoint-30]" in line for line in lines)
    record = json.loads((out / "teachers.json").read_text())
    assert {"summary", "distances", "attempts"} <= set(record["tables"])
    assert (out / "distances.csv").is_file()
    assert "Side by side" in (out / "teachers.html").read_text()


def test_a_verdict_makes_it_fail_where_asked(tiny_run, tmp_path):
    out = tmp_path / "out"
    result = asked(
        *("--student", tiny_run.student, "--teacher", tiny_run.teacher, "--prompts", tiny_run.prompts),
        *("--max-new-tokens", 4, "--max-prompts", 4, "--out", out, "--quiet", "--fail-on", "unknown"),
    )
    assert result.exit_code == 1, result.output
    statuses = {verdict["status"] for verdict in json.loads((out / "teachers.json").read_text())["verdicts"]}
    assert statuses & {"unknown", "warn", "fail"}


def test_a_mistake_is_one_sentence(tiny_run, tmp_path):
    result = asked(
        *("--student", tmp_path / "none", "--teacher", tiny_run.teacher, "--prompts", tiny_run.prompts),
        *("--out", tmp_path / "out", "--quiet"),
    )
    assert result.exit_code == 2
    assert "does not exist. Correct --student." in result.stderr
    assert not (tmp_path / "out").exists()
