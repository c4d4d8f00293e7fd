"""What a replay reads of the weights: each file once, only tensors that changed, never two checkpoints in one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_run as tiny
from model_server import ModelServer

from opd_diag.errors import CheckpointError, InputError
from opd_diag.inference import load_model, swapping
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.scores import TENSOR_FIELDS
from opd_diag.records.settings import settings_from
from opd_diag.replay import lazy, make_plan, open_store, replay
from opd_diag.runs import contents, digests, read_manifest
from opd_diag.runs.digests import DIGESTS, Digests

SMALL = {"max_prompts": 2, "rollouts_per_prompt": 1, "max_new_tokens": 4}
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let tiny files of weights be large enough to be remembered."""
    monkeypatch.setattr(digests, "_SAMPLES", 2)
    monkeypatch.setattr(digests, "_SAMPLE", 2**14)


@pytest.fixture
def reads(monkeypatch):
    """Folders whose weights were read from end to end."""
    done = []

    def spy(file, stop):
        done.extend([Path(file).parent.name] if Path(file).name == WEIGHTS else [])
        return contents.read_content(file, stop)

    monkeypatch.setattr(digests, "read_content", spy)
    return done


@pytest.fixture
def loads(monkeypatch):
    """Labels of what was loaded in the ordinary way, and the place in which the students took turns."""
    labels, places, load, put = [], [], swapping.load_model, lazy.Resident.load

    def spy(place, checkpoint, *rest, **options):
        places.extend([] if checkpoint.label == "teacher" or place in places else [place])
        return put(place, checkpoint, *rest, **options)

    monkeypatch.setattr(swapping, "load_model", lambda c, **how: labels.append(c.label) or load(c, **how))
    monkeypatch.setattr(lazy.Resident, "load", spy)
    return labels, places


def replayed(run, out, **options):
    manifest = read_manifest(run.run_dir)
    settings = settings_from(SMALL | options, manifest.settings, manifest.path)
    plan = make_plan(run.run_dir, settings, manifest, Digests.saved(out / DIGESTS))
    with open_store(out, run.run_dir) as store:
        return replay(plan, store)


def assert_same_scores(first, second):
    assert [(s.checkpoint.label, s.states) for s in first.scored] == [
        (s.checkpoint.label, s.states) for s in second.scored
    ]
    for a, b in zip(first.scored, second.scored, strict=True):
        assert a.rollouts == b.rollouts
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(a.scores, name), getattr(b.scores, name), err_msg=name)


def test_each_file_is_read_once_and_the_second_time_not_at_all(tiny_run, tmp_path, reads):
    first = replayed(tiny_run, tmp_path / "out")
    assert sorted(reads) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "student", "teacher"]
    reads.clear()
    assert_same_scores(first, replayed(tiny_run, tmp_path / "out"))
    assert reads == []
    (tmp_path / "out" / DIGESTS).write_text("nonsense")
    replayed(tiny_run, tmp_path / "out")
    assert len(reads) == 5


def test_a_teacher_that_vllm_loads_is_read_once_too(tiny_run, tmp_path, reads, monkeypatch):
    server = ModelServer(load_model(Checkpoint("teacher", None, tiny_run.teacher, "full")))
    monkeypatch.setattr("opd_diag.replay.served.connect", lambda address, **how: server)
    options = {"teacher": f"vllm={tiny_run.teacher}", "teacher_top": 20, "checkpoints": "30", "states": ("on-policy",)}
    replayed(tiny_run, tmp_path / "out", **options)
    assert sorted(reads) == ["checkpoint-30", "student", "teacher"]
    reads.clear()
    replayed(tiny_run, tmp_path / "out", **options)
    assert reads == []


def test_students_are_swapped_and_the_teacher_stays(own_run, tmp_path, loads):
    name = "model.layers.1.mlp.up_proj.weight"
    for step, share in ((10, 0.1), (20, 0.2), (30, 0.3)):
        shutil.copy(own_run.student / WEIGHTS, own_run.checkpoint(step))
        tiny.change_weights(own_run.checkpoint(step), lambda n, t, by=share: t + by if n == name else t.clone())
    done = replayed(own_run, tmp_path / "out", states="on-policy,start,teacher,back")
    labels, places = loads
    assert sorted(labels) == ["step 0", "teacher"]
    assert len(places) == 1
    # that one tensor, for each of the three, and once more for step 0, which scores them
    assert (places[0].copied.tensors, places[0].copied.bytes) == (4, 4 * 48 * 32 * 4)
    assert len(done.scored) == 4 * 4


