"""The teacher's body runs once over states that several checkpoints are scored at, and no number depends on it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny_run as tiny

from opd_diag.inference import block, packing
from opd_diag.inference.hidden import HiddenStates
from opd_diag.records.scores import TENSOR_FIELDS
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, parts, replay
from opd_diag.replay.parts import Parts
from opd_diag.runs import read_manifest

SMALL = {"max_prompts": 4, "max_new_tokens": 6}
MORE = {5: 0.2, 15: 0.6, 25: 0.9, 35: 1.0}
"""Steps beside those of the tiny run; seven after step 0."""


@pytest.fixture(scope="module")
def long_run(tiny_run, tmp_path_factory):
    """A run of one step 0 and seven checkpoints, to be read and not changed."""
    run = tiny_run.copied_to(tmp_path_factory.mktemp("long") / "run")
    student, other = tiny.model(seed=1), tiny.model(seed=2)
    for step, share in MORE.items():
        tiny.save(tiny.between(student, other, 0.4 * share), run.checkpoint(step), tiny.byte_tokenizer())
    return run


def replayed(run, out, shared=None, **options):
    manifest = read_manifest(run.run_dir)
    plan = make_plan(run.run_dir, settings_from(SMALL | options, manifest.settings, manifest.path), manifest)
    with open_store(out, run.run_dir, shared) as store:
        return replay(plan, store)


@pytest.fixture
def passes(monkeypatch):
    """(label, states, tokens through the student's body, tokens through the teacher's) of each scoring, in order.

    The measurement of whether a model takes packs comes before, so that tokens are those of the states alone.
    """
    counted, score = [], parts.score

    def spy(student, teacher, rollouts, *, states, **options):
        _ = student.takes_packs, teacher.takes_packs
        before = student.forwarded.tokens, teacher.forwarded.tokens
        try:
            return score(student, teacher, rollouts, states=states, **options)
        finally:
            counted.append(
                (student.label, states, student.forwarded.tokens - before[0], teacher.forwarded.tokens - before[1])
            )

    monkeypatch.setattr(parts, "score", spy)
    return counted


@pytest.fixture
def cut_small(monkeypatch):
    """Make a few responses enough for several packs and shards."""
    monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", 25)
    monkeypatch.setattr("opd_diag.inference.shards.TOKENS_PER_SHARD", 30)


def tokens_of(rollouts):
    """Tokens of states: every prompt once, for its group fits into one pack."""
    return sum(map(len, {r.prompt_ids for r in rollouts})) + sum(len(r.response_ids) for r in rollouts)


def of(done, states, label=None):
    return next(s for s in done.scored if s.states == states and label in (None, s.checkpoint.label))


def assert_same(first, second):
    assert [(s.checkpoint.label, s.states) for s in first.scored] == [
        (s.checkpoint.label, s.states) for s in second.scored
    ]
    for a, b in zip(first.scored, second.scored, strict=True):
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(a.scores, name), getattr(b.scores, name), err_msg=name)


def kept_in(out):
    """Names of the files of hidden states."""
    from safetensors import safe_open

    names = []
    for path in (out / ".shards").rglob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            if list(file.keys()) == ["states"]:
                names.append(path)
    return sorted(names)


@pytest.mark.parametrize("states", ["start", "teacher"])
def test_eight_checkpoints_on_one_set_are_nine_passes(long_run, tmp_path, passes, states):
    done = replayed(long_run, tmp_path / "out", states=states)
    tokens = tokens_of(done.scored[0].rollouts)
    assert tokens > 50
    assert len(passes) == len(done.scored) == 8
    assert [student for _, _, student, _ in passes] == [tokens] * 8
    assert [teacher for *_, teacher in passes] == [tokens] + [0] * 7
    assert sum(student + teacher for *_, student, teacher in passes) == 9 * tokens


@pytest.mark.usefixtures("cut_small")
def test_of_several_shards_too(long_run, tmp_path, passes):
    done = replayed(long_run, tmp_path / "out", states="teacher")
    tokens = tokens_of(done.scored[0].rollouts)
    assert [student for _, _, student, _ in passes] == [tokens] * 8
    assert [teacher for *_, teacher in passes] == [tokens] + [0] * 7


def test_own_states_are_run_by_both_and_those_of_the_first_are_the_start(tiny_run, tmp_path, passes):
    done = replayed(tiny_run, tmp_path / "out")
    start, teachers = (tokens_of(of(done, states).rollouts) for states in ("start", "teacher"))
    own = {s.checkpoint.label: tokens_of(s.rollouts) for s in done.scored if s.states == "on-policy"}
    later = ["step 10", "step 20", "step 30"]
    assert passes == [
        ("step 0", "on-policy", start, start),
        ("step 0", "teacher", teachers, teachers),
        *(
            row
            for label in later
            for row in (
                (label, "on-policy", own[label], own[label]),
                (label, "start", start, 0),
                (label, "teacher", teachers, 0),
            )
        ),
    ]


@pytest.mark.parametrize("small", [False, True], ids=["one shard", "several"])
def test_the_scores_are_those_of_each_checkpoint_alone(tiny_run, tmp_path, monkeypatch, request, small):
    if small:
        request.getfixturevalue("cut_small")
    shared = replayed(tiny_run, tmp_path / "shared")
    monkeypatch.setattr(Parts, "_used_again", lambda self, states, rollouts: False)
    saved = []
    monkeypatch.setattr(HiddenStates, "save", lambda self, path: saved.append(path))
    assert_same(shared, replayed(tiny_run, tmp_path / "alone"))
    assert saved == []


def test_what_is_kept_is_gone_after_the_report(tiny_run, tmp_path, monkeypatch):
    out, there = tmp_path / "out", []
    score = parts.score
    monkeypatch.setattr(parts, "score", lambda *a, **o: there.append(len(kept_in(out))) or score(*a, **o))
    replayed(tiny_run, out)
    assert there[0] == 0
    assert min(there[2:]) >= 2
    assert not (out / ".shards").exists()
    assert not [name for name in tiny.listing(out) if "shards" in name]
    assert '".shards' not in (out / ".opd-diag.json").read_text()


def test_what_is_kept_is_not_shared(tiny_run, tmp_path):
    """A shared folder holds what others can use; these states have served when the report is done."""
    done = replayed(tiny_run, tmp_path / "out", tmp_path / "shared")
    found = list((tmp_path / "shared").rglob("*.safetensors"))
    assert len(found) == 2 * len(done.scored)  # scores and fits


def test_one_checkpoint_alone_keeps_nothing(own_run, tmp_path, monkeypatch):
    for step in (10, 20):
        shutil.rmtree(own_run.checkpoint(step))
    tiny.write_manifest(own_run, student="")
    saved = []
    monkeypatch.setattr(HiddenStates, "save", lambda self, path: saved.append(path))
    done = replayed(own_run, tmp_path / "out")
    assert len(done.checkpoints) == 1
    assert saved == []


class Killed(BaseException):
    """As if the process were gone: nothing tidies up after it."""


def kill_at(monkeypatch, label, states, blocks=0):
    """End the replay when a set is scored, after so many blocks of it."""
    score, at_work = parts.score, []

    def spy(student, teacher, rollouts, **options):
        at_work[:] = [student.label, options["states"]]
        return score(student, teacher, rollouts, **options)

    one, seen = block.Blocks.score, []

    def block_spy(self, *tensors):
        if at_work == [label, states]:
            seen.append(1)
            if len(seen) > blocks:
                raise Killed
        return one(self, *tensors)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "score", spy)
        patch.setattr(block.Blocks, "score", block_spy)
        yield


@pytest.mark.usefixtures("cut_small")
class TestKilled:
    @pytest.fixture
    def whole(self, tiny_run, tmp_path, cut_small):
        return replayed(tiny_run, tmp_path / "whole", states="start,teacher")

    def run_until(self, monkeypatch, run, out, *moment):
        for _ in kill_at(monkeypatch, *moment):
            with pytest.raises(Killed):
                replayed(run, out, states="start,teacher")

    def test_among_later_checkpoints(self, tiny_run, tmp_path, monkeypatch, passes, whole):
        out = tmp_path / "out"
        self.run_until(monkeypatch, tiny_run, out, "step 20", "start", 1)
        assert len(kept_in(out)) > 2
        passes.clear()
        again = replayed(tiny_run, out, states="start,teacher")
        assert [row[:2] for row in passes] == [
            (label, states) for label in ("step 20", "step 30") for states in ("start", "teacher")
        ]
        assert {teacher for *_, teacher in passes} == {0}
        assert_same(whole, again)
        assert not (out / ".shards").exists()

    def test_between_the_teachers_states_and_the_first_scores(self, tiny_run, tmp_path, monkeypatch, passes, whole):
        out = tmp_path / "out"
        self.run_until(monkeypatch, tiny_run, out, "step 0", "start", 1)
        tokens = tokens_of(of(whole, "start").rollouts)
        ran = passes[-1][3]
        assert 0 < ran < tokens
        passes.clear()
        assert_same(whole, replayed(tiny_run, out, states="start,teacher"))
        assert passes[0][:2] == ("step 0", "start")
        assert passes[0][3] == tokens - ran, "the shards that were kept are found, the others are made"

    def test_a_kept_file_that_was_damaged_is_made_again_and_said(self, tiny_run, tmp_path, monkeypatch, passes, whole):
        out = tmp_path / "out"
        self.run_until(monkeypatch, tiny_run, out, "step 20", "start")
        kept = [path for path in kept_in(out) if len([*path.parent.iterdir()]) > 1]  # of scores: fits keep one shard
        data = bytearray(kept[0].read_bytes())
        data[-5] ^= 4
        kept[0].write_bytes(data)
        passes.clear()
        manifest = read_manifest(tiny_run.run_dir)
        options = settings_from(SMALL | {"states": "start,teacher"}, manifest.settings, manifest.path)
        with open_store(out, tiny_run.run_dir) as store:
            again = replay(make_plan(tiny_run.run_dir, options, manifest), store)
        assert [note for note in store.notes if "was damaged" in note] == [
            f"{kept[0]} was damaged (its checksum differs). It was made again."
        ]
        assert 0 < sum(teacher for *_, teacher in passes) < tokens_of(of(whole, "start").rollouts)
        assert_same(whole, again)

    def test_states_of_another_teacher_are_not_used(self, own_run, tmp_path, monkeypatch, passes):
        out = tmp_path / "out"
        options = {"states": "start"}
        for _ in kill_at(monkeypatch, "step 20", "start"):
            with pytest.raises(Killed):
                replayed(own_run, out, **options)
        assert kept_in(out)
        tiny.change_weights(own_run.teacher, lambda name, tensor: 1.1 * tensor if "norm" in name else tensor)
        passes.clear()
        again = replayed(own_run, out, **options)
        tokens = tokens_of(again.scored[0].rollouts)
        assert [teacher for *_, teacher in passes] == [tokens, 0, 0, 0]
        assert_same(again, replayed(own_run, tmp_path / "fresh", **options))


def test_a_checkpoint_that_breaks_leaves_them_to_the_next(own_run, tmp_path, passes):
    tiny.fill_with_nan(own_run.checkpoint(10))
    done = replayed(own_run, tmp_path / "out", states="start,teacher")
    assert [c.label for c in done.broken] == ["step 10"]
    start, teachers = (tokens_of(of(done, states).rollouts) for states in ("start", "teacher"))
    ran = {states: [t for _, s, _, t in passes if s == states] for states in ("start", "teacher")}
    assert sum(ran["start"]) == start
    assert sum(ran["teacher"]) == teachers
    assert not (tmp_path / "out" / ".shards").exists()
