"""Filling the store: what is made, what is used again, and what one broken checkpoint does to the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny_run as tiny
import torch

from opd_diag.errors import CheckpointError, ModelError, OpdDiagError, RunFolderError, TokenizerMismatchError
from opd_diag.inference.packing import TOKENS_PER_PACK
from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.scores import TENSOR_FIELDS, Scores
from opd_diag.records.settings import settings_from
from opd_diag.records.vocabulary import load_vocabulary
from opd_diag.replay import lazy, make_plan, open_store, parts, replay
from opd_diag.replay import sampled as sampled_module
from opd_diag.runs import fingerprint, read_manifest

LABELS = ["step 0", "step 10", "step 20", "step 30"]
STATES = ("on-policy", "start", "teacher")


@pytest.fixture
def loaded(monkeypatch):
    """Names of the models that were put in memory, in order."""
    names = []
    load = lazy.Resident.load

    def spy(resident, checkpoint, content, **options):
        names.append(checkpoint.label)
        return load(resident, checkpoint, content, **options)

    monkeypatch.setattr(lazy.Resident, "load", spy)
    return names


def replayed(run, out, progress=None, **options):
    manifest = read_manifest(run.run_dir)
    plan = make_plan(run.run_dir, settings_from(options, manifest.settings, manifest.path), manifest)
    with open_store(out, run.run_dir) as store:
        return replay(plan, store, progress)


def finished(out):
    """What lies in an OUT_DIR that a user would look at."""
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))


def assert_same_scores(first, second):
    assert [(s.checkpoint.label, s.states) for s in first.scored] == [
        (s.checkpoint.label, s.states) for s in second.scored
    ]
    for a, b in zip(first.scored, second.scored, strict=True):
        assert a.rollouts == b.rollouts
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(a.scores, name), getattr(b.scores, name), err_msg=name)


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    """A finished replay and its folder, to be read and not changed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return replayed(tiny_run, out), out


def test_every_checkpoint_on_every_state_set(whole):
    done, out = whole
    assert [(s.checkpoint.label, s.states) for s in done.scored] == [
        (label, states) for label in LABELS for states in STATES
    ]
    assert [c.label for c in done.checkpoints] == LABELS
    assert done.broken == ()
    slugs = ["step-000000", "step-000010", "step-000020", "step-000030"]
    assert sorted(os.listdir(out / "rollouts")) == ["start.jsonl", *(f"{s}.jsonl" for s in slugs), "teacher.jsonl"]
    assert sorted(os.listdir(out / "scores")) == [f"{s}.{states}.safetensors" for s in slugs for states in STATES]


def test_what_is_returned_is_what_is_stored(whole):
    done, out = whole
    for part in done.scored:
        stored = Scores.load(out / f"scores/{part.checkpoint.slug}.{part.states}.safetensors")
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(stored, name), getattr(part.scores, name))
        assert stored.provenance == json.loads(json.dumps(part.scores.provenance))
        assert stored.provenance["states"] == part.states
        assert stored.provenance["checkpoint"] == {"label": part.checkpoint.label, "step": part.checkpoint.step}
        assert stored.provenance["student"]["label"] == part.checkpoint.label
        assert stored.provenance["student"]["key"] == fingerprint(part.checkpoint)


def test_rollouts_say_who_wrote_them(whole):
    done, out = whole
    for checkpoint in done.checkpoints:
        rollouts = load_rollouts(out / f"rollouts/{checkpoint.slug}.jsonl")
        assert [(r.prompt_index, r.rollout_index) for r in rollouts] == [(p, i) for p in range(8) for i in range(2)]
        for r in rollouts:
            assert r.provenance.weights == checkpoint.label
            assert r.provenance.weights_key == fingerprint(checkpoint)
            assert (r.provenance.origin, r.provenance.step) == ("sampled", checkpoint.step)


def test_start_is_the_first_checkpoints_own(whole):
    done, out = whole
    assert (out / "rollouts/start.jsonl").read_bytes() == (out / "rollouts/step-000000.jsonl").read_bytes()
    own = {s.checkpoint.label: s.rollouts for s in done.scored if s.states == "on-policy"}
    start = {s.checkpoint.label: s.rollouts for s in done.scored if s.states == "start"}
    assert set(start) == set(LABELS)
    assert all(rollouts == own["step 0"] for rollouts in start.values())
    assert own["step 10"] != own["step 0"]