def test_swapped_scores_are_those_of_models_that_were_loaded_alone(tiny_run, tmp_path, monkeypatch, loads):
    swapped = replayed(tiny_run, tmp_path / "swapped")
    assert sorted(loads[0]) == ["step 0", "teacher"]
    monkeypatch.setattr(swapping, "_exchangeable", lambda *about: False)
    alone = replayed(tiny_run, tmp_path / "alone")
    assert len(loads[0]) == 2 + 5
    assert_same_scores(swapped, alone)


@pytest.fixture
def replaced(monkeypatch):
    """Let the weights of a checkpoint be written anew between its key and its load."""

    def arrange(label, folder):
        put, done = lazy.Resident.load, []

        def spy(place, checkpoint, *rest, **options):
            if checkpoint.label == label and not done:
                done.append(tiny.change_weights(folder, lambda name, tensor: tensor + 1))
            return put(place, checkpoint, *rest, **options)

        monkeypatch.setattr(lazy.Resident, "load", spy)

    return arrange


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_named_and_the_others_go_on(own_run, tmp_path, replaced):
    replaced("step 20", own_run.checkpoint(20))
    done = replayed(own_run, tmp_path / "out")
    assert [c.label for c in done.checkpoints] == ["step 0", "step 10", "step 30"]
    (broken,) = done.broken
    assert broken.label == "step 20"
    assert broken.blocker.startswith(f"{own_run.checkpoint(20) / WEIGHTS} changed while it was read: written anew")
    assert not list((tmp_path / "out").rglob("step-000020*"))
    again = replayed(own_run, tmp_path / "out")  # now that nothing writes there
    assert again.broken == ()
    assert_same_scores(again, replayed(own_run, tmp_path / "fresh"))


def test_a_teacher_that_is_replaced_while_it_is_read_is_no_fault_of_a_checkpoint(own_run, tmp_path, replaced):
    replaced("teacher", own_run.teacher)
    with pytest.raises(InputError, match=r"The teacher cannot be loaded\. .* changed while it was read") as caught:
        replayed(own_run, tmp_path / "out", states="on-policy")
    assert not isinstance(caught.value, CheckpointError)


def test_a_teacher_that_cannot_be_read_is_no_fault_of_a_checkpoint(own_run, tmp_path, monkeypatch):
    read = digests.read_content

    def unreadable(file, stop):
        if Path(file).parent.name == "teacher":
            raise OSError(5, "Input/output error", str(file))
        return read(file, stop)

    monkeypatch.setattr(digests, "read_content", unreadable)
    with pytest.raises(InputError, match=r"The teacher cannot be read\. teacher: .*Input/output error") as caught:
        replayed(own_run, tmp_path / "out", states="on-policy")
    assert not isinstance(caught.value, CheckpointError)


def test_step_0_that_changes_before_it_scores_the_others(own_run, tmp_path, monkeypatch):
    score_back = replay.__globals__["_Work"].score_back

    def changing(work, scored):
        tiny.change_weights(own_run.student, lambda name, tensor: tensor + 1)
        score_back(work, scored)

    monkeypatch.setattr(replay.__globals__["_Work"], "score_back", changing)
    with pytest.raises(CheckpointError, match=r"changed while it was read.* leave back out of --states"):
        replayed(own_run, tmp_path / "out", states="on-policy,back")


def test_a_folder_that_holds_digests_alone_goes_when_nothing_was_finished(tiny_run, tmp_path):
    out, known = tmp_path / "new" / "out", Digests()
    with open_store(out, tiny_run.run_dir) as store:
        store.keep_digests(known)
        assert not (out / DIGESTS).exists()  # nothing was learned
        known.of(tiny_run.teacher / WEIGHTS)
        store.keep_digests(known)
        assert (out / DIGESTS).is_file()
        assert (out / ".opd-diag.json").is_file()  # a process that is killed here finds its folder again
    assert not (tmp_path / "new").exists()
