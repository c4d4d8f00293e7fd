"""The command ``prompts``: what it prints and writes, its exit codes."""

from __future__ import annotations

import json

import tiny_run as tiny
from typer.testing import CliRunner

from opd_diag.cli import app


def asked(tiny_run, *arguments):
    models = ("--student", tiny_run.student, "--teacher", tiny_run.teacher, "--prompts", tiny_run.prompts, "--quiet")
    return CliRunner().invoke(app, ["prompts", *map(str, (*models, *arguments))])


def test_a_page_and_the_chosen_prompts(tiny_run, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "same.jinja").write_text(tiny.TEMPLATE)
    result = asked(
        *(
            tiny_run,
            "--select",
            5,
            "--by",
            "student_overlap_mass",
            "--max-new-tokens",
            6,
            "--rollouts-per-prompt",
            2,
            "--out-of-distribution",
            0.4,
        ),
        *("--template", tmp_path / "same.jinja", "--out", out),
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("student: 5 of 8 prompts chosen by ")
    assert lines[-1] == f"page: {out / 'prompts.html'}"
    assert any("template[same]" in line for line in lines)
    record = json.loads((out / "prompts.json").read_text())
    outcomes = [row["outcome"] for row in record["tables"]["prompts"]]
    assert (outcomes.count("top"), outcomes.count("drawn")) == (3, 2)
    assert len((out / "selection" / "trl.jsonl").read_text().splitlines()) == 5


def test_a_mistake_is_one_sentence(tiny_run, tmp_path):
    result = asked(tiny_run, "--select", 9, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert " ".join(result.stderr.split()).endswith("--select 9 is more than the 8 prompts there are. Select fewer.")
    assert not (tmp_path / "out").exists()


def test_an_unknown_ranking_is_one_sentence(tiny_run, tmp_path):
    result = asked(tiny_run, "--select", 5, "--by", "overlap_ratio", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Option by must be one of" in result.stderr
