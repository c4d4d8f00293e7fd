"""Pairs of teachers at one student's states, against scoring them directly; hidden states by role and view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_run as tiny

from opd_diag.inference import score
from opd_diag.records.settings import Settings
from opd_diag.replay import open_store, plan_models, replay
from opd_diag.replay.between import scored_between
from opd_diag.replay.hidden import KeptHidden
from opd_diag.replay.lazy import LazyModel


@pytest.fixture(scope="module")
def replayed(tiny_run, tmp_path_factory):
    """Plans of the student against two teachers, its responses, and stores with what the replays left."""
    root = tmp_path_factory.mktemp("between")
    tiny.save(tiny.model(seed=9), root / "other", tiny.byte_tokenizer())
    settings = Settings(
        student=str(tiny_run.student), prompts=str(tiny_run.prompts), states=("on-policy",), max_new_tokens=6
    )
    models = {"first": tiny_run.teacher, "second": root / "other"}
    plans = {name: plan_models(replace(settings, teacher=str(folder))) for name, folder in models.items()}
    rollouts = ()
    with open_store(root / "hidden", tiny_run.student) as hidden:
        for name, plan in plans.items():
            with open_store(root / name, plan.run_dir) as store:
                rollouts = replay(plan, store, hidden=hidden).scored[0].rollouts
    return root, models, plans, rollouts


def test_scores_are_those_of_the_two_alone(replayed, tiny_run):
    root, models, plans, rollouts = replayed
    with open_store(root / "store", tiny_run.student) as store, open_store(root / "hidden", tiny_run.student) as hidden:
        found = scored_between(plans, rollouts, store, hidden)
    assert list(found) == [("first", "second")]
    scores = found["first", "second"]
    direct = score(*(_loaded(plans[name]) for name in models), rollouts)
    np.testing.assert_allclose(scores.reverse_kl, direct.reverse_kl, atol=1e-5)
    np.testing.assert_allclose(scores.forward_kl, direct.forward_kl, atol=1e-5)
    assert scores.reverse_kl[~scores.terminal].mean() > 0.05


def _loaded(plan):
    return LazyModel(plan.teacher, plan.settings, plan.teacher.label, plan.tokenizer).model


def test_where_teachers_see_other_prompts_both_see_those(replayed, tiny_run):
    root, _, plans, rollouts = replayed
    hinted = tuple(replace(r, teacher_prompt_ids=(*r.prompt_ids, 65, 66)) for r in rollouts)
    with (
        open_store(root / "hinted", tiny_run.student) as store,
        open_store(root / "hinted-hidden", tiny_run.student) as hidden,
    ):
        scores = scored_between(plans, hinted, store, hidden)["first", "second"]
    shown = [replace(r, prompt_ids=r.teacher_prompt_ids) for r in hinted]
    direct = score(*(_loaded(plan) for plan in plans.values()), shown)
    np.testing.assert_allclose(scores.reverse_kl, direct.reverse_kl, atol=1e-5)


class TestKeptHidden:
    def test_one_key_in_both_roles_where_both_see_the_same(self, replayed, tiny_run, tmp_path):
        _, _, plans, rollouts = replayed
        model = LazyModel(plans["first"].teacher, plans["first"].settings, "t", plans["first"].tokenizer)
        asked = []

        class Store:
            def shards(self, key, suffix, **_):
                asked.append(key)

        kept = KeptHidden(Store(), "float32")
        kept.states_of(model, rollouts, as_teacher=False)
        kept.states_of(model, rollouts, as_teacher=True)
        assert asked[0] == asked[1]
        other = [replace(r, teacher_prompt_ids=(1, *r.prompt_ids)) for r in rollouts]
        kept.states_of(model, other, as_teacher=False)
        kept.states_of(model, other, as_teacher=True)
        assert len(set(asked)) == 3
