"""Responses of the teacher beyond those that are measured: how many, to which prompts, kept and found again."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import tiny_run as tiny

from opd_diag.records.settings import Settings
from opd_diag.replay import open_store
from opd_diag.replay.lessons import LABEL, ONE_MORE, responses_to_teach
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
    responses = Counter(r.prompt_index for r in rollouts)
    assert set(responses.values()) <= {n // len(prompts), math.ceil(n / len(prompts))}
    assert len(prompts) == min(n, tiny.N_PROMPTS)
    assert [p.index for p in prompts] == sorted(responses)
    assert [(r.prompt_index, r.rollout_index) for r in rollouts] == [
        (prompt, number) for prompt in sorted(responses) for number in range(responses[prompt])
    ]
    assert {r.provenance.weights for r in rollouts} <= {LABEL, ONE_MORE}


def test_measured_prompts_are_held_out_where_there_are_enough_others(plan, tmp_path):
    others = tiny.N_PROMPTS - len(plan.prompts)
    prompts, _ = taught(plan, tmp_path, others)
    assert [p.index for p in prompts] == list(range(len(plan.prompts), tiny.N_PROMPTS))


class TestFewerOthersThanResponses:
    """Of 96 prompts 48 are measured."""

    @pytest.fixture
    def plan(self, plan, tiny_run, tmp_path):
        file = tiny.write_prompts(tmp_path / "prompts.jsonl", n=96, level="easy")
        return plan_models(replace(plan.settings, prompts=str(file), max_prompts=48, max_new_tokens=1))

    def test_the_others_come_first(self, plan, tmp_path):
        prompts, rollouts = taught(plan, tmp_path, 60)
        assert [p.index for p in prompts] == [*range(12), *range(48, 96)]
        assert [r.prompt_index for r in rollouts] == [p.index for p in prompts]

    def test_some_get_one_more(self, plan, tmp_path):
        prompts, rollouts = taught(plan, tmp_path, 100)
        assert [p.index for p in prompts] == list(range(96))
        assert len(rollouts) == 100
        twice = {r.prompt_index for r in rollouts if r.rollout_index == 1}
        assert twice == {48, 49, 50, 51}
        assert {r.rollout_index for r in rollouts} == {0, 1}


def test_they_are_found_again(plan, tmp_path):
    _, first = taught(plan, tmp_path, 5)
    file = tmp_path / "out" / "rollouts" / "teacher-to-be-taught.jsonl"
    before = file.stat().st_mtime_ns
    _, second = taught(plan, tmp_path, 5)
    assert first == second
    assert file.stat().st_mtime_ns == before
