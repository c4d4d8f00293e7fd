"""What each part is made from: what is in its key and what is not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_run as tiny

from opd_diag.records.scores import Scores
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay
from opd_diag.replay.parts import Parts
from opd_diag.runs import read_manifest

SMALL = {"checkpoints": "30", "max_prompts": 3, "max_new_tokens": 6}


@pytest.fixture
def loaded(monkeypatch):
    """Labels of the models that were put in memory."""
    from opd_diag.replay import lazy

    labels, load = [], lazy.Resident.load
    monkeypatch.setattr(
        lazy.Resident,
        "load",
        lambda self, found, *rest, **o: labels.append(found.label) or load(self, found, *rest, **o),
    )
    return labels


def planned(run, **options):
    manifest = read_manifest(run.run_dir)
    return make_plan(run.run_dir, settings_from(SMALL | options, manifest.settings, manifest.path), manifest)


def replayed(run, out, shared=None, **options):
    with open_store(out, run.run_dir, shared) as store:
        return replay(planned(run, **options), store)


def keys(out):
    return {name: part["key"] for name, part in json.loads((out / ".opd-diag.json").read_text())["parts"].items()}


def test_every_part_is_noted_and_nothing_else(tiny_run, tmp_path):
    replayed(tiny_run, tmp_path / "out")
    sets = ("on-policy", "start", "teacher")
    assert set(keys(tmp_path / "out")) == {
        "rollouts/teacher.jsonl", "rollouts/start.jsonl", ".checks/teacher.json",
        "selftest.json", ".checks/selftests/step-000000.json",
        *(f"rollouts/step-0000{s}.jsonl" for s in ("00", "30")), *(f".checks/step-0000{s}.json" for s in ("00", "30")),
        *(f"coverage/step-0000{s}.parquet" for s in ("00", "30")),
        *(f".checks/precision/{model}.json" for model in ("step-000000", "teacher")),
        *(f"scores/step-0000{s}.{states}.safetensors" for s in ("00", "30") for states in sets),
        *(f"fits/step-0000{s}.{states}.safetensors" for s in ("00", "30") for states in sets),
    }  # fmt: skip
    assert len(set(keys(tmp_path / "out").values())) == 24


def test_where_results_are_shared_is_in_no_key(tiny_run, tmp_path):
    replayed(tiny_run, tmp_path / "plain")
    replayed(tiny_run, tmp_path / "out", tmp_path / "shared", store=str(tmp_path / "shared"))
    assert keys(tmp_path / "out") == keys(tmp_path / "plain")
    kept = {path.parent.name for path in (tmp_path / "shared").rglob("*.*") if path.is_file()}
    assert kept == {key for key in keys(tmp_path / "out").values() if key}


def test_a_teacher_that_moved_is_the_same_teacher_by_its_new_name(own_run, tmp_path, loaded):
    first = replayed(own_run, tmp_path / "out")
    own_run.teacher.rename(own_run.root / "wise")
    tiny.write_manifest(own_run, teacher="../wise")
    loaded.clear()
    again = replayed(own_run, tmp_path / "out")
    assert loaded == []
    for old, new in zip(first.scored, again.scored, strict=True):
        assert old.scores.provenance["teacher"]["name"] == "teacher"
        assert new.scores.provenance["teacher"]["name"] == "wise"
        np.testing.assert_array_equal(old.scores.reverse_kl, new.scores.reverse_kl)
    assert set(again.coverage["teacher"]) == {"wise"}
    assert json.loads((tmp_path / "out/selftest.json").read_text())["head"][-1]["model"] == "wise"


def test_the_same_weights_under_another_step_are_another_part(own_run, tmp_path, loaded):
    """Their responses are drawn from another stream, and their records say another step."""
    replayed(own_run, tmp_path / "out", tmp_path / "shared")
    own_run.checkpoint(30).rename(own_run.checkpoint(40))
    loaded.clear()
    again = replayed(own_run, tmp_path / "again", tmp_path / "shared", checkpoints="40")
    assert sorted(loaded) == ["step 40", "teacher"]
    assert {s.scores.provenance["student"]["label"] for s in again.scored} == {"step 0", "step 40"}
    assert {s.scores.provenance["checkpoint"]["step"] for s in again.scored} == {0, 40}


def test_runs_that_share_student_and_teacher_share_their_results(own_run, tmp_path, loaded):
    """Another run from the same start: its step 0 and teacher are not loaded to be sampled or scored again."""
    replayed(own_run, tmp_path / "out", tmp_path / "shared")
    other = own_run.root / "other"
    shutil.copytree(own_run.run_dir, other)
    loaded.clear()
    manifest = read_manifest(other)
    settings = settings_from(SMALL | {"checkpoints": "20"}, manifest.settings, manifest.path)
    with open_store(tmp_path / "second", other, tmp_path / "shared") as store:
        replay(make_plan(other, settings, manifest), store)
    assert sorted(loaded) == ["step 20", "teacher"]


def test_a_part_is_what_its_file_holds(tiny_run, tmp_path):
    plan = planned(tiny_run)
    with open_store(tmp_path / "out", tiny_run.run_dir) as store:
        parts = Parts(plan, store, lambda *told: None)
        student = parts.student(plan.first)
        rollouts = parts.rollouts(student)
        made = parts.scores(student, plan.first, "on-policy", rollouts, None)
        again = parts.scores(student, plan.first, "start", rollouts, made)
        assert parts.rollouts(student) == rollouts
    assert (made.provenance["states"], again.provenance["states"]) == ("on-policy", "start")
    stored = Scores.load(tmp_path / "out/scores/step-000000.start.safetensors")
    np.testing.assert_array_equal(stored.reverse_kl, made.reverse_kl)


def test_prompts_of_another_name_make_another_coverage(own_run, tmp_path):
    """Its rows name them, and which responses share a prompt decides what is near."""
    replayed(own_run, tmp_path / "out")
    before = keys(tmp_path / "out")
    own_run.prompts.write_text(own_run.prompts.read_text().replace('"id": "p', '"id": "q'))
    again = replayed(own_run, tmp_path / "out")
    assert set(again.coverage["prompt_id"]) == {"q0", "q1", "q2"}
    changed = {name.partition("/")[0] for name, key in keys(tmp_path / "out").items() if key != before[name]}
    assert changed == {"rollouts", "coverage"}


def test_what_stops_a_response_decides_the_scores_of_recorded_ones(tiny_run, tmp_path):
    replayed(tiny_run, tmp_path / "first")
    recorded = {"rollouts": str(tmp_path / "first/rollouts"), "states": "on-policy"}
    plain = replayed(tiny_run, tmp_path / "out", tmp_path / "shared", **recorded)
    other = tiny.byte_tokenizer()
    other.eos_token = tiny.SPECIAL[0]
    other.save_pretrained(tmp_path / "other")
    again = replayed(tiny_run, tmp_path / "out", tmp_path / "shared", **recorded, tokenizer=str(tmp_path / "other"))
    for old, new in zip(plain.scored, again.scored, strict=True):
        assert old.rollouts == new.rollouts
        assert set(new.scores.provenance["stop_ids"]) == {*old.scores.provenance["stop_ids"], tiny.BYTES}
        assert (new.scores.student_stop_logprobs > old.scores.student_stop_logprobs).all()


def test_stored_scores_are_held_against_the_tokenizers_of_today(own_run, tmp_path, monkeypatch):
    """The first time the teacher brought none; kept ids were never compared."""
    for file in own_run.teacher.glob("*token*"):
        file.unlink()
    done = replayed(own_run, tmp_path / "out")
    tiny.byte_tokenizer().save_pretrained(own_run.teacher)
    compared = set()
    monkeypatch.setattr("opd_diag.replay.parts.check_same_ids", lambda ids, *tokenizers: compared.update(ids))
    replayed(own_run, tmp_path / "out")
    for part in done.scored:
        assert {*part.scores.student_topk_ids.ravel(), *part.scores.teacher_topk_ids.ravel()} <= compared