def test_the_first_checkpoint_is_scored_once(tiny_run, tmp_path, monkeypatch):
    scored = []
    score = parts.score

    def spy(student, teacher, rollouts, *, states, **options):
        scored.append((student.label, states))
        return score(student, teacher, rollouts, states=states, **options)

    monkeypatch.setattr(parts, "score", spy)
    replayed(tiny_run, tmp_path / "out", checkpoints="30")
    assert scored == [
        *(("step 0", states) for states in ("on-policy", "teacher")), *(("step 30", states) for states in STATES)
    ]  # fmt: skip


def test_the_head_of_every_model_is_checked(whole):
    _, out = whole
    checks = json.loads((out / "selftest.json").read_text())["head"]
    assert sorted(c["model"] for c in checks) == sorted([*LABELS, "teacher"])
    for check in checks:
        assert check["max_abs_difference"] <= check["tolerance"]
        assert check["n_states"] > 10


def test_the_vocabulary_holds_every_id_that_occurs(whole):
    done, out = whole
    vocabulary = load_vocabulary(out / "vocabulary.json")
    occurring = {i for s in done.scored for r in s.rollouts for i in (*r.prompt_ids, *r.response_ids)}
    occurring |= {int(i) for s in done.scored for i in s.scores.student_topk_ids.ravel()}
    occurring |= {int(i) for s in done.scored for i in s.scores.teacher_topk_ids.ravel()}
    assert set(vocabulary) == occurring
    assert vocabulary[10].text == "+"
    assert not vocabulary[10].special
    assert vocabulary[257].text == "<end>"
    assert vocabulary[257].special


def test_models_are_loaded_once_each(tiny_run, tmp_path, loaded):
    replayed(tiny_run, tmp_path / "out")
    assert sorted(loaded) == sorted([*LABELS, "teacher"])


def test_progress_counts_to_the_end(tiny_run, tmp_path):
    told = []
    replayed(tiny_run, tmp_path / "out", lambda *what: told.append(what), checkpoints="10")
    whats = list(dict.fromkeys(what for what, _, _ in told))
    tests = [f"self-tests, {what}, tokens" for what in ("first pass", "second pass", "as its own teacher")]
    floor = [f"precision floor, {what}, tokens" for what in ("batch shapes", "precisions")]
    scored = {s: [f"scoring {s} states, tokens", f"fits on {s} states"] for s in ("on-policy", "start", "teacher")}
    assert whats == [
        "teacher: sampling responses", "step 0: sampling responses",
        *(f"step 0: {what}" for what in (*tests, *floor)), *(f"teacher: {what}" for what in floor),
        *(f"step 0: {what}" for what in (*scored["on-policy"], *scored["teacher"])),
        "step 10: sampling responses", *(f"step 10: {what}" for s in scored for what in scored[s]),
    ]  # fmt: skip
    last = {what: (done, total) for what, done, total in told}
    assert all(done == total > 0 for done, total in last.values())
    assert last["step 0: sampling responses"] == (16, 16)
    for what in whats:
        counts = [done for name, done, _ in told if name == what]
        assert counts == sorted(counts)


# Parts that are finished are used again.


def test_nothing_is_loaded_the_second_time(tiny_run, tmp_path, loaded):
    first = replayed(tiny_run, tmp_path / "out")
    before = tiny.listing(tmp_path / "out" / "scores") | tiny.listing(tmp_path / "out" / "rollouts")
    selftest = (tmp_path / "out" / "selftest.json").read_bytes()
    loaded.clear()
    second = replayed(tiny_run, tmp_path / "out")
    assert loaded == []
    assert_same_scores(first, second)
    after = tiny.listing(tmp_path / "out" / "scores") | tiny.listing(tmp_path / "out" / "rollouts")
    assert {k: v for k, v in after.items() if k != "start.jsonl"} == {
        k: v for k, v in before.items() if k != "start.jsonl"
    }
    assert (tmp_path / "out" / "selftest.json").read_bytes() == selftest


def test_a_replay_from_scratch_gives_the_same(tiny_run, whole, tmp_path):
    assert_same_scores(whole[0], replayed(tiny_run, tmp_path / "out"))


