"""Responses of the teacher beyond those that are measured: how many, to which prompts, kept and found again."""

from __future__ import annotations

import math

import pytest
import tiny_run as tiny

from opd_diag.records.settings import Settings
from opd_diag.replay import open_store
from opd_diag.replay.lessons import LABEL, responses_to_teach
from opd_diag.replay.planning import plan_models


@pytest.fixture
def plan(tiny_run):
    named = {"student": str(tiny_run.student), "teacher": str(tiny_run.teacher), "prompts": str(tiny_run.prompts)}
    return plan_models(Settings(**named, max_prompts=2, rollouts_per_prompt=3, max_new_tokens=4))


def taught(plan, tmp_path, n):
    with open_store(tmp_path / "out", plan.run_dir) as store:
        return responses_to_teach(plan, store, n)


@pytest.mark.parametrize("n", [7, tiny.N_PROMPTS, tiny.N_PROMPTS + 3, 3 * tiny.N_PROMPTS])
def test_as_many_as_were_asked_for_to_as_many_prompts_as_can_be(plan, tmp_path, n):
    prompts, rollouts = taught(plan, tmp_path, n)
    assert len(rollouts) == n
    each = math.ceil(n / tiny.N_PROMPTS)
    assert {r.prompt_index for r in rollouts} == set(range(math.ceil(n / each)))
    assert {r.rollout_index for r in rollouts} == set(range(each))
    assert [p.index for p in prompts] == list(range(math.ceil(n / each)))
    assert {r.provenance.weights for r in rollouts} == {LABEL}


def test_measured_prompts_are_held_out_where_there_are_enough_others(plan, tmp_path):
    others = tiny.N_PROMPTS - len(plan.prompts)
    prompts, _ = taught(plan, tmp_path / "enough", others)
    assert [p.index for p in prompts] == list(range(len(plan.prompts), tiny.N_PROMPTS))
    prompts, _ = taught(plan, tmp_path / "few", others + 1)
    assert [p.index for p in prompts] == list(range(others + 1))


def test_they_are_found_again(plan, tmp_path):
    _, first = taught(plan, tmp_path, 5)
    file = tmp_path / "out" / "rollouts" / "teacher-to-be-taught.jsonl"
    before = file.stat().st_mtime_ns
    _, second = taught(plan, tmp_path, 5)
    assert first == second
    assert file.stat().st_mtime_ns == before
