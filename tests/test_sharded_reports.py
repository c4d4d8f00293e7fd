"""Runs whose checkpoints are in parts are reported as if they were whole, and say so where they cannot be."""

from __future__ import annotations

import json

import pytest
import tiny_run as tiny
import torch
from models import checkpoint
from sharded_runs import copy
from typer.testing import CliRunner

import opd_diag
from opd_diag.cli import app
from opd_diag.inference import load_model
from opd_diag.runs import find_checkpoints

STATES = ("on-policy", "start")

pytestmark = pytest.mark.usefixtures("module_without_pages")


def reported(run_dir, whole, out, **options):
    """Report a run with the student, the teacher and the prompts of the whole one."""
    named = {"student": whole.student, "teacher": whole.teacher, "prompts": whole.prompts}
    sampling = {"rollouts_per_prompt": tiny.ROLLOUTS_PER_PROMPT, "max_new_tokens": tiny.MAX_NEW_TOKENS}
    given = {name: str(value) for name, value in named.items()} | sampling | options
    return opd_diag.diagnose(run_dir, out=out, states=STATES, **given)


def numbers(out):
    """What of the report does not depend on where the weights lay."""
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {name: stored[name] for name in ("headline", "summary", "split", "concentration", "verdicts")}


@pytest.fixture(scope="module")
def whole(sharded_forms, tmp_path_factory, module_without_pages):
    """The run with whole checkpoints, and what its report says."""
    run = tiny.TinyRun(sharded_forms / "runs" / "tiny")
    out = tmp_path_factory.mktemp("whole")
    reported(run.run_dir, run, out)
    return run, numbers(out)


@pytest.mark.parametrize("trainer", ["verl", pytest.param("prime-rl", marks=pytest.mark.slow)])
def test_the_report_is_that_of_the_whole_checkpoints_to_the_digit(sharded_forms, whole, tmp_path, trainer):
    run, expected = whole
    report = reported(sharded_forms / "runs" / trainer, run, tmp_path, tokenizer=str(run.student))
    assert [c.label for c in find_checkpoints(sharded_forms / "runs" / trainer, student=str(run.student))] == [
        f"step {step}" for step in tiny.STEPS
    ]
    assert numbers(tmp_path) == expected
    assert len(report.tables.summary) > 100


def test_a_checkpoint_that_would_run_code_is_left_out_by_name(sharded_forms, whole, tmp_path):
    from inference.test_pickles import Bomb

    run, _ = whole
    run_dir = copy(sharded_forms / "runs" / "verl", tmp_path / "verl")
    file = run_dir / "global_step_20" / "actor" / "model_world_size_2_rank_1.pt"
    torch.save({"a": Bomb(tmp_path / "exploded")}, file)
    line = ["report", str(run_dir), "--student", str(run.student), "--teacher", str(run.teacher)]
    line += ["--prompts", str(run.prompts), "--max-new-tokens", "4", "--states", "on-policy"]
    result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "o"), "--quiet"])
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert f"left out: step 20: {file} holds more than tensors (posix.system): reading it could run code" in told
    assert not (tmp_path / "exploded").exists()
    labels = {row["label"] for row in numbers(tmp_path / "o")["summary"]}
    assert labels == {"step 0", "step 10", "step 30"}


@pytest.mark.slow
def test_what_the_trainer_of_hugging_face_saves_under_fsdp(sharded_forms, whole, tmp_path):
    """Shards that it wrote itself, without a config, which the initial student brings."""
    run, _ = whole
    folder = sharded_forms / "trainer"
    found = find_checkpoints(folder / "run", student=str(folder / "student"))
    assert [(c.label, c.kind, c.blocker) for c in found] == [(f"step {n}", "distributed", None) for n in (2, 4)]
    truth = load_model(checkpoint(folder / "student")).hf
    truth.load_state_dict(torch.load(folder / "whole.pt", weights_only=True))
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        assert torch.equal(load_model(found[1]).hf(ids).logits, truth(ids).logits)
        assert not torch.equal(load_model(found[0]).hf(ids).logits, truth(ids).logits)
    report = reported(folder / "run", run, tmp_path, student=str(folder / "student"))
    assert set(report.tables.summary["label"]) == {"step 0", "step 2", "step 4"}
