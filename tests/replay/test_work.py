"""What a plan says that models will do, held against what they do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay
from opd_diag.replay.work import Lengths, near_writer, planned_work, scored_sets, shared_states, writers_of
from opd_diag.runs import read_manifest

EVERY_SET = "on-policy,start,teacher,back"


def planned(run, **options):
    manifest = read_manifest(run.run_dir)
    return make_plan(run.run_dir, settings_from(options, manifest.settings, manifest.path), manifest)


def done(plan, out):
    """Replay from nothing; give the account."""
    with open_store(out, plan.run_dir) as store:
        replay(plan, store)
        return store.account


@pytest.fixture(scope="module")
def sampled(tiny_run, tmp_path_factory):
    """(plan, OUT_DIR, account) of a replay of all sets of states."""
    plan, out = planned(tiny_run, states=EVERY_SET), tmp_path_factory.mktemp("work") / "out"
    return plan, out, done(plan, out)


@pytest.mark.parametrize(
    ("states", "options"),
    [
        ("on-policy,start,teacher", {}),
        (EVERY_SET, {}),
        ("on-policy", {}),
        ("start", {"checkpoints": "30"}),
        ("teacher", {}),
        ("start,back", {"max_prompts": 3}),
    ],
)
def test_of_recorded_responses_the_work_is_known(tiny_run, sampled, tmp_path, states, options):
    _, out, _ = sampled
    plan = planned(tiny_run, states=states, rollouts=str(out / "rollouts"), **options)
    expected = planned_work(plan, Lengths(plan, fill=99))
    account = done(plan, tmp_path / "out")
    assert expected.sampled == account.work.sampled == 0
    assert expected.student_tokens == pytest.approx(account.work.student_tokens, rel=0.06)
    assert expected.teacher_tokens == pytest.approx(account.work.teacher_tokens, rel=0.06)
    assert expected.states == pytest.approx(account.work.states, rel=0.06)


def test_of_sampled_responses_it_follows_from_their_length(sampled):
    plan, _, account = sampled
    fill = account.mean_response / plan.settings.max_new_tokens
    assert 0.1 < fill <= 1
    expected = planned_work(plan, Lengths(plan, fill))
    for name in ("student_sampled", "teacher_sampled", "student_tokens", "teacher_tokens", "states"):
        assert getattr(expected, name) == pytest.approx(getattr(account.work, name), rel=0.08), name


def test_nothing_exceeds_what_full_responses_cost(sampled):
    plan, _, account = sampled
    most = planned_work(plan, Lengths(plan, 1.0))
    assert account.work.sampled <= most.sampled
    assert account.work.tokens <= most.tokens


def test_what_is_stored_costs_nothing(sampled):
    plan, out, account = sampled
    with open_store(out, plan.run_dir) as store:
        replay(plan, store)
        again = store.account
    assert (again.work.tokens, again.work.sampled, again.work.states) == (0, 0, 0)
    assert (again.made, again.found) == (0, account.made)
    assert (account.found, account.made) == (0, account.made)
    assert account.made > 30
    assert again.mean_response == account.mean_response


def test_the_teacher_runs_once_where_checkpoints_share_states(tiny_run):
    plan = planned(tiny_run)
    fewer = planned(tiny_run, checkpoints="20,30")
    works = [planned_work(p, Lengths(p, 1.0)) for p in (plan, fewer)]
    lengths = Lengths(plan, 1.0)
    prompts, responses = lengths.teacher_prompts, lengths.response("step 10")
    one_pass, second = prompts + responses, prompts + responses / 2
    # one more checkpoint: one pass over its own states, a second one over one of two responses a prompt, and coverage,
    # which looks at all of so few twice
    assert works[0].teacher_tokens - works[1].teacher_tokens == pytest.approx(3 * one_pass + second)
    # the student: three sets, each twice, sampling and its checks
    more = works[0].student_tokens - works[1].student_tokens
    assert 4 * one_pass + 3 * second <= more < 5 * one_pass + 3 * second


def test_what_each_set_is(tiny_run):
    plan = planned(tiny_run, checkpoints="30", states=EVERY_SET)
    assert writers_of(plan) == ["step 0", "step 30", "teacher"]
    assert scored_sets(plan) == [
        ("step 0", "on-policy", "step 0"), ("step 0", "teacher", "teacher"),
        ("step 30", "on-policy", "step 30"), ("step 30", "start", "step 0"), ("step 30", "teacher", "teacher"),
        ("step 0", "back", "step 30"),
    ]  # fmt: skip
    assert writers_of(replace(plan, settings=replace(plan.settings, states=("start",)))) == ["step 0"]
    assert writers_of(replace(plan, settings=replace(plan.settings, states=("teacher",)))) == ["teacher"]


def test_a_prompt_stands_in_every_pack_that_holds_its_responses(tiny_run, monkeypatch):
    plan = planned(tiny_run, rollouts_per_prompt=6)
    lengths = Lengths(plan, 1.0)
    prompts, responses = lengths.student_prompts, lengths.response("step 10")
    assert lengths.passed("step 10", prompts) == prompts + responses
    lengths.pack = prompts // 8 + 25  # room for two responses of ten tokens
    assert lengths.passed("step 10", prompts) == 3 * prompts + responses
    lengths.pack = 1
    assert lengths.passed("step 10", prompts) == 6 * prompts + responses


def test_states_are_shared_by_several_checkpoints_only(tiny_run):
    plan = planned(tiny_run)
    lengths = Lengths(plan, 1.0)
    assert shared_states(plan, lengths) == 2 * 16 * 11
    assert shared_states(replace(plan, checkpoints=plan.checkpoints[:1]), lengths) == 0
    assert shared_states(replace(plan, settings=replace(plan.settings, states=("on-policy",))), lengths) == 0


def test_of_what_a_trainer_recorded_the_work_is_known(tiny_run, sampled, tmp_path):
    _, out, _ = sampled
    shutil.copytree(out / "rollouts", tmp_path / "rollouts")
    for step in (12, 33):
        lines = [{"input": f"{i}+{i}" + "?" * (i % 3), "output": f"it may be {i}", "step": step} for i in range(8)]
        (tmp_path / "rollouts" / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = planned(tiny_run, rollouts=str(tmp_path / "rollouts"))
    assert ({*plan.recorded}, [*plan.near]) == ({*writers_of(plan)}, ["step 10", "step 30"])
    added = [of for of in scored_sets(plan) if of[1] == "near-on-policy"]
    assert added == [(label, "near-on-policy", near_writer(label)) for label in plan.near]
    expected = planned_work(plan, Lengths(plan, fill=99))
    account = done(plan, tmp_path / "out")
    assert expected.sampled == account.work.sampled == 0
    for name in ("student_tokens", "teacher_tokens", "states"):
        assert getattr(expected, name) == pytest.approx(getattr(account.work, name), rel=0.06), name
