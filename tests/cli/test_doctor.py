"""The command ``doctor``: what it prints, its exit codes, and that it takes what ``report`` takes."""

from __future__ import annotations

import inspect
import json

import pytest
import tiny_run as tiny
from typer.testing import CliRunner

from opd_diag.cli import app
from opd_diag.cli.doctor import OF_REPORTS_ALONE, doctor_with_options_of
from opd_diag.cli.options import json_option
from opd_diag.cli.program import report
from opd_diag.errors import InputError


def doctored(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_healthy_run(tiny_run, tmp_path):
    result = doctored(tiny_run.run_dir, "--out", tmp_path / "out", "--max-prompts", 6, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    stored = json.loads((tmp_path / "out/selftest.json").read_text())["tests"]
    assert len([line for line in lines if line.split()[0] in ("pass", "fail", "unknown")]) == len(stored)
    assert lines[0].split(maxsplit=2)[:2] == [stored[0]["status"], stored[0]["name"]]


def test_a_failed_test_is_exit_code_1_and_says_what_to_do(own_run, tmp_path):
    """A template that begins every prompt with two BOS."""
    for folder in (own_run.student, own_run.teacher, *(own_run.checkpoint(step) for step in tiny.STEPS)):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<system>"}))
        template = folder / "chat_template.jinja"
        template.write_text("<system><system>" + template.read_text())
    result = doctored(own_run.run_dir, "--out", tmp_path / "out", "--max-prompts", 6, "--quiet")
    assert result.exit_code == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("fail"))
    assert line.split()[1] == "template"
    assert "BOS" in result.stdout


def test_what_is_of_the_pair_warns_and_is_exit_code_0(own_run, tmp_path):
    path = own_run.teacher / "chat_template.jinja"
    path.write_text(path.read_text().replace("{{ m.content }}", "{{ m.content }}!"))
    result = doctored(own_run.run_dir, "--out", tmp_path / "out", "--max-prompts", 6, "--quiet")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.startswith("warn"))
    assert line.split()[1] == "template"
    assert "--teacher-template" in result.stdout


@pytest.mark.parametrize("arguments", [["nowhere"], ["{run}", "--k", "99"], ["{run}", "--chat-template-kwargs", "[1]"]])
def test_wrong_input_is_exit_code_2(tiny_run, tmp_path, arguments):
    result = doctored(*(a.format(run=tiny_run.run_dir) for a in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_nan_is_wrong_input_too(own_run, tmp_path):
    tiny.fill_with_nan(own_run.student)
    assert doctored(own_run.run_dir, "--out", tmp_path / "out").exit_code == 2


def test_it_takes_the_options_of_report():
    of_report = inspect.signature(report, eval_str=True).parameters
    own = inspect.signature(doctor_with_options_of(report)).parameters
    assert list(own) == [name for name in of_report if name not in OF_REPORTS_ALONE]
    assert all(own[name].default == of_report[name].default for name in own)
    assert len(own) == len(of_report) - 2


def test_options_reach_the_plan(tiny_run, tmp_path):
    options = ("--states", "teacher", "--max-new-tokens", 5, "--chat-template-kwargs", '{"a": 1}', "--quiet")
    assert doctored(tiny_run.run_dir, "--out", tmp_path / "out", *options).exit_code == 0
    lines = (tmp_path / "out/rollouts/teacher.jsonl").read_text().splitlines()
    assert max(len(json.loads(line)["response_ids"]) for line in lines) == 5
    assert not (tmp_path / "out/rollouts/step-000000.jsonl").exists()


def test_progress_goes_to_stderr(tiny_run, tmp_path):
    result = doctored(tiny_run.run_dir, "--out", tmp_path / "out", "--max-prompts", 6)
    assert "step 0: self-tests, as its own teacher, tokens" in result.stderr


def test_json_objects_alone():
    assert json_option(None) is None
    assert json_option('{"a": 1}') == {"a": 1}
    for wrong in ("{", "3"):
        with pytest.raises(InputError, match="chat-template-kwargs must be"):
            json_option(wrong)
