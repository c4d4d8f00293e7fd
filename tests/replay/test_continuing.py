"""Continuing prefixes of the tiny run: what models see, what is kept, and that an interrupted study goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_run as tiny

from opd_diag.inference import sample_rollouts
from opd_diag.replay import measured, open_store
from opd_diag.replay.continuing import Continuing
from opd_diag.replay.planning import plan_run
from opd_diag.replay.prefixes import prefixes_of

OPTIONS = {"states": ("on-policy", "teacher"), "checkpoints": "30", "max_prompts": 5}
DEPTHS = [2, 4]


@pytest.fixture(scope="module")
def replayed(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("continuing") / "out"
    plan = plan_run(tiny_run.run_dir, out=out, **OPTIONS)
    with open_store(out, plan.run_dir) as store:
        done, _ = measured(plan, store)
    last = [s for s in done.scored if s.checkpoint == done.checkpoints[-1]]
    own, theirs = ([r for s in last if s.states == of for r in s.rollouts] for of in OPTIONS["states"])
    return plan, out, done, own, theirs


def continued(replayed, grade=lambda ids, of: len(ids) > 3, progress=lambda *_: None, times=2):
    plan, out, done, own, theirs = replayed
    prefixes = prefixes_of(own, theirs, 4, most_prompts=5, stops=plan.tokenizer.stop_ids)
    with open_store(out, plan.run_dir) as store:
        made = Continuing(plan, store, done.checkpoints[-1], times, grade, progress).of_prefixes(prefixes, DEPTHS)
        return prefixes, made, store.account.made


@pytest.fixture(scope="module")
def found(replayed):
    return continued(replayed)


def test_every_prefix_is_continued_twice_by_both_at_every_depth(found):
    prefixes, made, _ = found
    assert len(prefixes["student"]) >= 4
    for kind, of in prefixes.items():
        for writer in ("student", "teacher"):
            for depth in DEPTHS:
                rows = [c for c in made if (c.prefix, c.writer, c.depth) == (kind, writer, depth)]
                assert len(rows) == 2 * len(of)
                assert len({(c.rollout.prompt_index, c.rollout.rollout_index) for c in rows}) == len(rows)


def test_what_was_continued_stands_before_it_and_was_not_generated(found):
    prefixes, made, _ = found
    for of in made:
        begun = {(p.rollout.prompt_index, p.rollout.rollout_index): p for p in prefixes[of.prefix]}
        prefix = begun[of.rollout.prompt_index, of.of_rollout]
        assert of.rollout.response_ids[: of.depth] == prefix.ids[: of.depth]
        assert of.rollout.state_positions[0] == of.depth
        assert of.depth < len(of.rollout.response_ids) <= tiny.MAX_NEW_TOKENS
        assert of.rollout.prompt_ids == prefix.rollout.prompt_ids
    assert {of.rollout.provenance.weights for of in made} == {"step 30", "teacher"}


def test_whole_responses_and_prefixes_are_graded(found):
    _, made, _ = found
    for of in made:
        assert of.rollout.is_correct == (len(of.rollout.response_ids) > 3)
        assert of.is_answered == (of.depth > 3)
        assert of.of_correct is True  # longer than the deepest prefix


def test_the_teacher_goes_on_as_it_would_alone(replayed, found):
    """Drawn once more from the teacher itself: the first token after each prefix has the likelihood it should have."""
    from opd_diag.inference import load_model
    from opd_diag.records.sampling import Sampling

    prefixes, made, _ = found
    plan = replayed[0]
    drawn = [c for c in made if (c.prefix, c.writer, c.depth) == ("student", "teacher", 4)]
    seed = drawn[0].rollout.provenance.seed
    model = load_model(plan.teacher, stop_ids=plan.tokenizer.stop_ids)
    prompts = [prefix.prompt(i, 4) for i, prefix in enumerate(prefixes["student"])]
    sampling = Sampling(2, tiny.MAX_NEW_TOKENS - 4, 1.0, 1.0, seed)
    alone = sample_rollouts(
        model, plan.tokenizer, prompts, sampling=sampling, vocabulary=plan.tokenizer.size, as_teacher=True
    )
    assert [c.rollout.response_ids[4:] for c in drawn] == [r.response_ids for r in alone]


def test_depths_and_kinds_draw_other_numbers(found):
    _, made, _ = found
    assert len({c.rollout.provenance.seed for c in made}) == 3 * len(DEPTHS)


def test_what_is_stored_is_read(replayed, found):
    _, made, parts = found
    told = []
    _, again, anew = continued(replayed, progress=lambda *of: told.append(of))
    assert (parts, anew, told) == (2 * 3 * len(DEPTHS), 0, [])
    assert again == made


def test_other_grades_need_no_other_continuations(replayed, found):
    _, again, anew = continued(replayed, grade=lambda ids, of: None)
    assert anew == 0
    assert {of.rollout.is_correct for of in again} == {None}


def test_a_damaged_part_is_made_again(replayed, found):
    path = replayed[1] / "continuations" / "teacher.filler.000004.jsonl"
    path.write_bytes(path.read_bytes().replace(b"sampled", b"sampleD", 1))
    _, again, anew = continued(replayed)
    assert anew == 1
    assert again == found[1]


def of_nothing(replayed, own, theirs):
    plan, out, done, *_ = replayed
    prefixes = prefixes_of(own, theirs, 4, most_prompts=5)["student"]
    with open_store(out, plan.run_dir) as store:
        continuing = Continuing(plan, store, done.checkpoints[-1], 2, lambda ids, of: True, lambda *_: None)
        return prefixes, continuing.of_nothing(own, theirs, prefixes), store.account.made


def test_the_whole_responses_of_the_replay_are_continuations_of_nothing(replayed):
    *_, own, theirs = replayed
    _, made, parts = of_nothing(replayed, own, theirs)
    assert [c.rollout.response_ids for c in made] == [r.response_ids for r in (*own, *theirs)]
    assert {(c.prefix, c.depth) for c in made} == {("none", 0)}
    assert parts == 0


def test_recorded_responses_may_have_been_drawn_otherwise_and_are_drawn_anew(replayed):
    *_, own, theirs = replayed
    recorded = [replace(r, provenance=replace(r.provenance, origin="recorded")) for r in own]
    prefixes, made, parts = of_nothing(replayed, recorded, theirs)
    assert parts == 1
    drawn = [c.rollout for c in made if c.writer == "student"]
    assert len(drawn) == 2 * len(prefixes)
    assert {r.provenance.origin for r in drawn} == {"sampled"}
    assert {r.state_positions[0] for r in drawn} == {0}


def test_what_was_interrupted_goes_on(replayed, found):
    """It is killed at the teacher's first part, when those of the student are stored; other parts by the same names."""

    def killed(what, done, total):
        if what.startswith("teacher"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continued(replayed, progress=killed, times=1)
    prefixes, made, anew = continued(replayed, times=1)
    assert anew == 3 * len(DEPTHS)
    assert len(made) == 2 * len(DEPTHS) * sum(map(len, prefixes.values()))
