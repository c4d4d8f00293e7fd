"""The example of a CI job: it names what exists, and its tests run on a report without any model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from typer.main import get_command

from opd_diag.cli import app

EXAMPLES = Path(__file__).parents[1] / "examples"
NO_MODELS = """
import sys, transformers
def refused(*_, **__): sys.exit("a model was made")
transformers.PreTrainedModel.__init__ = transformers.PreTrainedModel.from_pretrained = refused
"""
"""Before anything else: whoever makes a model fails."""


@pytest.fixture(scope="module")
def workflow() -> dict:
    return yaml.safe_load((EXAMPLES / "ci" / "check.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def left_alone(tiny_run, tmp_path_factory) -> Path:
    """What a training job uploads: the folder of a report, without scores; the run and its models are gone."""
    from opd_diag.diagnosis import diagnose

    root = tmp_path_factory.mktemp("ci")
    own = tiny_run.copied_to(root / "gone")
    diagnose(own.run_dir, out=root / "out")
    shutil.rmtree(own.root)
    shutil.rmtree(root / "out" / "scores")
    return root / "out"


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(workflow: dict) -> list[list[str]]:
    lines = [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_workflow_has_the_shape_of_one(workflow):
    assert {True, "jobs", "name", "env"} == set(workflow)  # a bare `on` is true in YAML 1.1
    assert workflow["jobs"]["check"]["needs"] == "train"
    assert all({"run", "uses"} & set(step) for step in steps(workflow))
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps(workflow) if "uses" in step)


def test_commands_and_options_exist(workflow):
    program = get_command(app)
    ours = [words for words in commands(workflow) if words and words[0] == "opd-diag"]
    assert [words[1] for words in ours] == ["report", "check"]
    for _, name, *words in ours:
        known = {option for parameter in program.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
        program.commands[name].make_context(name, words, resilient_parsing=False)


def test_what_is_uploaded_is_what_check_reads(workflow):
    upload = next(s["with"] for s in steps(workflow) if "upload" in s.get("uses", "") and s["with"]["name"] != "junit")
    download = next(s["with"] for s in steps(workflow) if "download" in s.get("uses", ""))
    assert upload["include-hidden-files"]
    assert download["name"] == upload["name"]
    assert upload["path"].splitlines() == [download["path"], f"!{download['path']}/scores"]


def test_check_needs_no_model(left_alone, tmp_path, workflow):
    """The very command of the workflow, in a process in which no model can be made."""
    words = next(words for words in commands(workflow) if words[:2] == ["opd-diag", "check"])[2:]
    at = words.index("verdicts.xml")
    words = [str(left_alone), *words[1:at], str(tmp_path / "verdicts.xml"), *words[at + 1 :]]
    script = f"{NO_MODELS}\nfrom opd_diag.cli import app; app(['check', *sys.argv[1:]])"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    cases = ElementTree.parse(tmp_path / "verdicts.xml").getroot().findall("testcase")
    kinds = {case.get("classname").rpartition(".")[2] for case in cases}
    assert kinds == {"verdict", "selftest"}
    assert all(case.find("failure") is None for case in cases)
    assert all(case.find("skipped").get("message") for case in cases if case.find("skipped") is not None)


def run_example(left: Path, project: Path, before: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of the example in a project of their own, on the folder of a report."""
    shutil.copy(EXAMPLES / "ci" / "test_run.py", project)
    script = f"{before}\nimport sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_run.py']))"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=project,
        env={**os.environ, "OPD_DIAG_OUT": str(left)},
    )  # fmt: skip


def test_the_tests_of_the_example_run_on_a_report(left_alone, tmp_path):
    done = run_example(left_alone, tmp_path, NO_MODELS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_tests_of_the_example_can_fail(left_alone, tmp_path):
    """On a report whose numbers were turned round."""
    out = shutil.copytree(left_alone, tmp_path / "out")
    summary = pd.read_parquet(out / "summary.parquet")
    summary.loc[summary["metric"] == "reverse_kl", "value"] *= -1
    summary.loc[summary["metric"] == "repetition_rate", "value"] = 0.5
    summary.to_parquet(out / "summary.parquet", index=False)
    done = run_example(out, tmp_path, "")
    assert done.returncode == 1
    assert "2 failed, 2 passed" in done.stdout