@pytest.mark.parametrize("stop_at", [1, 4, 7, 10])
def test_interrupted_and_started_again_ends_in_the_same(tiny_run, whole, tmp_path, stop_at):
    calls = []

    def interrupt(what, done, total):
        calls.append(what)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replayed(tiny_run, tmp_path / "out", interrupt)
    assert_same_scores(whole[0], replayed(tiny_run, tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.part"))


def test_killed_and_started_again_ends_in_the_same(tiny_run, whole, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from opd_diag.diagnosis import diagnose\n"
        "def die(what, done, total):\n"
        "    if what == 'step 10: scoring start states, tokens': os.kill(os.getpid(), signal.SIGKILL)\n"
        "diagnose(sys.argv[1], out=sys.argv[2], progress=die)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, script, tiny_run.run_dir, out], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert (out / "scores/step-000010.on-policy.safetensors").exists()
    assert not (out / "scores/step-000010.start.safetensors").exists()
    assert_same_scores(whole[0], replayed(tiny_run, out))


@pytest.mark.parametrize(
    ("options", "made_again"),
    [
        pytest.param({"k": 4}, [], id="k"),
        pytest.param({"dtype": "float32"}, [], id="nothing"),
        pytest.param({"teacher_temperature": 2.0}, ["scores"], id="scored temperature"),
        pytest.param({"seed": 1}, ["rollouts", "scores"], id="seed"),
        pytest.param({"max_new_tokens": 4}, ["rollouts", "scores"], id="length"),
        pytest.param({"teacher_system_prompt": "Add."}, ["rollouts", "scores"], id="what the teacher sees"),
    ],
)
def test_a_changed_setting_makes_again_what_depends_on_it(
    tiny_run, whole, tmp_path, loaded, monkeypatch, options, made_again
):
    shutil.copytree(whole[1], tmp_path / "out")
    sampled = []
    sample = sampled_module.sample_rollouts
    monkeypatch.setattr(
        sampled_module, "sample_rollouts", lambda model, *a, **o: sampled.append(model.label) or sample(model, *a, **o)
    )
    again = replayed(tiny_run, tmp_path / "out", **options)
    assert sampled == (["teacher", *LABELS] if "rollouts" in made_again else [])
    assert sorted(loaded) == (sorted([*LABELS, "teacher"]) if made_again else [])
    fresh = replayed(tiny_run, tmp_path / "fresh", **options)
    assert_same_scores(again, fresh)
    if made_again:
        with pytest.raises(AssertionError):
            assert_same_scores(again, whole[0])


def test_a_part_that_was_deleted_is_made_again(tiny_run, whole, tmp_path, loaded):
    shutil.copytree(whole[1], tmp_path / "out")
    (tmp_path / "out/scores/step-000020.start.safetensors").unlink()
    assert_same_scores(whole[0], replayed(tiny_run, tmp_path / "out"))
    assert sorted(loaded) == ["step 20", "teacher"]


def test_new_weights_are_scored_anew(own_run, tmp_path, loaded):
    first = replayed(own_run, tmp_path / "out")
    loaded.clear()
    tiny.change_weights(own_run.checkpoint(20), lambda name, tensor: tensor * 1.1)
    second = replayed(own_run, tmp_path / "out")
    assert sorted(loaded) == ["step 20", "teacher"]
    kls = [[float(s.scores.reverse_kl.mean()) for s in done.scored] for done in (first, second)]
    changed = [a != b for a, b in zip(*kls, strict=True)]
    assert changed == [False] * 6 + [True] * 3 + [False] * 3


def test_a_later_checkpoint_is_added_to_what_is_there(own_run, tmp_path, loaded):
    shutil.move(own_run.checkpoint(30), own_run.root / "later")
    replayed(own_run, tmp_path / "out")
    loaded.clear()
    shutil.move(own_run.root / "later", own_run.checkpoint(30))
    done = replayed(own_run, tmp_path / "out")
    assert [c.label for c in done.checkpoints] == LABELS
    assert sorted(loaded) == ["step 30", "teacher"]


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("scores/step-000020.start.safetensors", ["step 20", "teacher"]),
        ("rollouts/step-000010.jsonl", ["step 10", "teacher"]),
        ("rollouts/teacher.jsonl", ["teacher"]),
        ("coverage/step-000030.parquet", ["teacher"]),
        (".checks/step-000020.json", ["step 20"]),
    ],
)
@pytest.mark.parametrize("harm", ["flipped", "cut", "exchanged"])
def test_a_damaged_part_is_made_again_and_said(tiny_run, whole, tmp_path, loaded, name, models, harm):
    out = tmp_path / "out"
    shutil.copytree(whole[1], out)
    good = (out / name).read_bytes()
    if harm == "flipped":
        middle = len(good) // 2
        (out / name).write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    elif harm == "cut":
        (out / name).write_bytes(good[:100])
    else:
        other = next(p for p in sorted((out / name).parent.iterdir()) if p.is_file() and p.read_bytes() != good)
        shutil.copy(other, out / name)
    manifest = read_manifest(tiny_run.run_dir)
    plan = make_plan(tiny_run.run_dir, settings_from({}, manifest.settings, manifest.path), manifest)
    with open_store(out, tiny_run.run_dir) as store:
        assert_same_scores(whole[0], replay(plan, store))
        assert store.notes == [f"{out / name} was damaged (its checksum differs). It was made again."]
    assert sorted(loaded) == models
    assert (out / name).read_bytes() == good
    assert finished(out) == finished(whole[1])


# One broken checkpoint, and the others.


def make_infinite(folder):
    """Weights whose logits overflow: the model loads, and gives infinities."""
    tiny.change_weights(folder, lambda name, tensor: tensor * 1e38 if name.startswith("lm_head") else tensor)


def no_place_for(folder):
    """Weights of another shape than the config says: the file is whole, the model does not load."""
    tiny.save(tiny.model(seed=9, width=64), folder / "other", None)
    shutil.copy(folder / "other" / "model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (tiny.fill_with_nan, "NaN"),
        (make_infinite, "infinite"),
        (no_place_for, "shape"),
        (lambda f: (f / "config.json").write_text("{}"), "load"),
    ],
    ids=["NaN", "infinite", "shapes", "config"],
)
def test_a_broken_checkpoint_is_named_and_the_others_go_on(own_run, whole, tmp_path, harm, said):
    """And mended, it is picked up."""
    shutil.copytree(own_run.checkpoint(20), tmp_path / "sound")
    harm(own_run.checkpoint(20))
    done = replayed(own_run, tmp_path / "out")
    assert [c.label for c in done.checkpoints] == ["step 0", "step 10", "step 30"]
    assert [c.label for c in done.broken] == ["step 20"]
    assert said in done.broken[0].blocker
    assert not done.broken[0].loadable
    expected = replace(whole[0], scored=tuple(s for s in whole[0].scored if s.checkpoint.label != "step 20"))
    assert_same_scores(expected, done)
    assert "step-000020" not in " ".join(str(p) for p in (tmp_path / "out").rglob("*"))
    shutil.copytree(tmp_path / "sound", own_run.checkpoint(20), dirs_exist_ok=True)
    assert_same_scores(whole[0], replayed(own_run, tmp_path / "out"))


