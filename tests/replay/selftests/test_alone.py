"""The self-tests alone: what they leave, and that a report finds it again."""

from __future__ import annotations

import json

import pytest
import tiny_run as tiny

from opd_diag.errors import CheckpointError
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay
from opd_diag.replay.selftests.alone import selftests_alone
from opd_diag.runs import read_manifest

SMALL = {"checkpoints": "30", "max_prompts": 6}


def asked(run, out, what=selftests_alone, **options):
    manifest = read_manifest(run.run_dir)
    plan = make_plan(run.run_dir, settings_from(SMALL | options, manifest.settings, manifest.path), manifest)
    with open_store(out, run.run_dir) as store:
        return what(plan, store), store.account


def test_what_it_asks_and_leaves(tiny_run, tmp_path):
    tests, _ = asked(tiny_run, tmp_path / "out")
    assert {t.name for t in tests} == {
        "self_teacher", "shift", "batches", "template", "ends", "vocabulary", "logprobs", "repeatability"
    }  # fmt: skip
    assert all(t.status != "fail" for t in tests)
    assert {t.model for t in tests if t.name == "logprobs"} == {"step 0", "step 0, own tokens"}
    stored = json.loads((tmp_path / "out/selftest.json").read_text())
    assert stored["tests"] == [t.as_record() for t in tests]
    assert [check["model"] for check in stored["head"]] == ["step 0", "teacher"]
    assert not (tmp_path / "out/scores").exists()


def test_a_report_finds_it_again_and_is_the_same(tiny_run, tmp_path):
    _, alone = asked(tiny_run, tmp_path / "out")
    _, after = asked(tiny_run, tmp_path / "out", replay)
    _, whole = asked(tiny_run, tmp_path / "plain", replay)
    assert after.found == alone.made == 6
    assert after.made == whole.made - alone.made
    for name in ("selftest.json", "vocabulary.json", "rollouts/step-000030.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_after_a_report_it_leaves_the_reports_own(tiny_run, tmp_path):
    asked(tiny_run, tmp_path / "out", replay)
    before = (tmp_path / "out/selftest.json").read_bytes()
    tests, account = asked(tiny_run, tmp_path / "out")
    assert account.made == 0
    assert len(tests) < len(json.loads(before)["tests"])
    assert (tmp_path / "out/selftest.json").read_bytes() == before


def test_where_something_changed_it_writes_its_own(own_run, tmp_path):
    asked(own_run, tmp_path / "out", replay)
    tiny.change_weights(own_run.teacher, lambda name, tensor: tensor * 1.01)
    tests, _ = asked(own_run, tmp_path / "out")
    assert json.loads((tmp_path / "out/selftest.json").read_text())["tests"] == [t.as_record() for t in tests]


def test_of_recorded_responses_every_end_is_looked_at(tiny_run, tmp_path):
    asked(tiny_run, tmp_path / "out", replay)
    tests, account = asked(tiny_run, tmp_path / "again", rollouts=str(tmp_path / "out/rollouts"))
    assert account.work.sampled == 0
    ends = [t.model for t in tests if t.name == "ends"]
    assert ends == ["student and teacher", "step 0", "step 30", "teacher"]


def test_teacher_states_alone(tiny_run, tmp_path):
    tests, _ = asked(tiny_run, tmp_path / "out", states="teacher")
    assert "step 0 reading teacher" in {t.model for t in tests}
    assert not (tmp_path / "out/rollouts/step-000000.jsonl").exists()


def test_a_first_checkpoint_that_cannot_be_read_is_an_error(own_run, tmp_path):
    tiny.truncate(own_run.student)
    with pytest.raises(CheckpointError):
        asked(own_run, tmp_path / "out")
