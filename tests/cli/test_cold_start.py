"""``opd-diag cold-start``: a page, a table of verdicts, files, exit codes."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from opd_diag.cli import app


def ask(run, *words):
    named = ["--student", run.student, "--teacher", run.teacher, "--prompts", run.prompts, "--max-new-tokens", 3]
    return CliRunner().invoke(app, ["cold-start", *map(str, (*named, *words))])


def test_its_page_tables_and_verdicts(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ask(tiny_run, "--quiet", "--fail-on", "warn")
    assert result.exit_code == 1, result.output  # a cold start is needed, and there is no data for it
    assert "student ← teacher: This pair needs a cold start" in " ".join(result.stdout.split())
    assert "cold_start_needed" in result.stdout
    assert result.stderr == ""
    out = tmp_path / "opd-diag" / "cold-start" / "student"
    made = {path.name for path in out.iterdir()}
    assert made >= {"replay", "cold-start.html", "cold-start.json", "distance.csv", "sft_responses.csv", "distance.svg"}
    record = json.loads((out / "cold-start.json").read_text())
    assert {row["part"] for row in record["tables"]["distance"]} == {"whole", "opening", "end", "middle"}
    page = (out / "cold-start.html").read_text()
    assert "Distance at the teacher&#39;s states, step 0" in page


def test_a_users_mistake_is_one_sentence(tiny_run, tmp_path):
    result = ask(tiny_run, "--teacher", tiny_run.student, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "are the same weights, so there is nothing to teach" in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_no_responses_is_a_mistake(tiny_run, tmp_path):
    result = ask(tiny_run, "--responses", 0, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 2
    assert "Option responses must be at least 1, found 0." in " ".join(result.stderr.split())


def test_options_of_a_report_are_taken(tiny_run):
    shown = " ".join(CliRunner().invoke(app, ["cold-start", "--help"]).output.split())
    for name in ("--after", "--responses", "--only-correct", "--rollouts-per-prompt", "--temperature", "--top-p"):
        assert name in shown
    assert "--layout" not in shown