@pytest.fixture
def cut_small(monkeypatch):
    """Make a few responses enough for several shards."""
    monkeypatch.setattr("opd_diag.inference.shards.TOKENS_PER_SHARD", 200)
    monkeypatch.setitem(TOKENS_PER_PACK, "cpu", 100)


def test_a_checkpoint_that_breaks_in_the_midst_of_scoring(own_run, tmp_path, cut_small):
    """It gives NaN where one token was read: its own states are fine, of the teacher's some; mended, it is scored."""
    whole = replayed(own_run, tmp_path / "whole")
    own, teachers = (
        next(s.rollouts for s in whole.scored if (s.checkpoint.label, s.states) == ("step 20", states))
        for states in ("on-policy", "teacher")
    )
    start = next(s.rollouts for s in whole.scored if s.states == "start")
    read_before = {i for r in (*own, *start) for i in (*r.prompt_ids, *r.response_ids)}
    shortest = min(teachers, key=lambda r: len(r.prompt_ids) + len(r.response_ids))
    bad = next(i for r in (shortest, *teachers) for i in r.response_ids[:-1] if i not in read_before)

    def poison(name, tensor):
        if name == "model.embed_tokens.weight":
            tensor[bad] = torch.inf
        return tensor

    sound = (own_run.checkpoint(20) / "model.safetensors").read_bytes()
    tiny.change_weights(own_run.checkpoint(20), poison)
    out = tmp_path / "out"
    done = replayed(own_run, out)
    assert [c.label for c in done.broken] == ["step 20"]
    assert "step 20 gives NaN or infinite logits at rollout" in done.broken[0].blocker
    assert_same_scores(replace(whole, scored=tuple(s for s in whole.scored if s.checkpoint.label != "step 20")), done)
    assert not (out / ".shards").exists(), "what was scored of it serves nobody"
    (own_run.checkpoint(20) / "model.safetensors").write_bytes(sound)
    mended = replayed(own_run, out)
    assert mended.broken == ()
    assert_same_scores(whole, mended)


