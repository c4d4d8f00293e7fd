"""The example of a CI job: it names what exists, and its tests run on a report without any model."""

from __future__ import annotations

import json
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
def left_alone(tiny_run, tmp_path_factory, module_without_pictures) -> Path:
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


def calls_github(step: dict) -> bool:
    """Whether a step runs GitHub's program: its script is more than one command a line."""
    return bool(re.search(r"\bgh ", step.get("run", "")))


def commands(workflow: dict) -> list[list[str]]:
    """Words of every command, by line, of steps that do not run GitHub's program."""
    lines = [line for s in steps(workflow) if not calls_github(s) for line in s.get("run", "").splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_only_steps_of_githubs_program_are_left_out_of_the_commands(workflow):
    words = {"jobs": {"a": {"steps": [{"run": "./train.sh --weights high"}, {"run": "id=$(gh api x)"}, {"uses": "a"}]}}}
    assert commands(words) == [["./train.sh", "--weights", "high"]]
    assert [job for job, of in workflow["jobs"].items() if any(map(calls_github, of["steps"]))] == ["comment"]


def test_the_workflow_has_the_shape_of_one(workflow):
    top = {"concurrency", "env", "jobs", "name", "permissions", True}  # a bare `on` is true in YAML 1.1
    assert set(workflow) == top
    assert workflow["jobs"]["check"]["needs"] == "train"
    assert all({"run", "uses"} & set(step) for step in steps(workflow))
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps(workflow) if "uses" in step)


def test_strangers_get_neither_a_runner_nor_a_token_that_writes(workflow):
    assert set(workflow[True]) == {"workflow_dispatch", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    own_branch = "github.event.pull_request.head.repo.full_name == github.repository"
    assert jobs["train"]["if"] == f"github.event_name != 'pull_request' || {own_branch}"
    assert {name: job["permissions"] for name, job in jobs.items() if "permissions" in job} == {
        "comment": {"pull-requests": "write"}
    }
    assert jobs["comment"]["needs"] == ["train", "check"]
    assert "needs.train.result == 'success'" in jobs["comment"]["if"]
    assert [step["uses"] for step in jobs["comment"]["steps"] if "uses" in step] == ["actions/download-artifact@v4"]


def test_what_others_write_is_put_into_no_script(workflow):
    """Titles, branches and the like reach scripts through the environment, where the shell does not read them."""
    assert not [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]


GH = """#!{python}
import json, os, sys
from pathlib import Path

state = Path({state!r})
calls = json.loads(state.read_text()) if state.exists() else {{"comments": [], "calls": []}}
words = sys.argv[1:]
calls["calls"].append(words)
if words[:2] == ["pr", "comment"]:
    assert words[3] == "--body-file"
    body = Path(words[4]).read_text()
    made = {{"id": 70 + len(calls["comments"]), "user": {{"login": "github-actions[bot]"}}, "body": body}}
    calls["comments"].append(made)
elif "PATCH" in words:
    name, _, file = words[-1].partition("=@")
    assert name == "body"
    url = next(word for word in words if word.startswith("repos/"))
    found = next(c for c in calls["comments"] if url == f"repos/{{os.environ['GH_REPO']}}/issues/comments/{{c['id']}}")
    found["body"] = Path(file).read_text()
else:
    assert f"repos/{{os.environ['GH_REPO']}}/issues/{{os.environ['PR']}}/comments" in words
    assert words[words.index("--jq") + 1] == (
        '.[] | select(.user.login == "github-actions[bot]" and (.body | startswith(env.MARK))) | .id'
    )
    for c in calls["comments"]:
        if c["user"]["login"] == "github-actions[bot]" and c["body"].startswith(os.environ["MARK"]):
            print(c["id"])
state.write_text(json.dumps(calls))
"""
"""Stands in for GitHub's program: comments in a file. What ``--jq`` selects is written out again in Python."""


def test_the_report_is_one_comment_that_is_updated(workflow, tmp_path):
    step = next(s for s in workflow["jobs"]["comment"]["steps"] if calls_github(s))
    assert set(step["env"]) == {"GH_TOKEN", "GH_REPO", "PR"}
    state, report = tmp_path / "state.json", tmp_path / "opd-diag" / "my-run" / "report.md"
    report.parent.mkdir(parents=True)
    others = [
        {"id": 7, "user": {"login": "github-actions[bot]"}, "body": "Coverage went up."},
        {"id": 8, "user": {"login": "someone"}, "body": "<!-- opd-diag my-run -->\nlooks like ours"},
    ]
    state.write_text(json.dumps({"comments": others, "calls": []}))
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH.format(python=sys.executable, state=str(state)))
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "RUN": workflow["env"]["RUN"]}
    environment |= {"GH_TOKEN": "x", "GH_REPO": "me/mine", "PR": "12"}
    for text in ("### ✓ It works\n", "### ✗ It does not; `$(touch hacked)` $PR\n"):
        report.write_text(text, encoding="utf-8")
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], check=True, cwd=tmp_path, env=environment)
        comments = json.loads(state.read_text())["comments"]
        assert comments[:2] == others
        assert [c["body"] for c in comments[2:]] == [f"<!-- opd-diag my-run -->\n{text}"]
    assert not (tmp_path / "hacked").exists()


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
    first, *others = [s["with"] for s in steps(workflow) if "download" in s.get("uses", "")]
    assert others == [first]
    download = first
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