@pytest.mark.parametrize(("harm", "error"), [(tiny.fill_with_nan, ModelError), (no_place_for, CheckpointError)])
def test_a_broken_step_zero_is_an_error(own_run, tmp_path, harm, error):
    harm(own_run.student)
    with pytest.raises(error, match=r"step 0|student"):
        replayed(own_run, tmp_path / "out")
    assert finished(tmp_path / "out") == ["rollouts/teacher.jsonl"]


def test_all_broken_is_an_error(own_run, tmp_path):
    tiny.write_manifest(own_run, student="")
    for step in tiny.STEPS:
        tiny.fill_with_nan(own_run.checkpoint(step))
    with pytest.raises(RunFolderError, match=r"None of the 3 checkpoints could be scored.*step 10.*NaN"):
        replayed(own_run, tmp_path / "out")
    assert finished(tmp_path / "out") == ["rollouts/teacher.jsonl"]


def test_without_step_zero_the_first_that_works_is_the_start(own_run, tmp_path):
    tiny.write_manifest(own_run, student="")
    tiny.fill_with_nan(own_run.checkpoint(10))
    done = replayed(own_run, tmp_path / "out")
    assert [c.label for c in done.checkpoints] == ["step 20", "step 30"]
    start = load_rollouts(tmp_path / "out/rollouts/start.jsonl")
    assert {r.provenance.weights for r in start} == {"step 20"}


@pytest.mark.parametrize("step_zero_known", [True, False])
def test_a_broken_teacher_is_an_error_that_names_the_teacher(own_run, tmp_path, step_zero_known):
    if not step_zero_known:
        tiny.write_manifest(own_run, student="")
    tiny.fill_with_nan(own_run.teacher)
    with pytest.raises(OpdDiagError, match=r"teacher gives NaN"):
        replayed(own_run, tmp_path / "out")


def test_a_teacher_that_does_not_load_is_no_fault_of_the_checkpoints(own_run, tmp_path):
    no_place_for(own_run.teacher)
    with pytest.raises(OpdDiagError, match=r"^The teacher cannot be loaded\."):
        replayed(own_run, tmp_path / "out")


def test_ids_of_responses_that_mean_something_else_are_refused(own_run, tmp_path):
    tokenizer = json.loads((own_run.teacher / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    letters = {c: i for c, i in vocabulary.items() if c.isalpha() and c.isascii()}
    for ours, theirs in zip(letters, reversed(letters), strict=True):
        vocabulary[ours] = letters[theirs]
    (own_run.teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TokenizerMismatchError, match="for the student"):
        replayed(own_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_padding_rows_of_the_vocabulary_are_cut(own_run, tmp_path):
    padded = tiny.model(seed=1, vocabulary=tiny.VOCABULARY + 27)
    tiny.save(padded, own_run.teacher, tiny.byte_tokenizer())
    done = replayed(own_run, tmp_path / "out")
    for part in done.scored:
        assert part.scores.provenance["common_vocabulary"] == tiny.VOCABULARY
        assert (part.scores.teacher_cut_mass > 0).all()
        assert (part.scores.student_cut_mass == 0).all()


# Recorded rollouts.


def test_recorded_rollouts_are_used_and_missing_sets_sampled(tiny_run, whole, tmp_path, monkeypatch):
    """Those of two checkpoints from an earlier report: the other two sample on the same prompts."""
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for slug in ("step-000000", "step-000020"):
        shutil.copy(whole[1] / f"rollouts/{slug}.jsonl", recorded)
    sampled = []
    sample = sampled_module.sample_rollouts
    monkeypatch.setattr(
        sampled_module, "sample_rollouts", lambda model, *a, **o: sampled.append(model.label) or sample(model, *a, **o)
    )
    done = replayed(tiny_run, tmp_path / "out", rollouts=str(recorded), seed=77)
    assert sampled == ["teacher", "step 10", "step 30"]
    own = {s.checkpoint.label: s.rollouts for s in done.scored if s.states == "on-policy"}
    before = {s.checkpoint.label: s.rollouts for s in whole[0].scored if s.states == "on-policy"}
    assert own["step 0"] == before["step 0"]
    assert own["step 20"] == before["step 20"]
    assert own["step 10"] != before["step 10"]
    assert [r.prompt_ids for r in own["step 10"]] == [r.prompt_ids for r in before["step 10"]]
    assert [r.answer for r in own["step 10"]] == [r.answer for r in before["step 10"]]
    assert load_rollouts(tmp_path / "out/rollouts/start.jsonl") == list(before["step 0"])


def test_all_recorded_rollouts_give_the_same_scores(tiny_run, whole, tmp_path):
    assert_same_scores(whole[0], replayed(tiny_run, tmp_path / "out", rollouts=str(whole[1] / "rollouts"), seed=77))


def test_changed_recorded_rollouts_are_scored_anew(tiny_run, whole, tmp_path):
    rollouts = load_rollouts(whole[1] / "rollouts/step-000030.jsonl")
    save_rollouts(tmp_path / "recorded.jsonl", rollouts)
    first = replayed(tiny_run, tmp_path / "out", rollouts=str(tmp_path / "recorded.jsonl"))
    changed = [replace(r, response_ids=(65, *r.response_ids[1:])) for r in rollouts]
    save_rollouts(tmp_path / "recorded.jsonl", changed)
    second = replayed(tiny_run, tmp_path / "out", rollouts=str(tmp_path / "recorded.jsonl"))
    own = [s for s in second.scored if (s.checkpoint.label, s.states) == ("step 30", "on-policy")]
    assert (own[0].scores.sampled_ids[own[0].scores.position == 0] == 65).all()
    assert_same_scores(
        replace(first, scored=first.scored[:9] + first.scored[10:]),
        replace(second, scored=second.scored[:9] + second.scored[10:]),
    )


# Adapters.


@pytest.fixture
def adapter_run(own_run):
    """The run with LoRA adapters on the student in place of full weights; they differ more and more from it."""
    import peft
    from transformers import Qwen3ForCausalLM

    for i, step in enumerate(tiny.STEPS):
        shutil.rmtree(own_run.checkpoint(step))
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        base = Qwen3ForCausalLM.from_pretrained(own_run.student, local_files_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            model = peft.get_peft_model(base, config)
        torch.manual_seed(step)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2 * (i + 1))
        model.save_pretrained(own_run.checkpoint(step))
    return own_run


def test_adapters_on_a_base_model(adapter_run, tmp_path):
    done = replayed(adapter_run, tmp_path / "out")
    assert [(c.label, c.kind) for c in done.checkpoints] == [
        ("step 0", "full"), *((f"step {s}", "adapter") for s in tiny.STEPS),
    ]  # fmt: skip
    start = [s.scores for s in done.scored if s.states == "start"]
    moved = [float(np.abs(s.student_entropy - start[0].student_entropy).mean()) for s in start]
    assert moved[0] == 0
    assert 0.001 < moved[1] < moved[2] < moved[3]
    np.testing.assert_array_equal(start[3].teacher_entropy, start[0].teacher_entropy)


def test_adapters_give_what_their_merged_weights_give(adapter_run, tmp_path):
    import peft
    from transformers import Qwen3ForCausalLM

    as_adapters = replayed(adapter_run, tmp_path / "adapters")
    base = Qwen3ForCausalLM.from_pretrained(adapter_run.student, local_files_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        merged = peft.PeftModel.from_pretrained(base, str(adapter_run.checkpoint(30))).merge_and_unload()
    shutil.rmtree(adapter_run.checkpoint(30))
    tiny.save(merged, adapter_run.checkpoint(30), tiny.byte_tokenizer())
    as_full = replayed(adapter_run, tmp_path / "full")
    for a, b in zip(as_adapters.scored, as_full.scored, strict=True):
        np.testing.assert_allclose(a.scores.reverse_kl, b.scores.reverse_kl, atol=1e-5)


def test_base_model_given_by_hand(adapter_run, tmp_path):
    moved = adapter_run.root / "elsewhere"
    shutil.move(adapter_run.student, moved)
    tiny.write_manifest(adapter_run, student="../elsewhere")
    manifest = read_manifest(adapter_run.run_dir)
    with pytest.raises(RunFolderError, match=r"base model.*--base-model"):
        make_plan(adapter_run.run_dir, settings_from({}, manifest.settings, manifest.path), manifest)
    done = replayed(adapter_run, tmp_path / "out", base_model=str(moved))
    assert len(done.checkpoints) == 4


def test_the_model_under_the_adapters_is_step_zero(adapter_run, tmp_path):
    named = replayed(adapter_run, tmp_path / "named")
    tiny.write_manifest(adapter_run, student="")
    manifest = read_manifest(adapter_run.run_dir)
    plan = make_plan(adapter_run.run_dir, settings_from({}, manifest.settings, manifest.path), manifest)
    assert plan.step_zero_known
    assert plan.first.path.resolve() == adapter_run.student
    assert any("the model under the adapters" in note and "--student" in note for note in plan.notes)
    with open_store(tmp_path / "found", adapter_run.run_dir) as store:
        assert_same_scores(replay(plan, store), named)


def test_full_weights_have_no_step_zero_of_their_own(own_run):
    tiny.write_manifest(own_run, student="")
    manifest = read_manifest(own_run.run_dir)
    plan = make_plan(own_run.run_dir, settings_from({}, manifest.settings, manifest.path), manifest)
    assert not plan.step_zero_known


# What is not asked for is not done.


def test_the_teachers_responses_are_its_own_and_sampled_once(whole):
    done, out = whole
    rollouts = load_rollouts(out / "rollouts/teacher.jsonl")
    assert [(r.prompt_index, r.rollout_index) for r in rollouts] == [(p, i) for p in range(8) for i in range(2)]
    assert {(r.provenance.weights, r.provenance.step, r.provenance.origin) for r in rollouts} == {
        ("teacher", None, "sampled")
    }
    assert len({r.provenance.weights_key for r in rollouts}) == 1
    on_teacher = [s for s in done.scored if s.states == "teacher"]
    assert all(list(s.rollouts) == rollouts for s in on_teacher)
    for part in on_teacher:  # sampled from the very distribution that is scored as the teacher's
        ids = [r.sampled_logprobs for r in rollouts]
        sampled = part.scores.teacher_sampled_logprobs[~part.scores.terminal]
        np.testing.assert_allclose(np.concatenate([np.array(i) for i in ids]), sampled, atol=1e-4)


def test_the_teacher_reads_its_own_prompts(tiny_run, tmp_path):
    done = replayed(tiny_run, tmp_path / "out", states="teacher", teacher_system_prompt="Add.", checkpoints="30")
    for part in done.scored:
        assert all(r.prompt_ids != r.teacher_prompt_ids for r in part.rollouts)
        ids = np.concatenate([np.array(r.sampled_logprobs) for r in part.rollouts])
        sampled = part.scores.teacher_sampled_logprobs[~part.scores.terminal]
        np.testing.assert_allclose(ids, sampled, atol=1e-4)


def test_teacher_states_alone_sample_the_teacher_alone(tiny_run, whole, tmp_path):
    out = tmp_path / "out"
    done = replayed(tiny_run, out, states="teacher")
    assert sorted(p.name for p in (out / "rollouts").iterdir()) == ["teacher.jsonl"]
    for mine, theirs in zip(done.scored, [s for s in whole[0].scored if s.states == "teacher"], strict=True):
        np.testing.assert_array_equal(mine.scores.reverse_kl, theirs.scores.reverse_kl)
    assert done.coverage is None


def test_back_is_the_first_checkpoint_on_the_states_of_each(tiny_run, whole, tmp_path, loaded):
    done = replayed(tiny_run, tmp_path / "out", states="on-policy,back")
    assert [(s.checkpoint.label, s.states) for s in done.scored] == [
        (label, states) for label in LABELS for states in ("on-policy", "back")
    ]
    own = {s.checkpoint.label: s for s in done.scored if s.states == "on-policy"}
    back = {s.checkpoint.label: s for s in done.scored if s.states == "back"}
    for label in LABELS:
        assert back[label].rollouts == own[label].rollouts
        assert back[label].scores.provenance["student"]["label"] == "step 0"
        assert back[label].scores.provenance["checkpoint"]["label"] == label
        same_teacher = back[label].scores.teacher_entropy, own[label].scores.teacher_entropy
        np.testing.assert_allclose(*same_teacher, atol=1e-5)
    np.testing.assert_array_equal(back["step 0"].scores.reverse_kl, own["step 0"].scores.reverse_kl)
    assert abs(back["step 30"].scores.reverse_kl - own["step 30"].scores.reverse_kl).mean() > 0.1
    loaded.clear()
    again = replayed(tiny_run, tmp_path / "out", states="on-policy,back")
    assert loaded == []
    assert_same_scores(done, again)


def test_back_alone_checks_every_head_all_the_same(tiny_run, whole, tmp_path):
    done = replayed(tiny_run, tmp_path / "out", states="back")
    assert [(s.checkpoint.label, s.states) for s in done.scored] == [(label, "back") for label in LABELS]
    checked = json.loads((tmp_path / "out/selftest.json").read_text())["head"]
    assert [check["model"] for check in checked] == [*LABELS, "teacher"]
    own = next(s for s in whole[0].scored if s.states == "on-policy")
    np.testing.assert_array_equal(done.scored[0].scores.reverse_kl, own.scores.reverse_kl)


def test_a_start_that_fails_on_anothers_states_names_the_way_out(tiny_run, tmp_path, monkeypatch):
    score = parts.score

    def failing(student, *args, states, **options):
        if states == "back":
            raise ModelError(f"{student.name} gives NaN.")
        return score(student, *args, states=states, **options)

    monkeypatch.setattr(parts, "score", failing)
    with pytest.raises(ModelError, match=r"^step 0 gives NaN\. .* leave back out of --states\.$"):
        replayed(tiny_run, tmp_path / "out", states="on-policy,back", checkpoints="30")


def test_coverage_says_which_of_the_teachers_states_each_checkpoint_comes_near(whole, tiny_run, tmp_path, loaded):
    done, out = whole
    table = done.coverage
    assert list(dict.fromkeys(table["label"])) == LABELS
    assert {float(v) for v in table["is_covered"].unique()} <= {0.0, 1.0}
    assert 0 < table["is_covered"].mean() < 1
    n_states = sum(len(r.response_ids) for r in load_rollouts(out / "rollouts/teacher.jsonl"))
    assert (table.groupby("label").size() <= n_states).all()
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out/coverage/step-000020.parquet").unlink()
    again = replayed(tiny_run, tmp_path / "out")
    assert loaded == ["teacher"]
    pd.testing.assert_frame_equal(again.coverage, table)


def test_responses_of_another_teacher_are_sampled_anew(own_run, whole, tmp_path):
    tiny.change_weights(own_run.teacher, lambda name, tensor: tensor * 1.1)
    manifest = read_manifest(own_run.run_dir)
    settings = settings_from({"rollouts": str(whole[1] / "rollouts")}, manifest.settings, manifest.path)
    plan = make_plan(own_run.run_dir, settings, manifest)
    assert set(plan.recorded) == set(LABELS)
    assert any("are of another teacher and were not used" in note for note in plan.notes)


def test_start_states_alone_sample_the_first_checkpoint_alone(tiny_run, whole, tmp_path):
    out = tmp_path / "out"
    done = replayed(tiny_run, out, states="start")
    assert sorted(p.name for p in (out / "rollouts").iterdir()) == ["start.jsonl", "step-000000.jsonl"]
    assert [s.states for s in done.scored] == ["start"] * 4
    for mine, theirs in zip(done.scored, [s for s in whole[0].scored if s.states == "start"], strict=True):
        np.testing.assert_array_equal(mine.scores.reverse_kl, theirs.scores.reverse_kl)


def test_checks_of_models_that_were_not_run_again_stand(own_run, tmp_path):
    out = tmp_path / "out"
    replayed(own_run, out)
    before = json.loads((out / "selftest.json").read_text())["head"]
    (out / "scores" / "step-000030.on-policy.safetensors").unlink()
    replayed(own_run, out)
    after = json.loads((out / "selftest.json").read_text())["head"]
    assert [check["model"] for check in after] == [check["model"] for check in before]
    assert len(after) == 5


def test_a_teacher_with_too_little_room_is_told_before_anything_is_sampled(own_run, tmp_path):
    config = own_run.teacher / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 12}))
    with pytest.raises(OpdDiagError, match=r"the 12 tokens that the teacher takes\. Lower --max-new-tokens"):
        replayed(own_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
