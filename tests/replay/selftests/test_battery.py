"""All self-tests of a report: which are asked of whom, that healthy runs pass, that planted faults reach them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny_run as tiny

from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay
from opd_diag.runs import read_manifest
from replay.selftests.conftest import DATA

SMALL = {"checkpoints": "30", "max_prompts": 8}


def replayed(run_dir, out, **options):
    manifest = read_manifest(run_dir)
    plan = make_plan(run_dir, settings_from(SMALL | options, manifest.settings, manifest.path), manifest)
    with open_store(out, run_dir) as store:
        return replay(plan, store).selftests


def failed(tests):
    return {test.name for test in tests if test.status == "fail"}


@pytest.fixture(scope="module")
def healthy(tiny_run, tmp_path_factory):
    """(OUT_DIR, self-tests) of the tiny run."""
    out = tmp_path_factory.mktemp("battery") / "out"
    return out, replayed(tiny_run.run_dir, out)


@pytest.fixture
def recorded(healthy, tmp_path):
    """A function that plants a fault in the recorded responses of the run and gives the self-tests of a report."""
    out, _ = healthy

    def planted(run, change, **options):
        folder = tmp_path / "recorded"
        folder.mkdir()
        for file in ("step-000000", "step-000030", "teacher"):
            broken = [change(r) for r in load_rollouts(out / "rollouts" / f"{file}.jsonl")]
            save_rollouts(folder / f"{file}.jsonl", broken)
        return replayed(run.run_dir, tmp_path / "again", rollouts=str(folder), **options)

    return planted


class TestHealthy:
    def test_every_question_is_asked(self, healthy):
        _, tests = healthy
        assert [(t.name, t.model) for t in tests if t.name in ("self_teacher", "repeatability", "batches")] == [
            ("self_teacher", "step 0"), ("repeatability", "student and teacher"),
            ("batches", "step 0"), ("batches", "teacher"),
        ]  # fmt: skip
        asked = {(t.name, t.model) for t in tests}
        for writer in ("step 0", "step 30", "teacher"):
            of_records = ("shift", f"{writer}, recorded log-probabilities")
            first = ("shift", f"{writer}, first tokens")
            own = ("logprobs", f"{writer}, own tokens")
            ids = ("vocabulary", writer)
            assert {("ends", writer), ("shift", writer), ("logprobs", writer), of_records, first, own, ids} <= asked
        reading = ("shift", "teacher reading step 0"), ("vocabulary", "teacher reading step 0")
        inputs = ("template", "student, prompts"), ("template", "student and teacher")
        pair = ("ends", "student and teacher"), ("vocabulary", "student and teacher")
        assert {*reading, *inputs, *pair} <= asked
        assert len(asked) == len(tests), "every result has a name of its own"

    def test_none_fails(self, healthy):
        assert failed(healthy[1]) == set()

    def test_what_does_not_pass_says_what_to_do(self, healthy):
        assert all(bool(t.advice) == (t.status != "pass") for t in healthy[1])

    def test_they_are_stored_as_they_are_given(self, healthy):
        out, tests = healthy
        stored = json.loads((out / "selftest.json").read_text())
        assert list(stored) == ["head", "logprobs", "tests"]
        assert stored["tests"] == [t.as_record() for t in tests]

    def test_a_second_time_nothing_is_run_and_all_is_the_same(self, tiny_run, healthy, monkeypatch):
        from opd_diag.replay.selftests import battery

        out, tests = healthy
        before = (out / "selftest.json").read_bytes()
        monkeypatch.setattr(battery, "tests_of_pair", None)
        assert [t.as_record() for t in replayed(tiny_run.run_dir, out)] == [t.as_record() for t in tests]
        assert (out / "selftest.json").read_bytes() == before

    @pytest.mark.parametrize("states", ["teacher", "start", "on-policy", "start,back"])
    def test_whatever_is_scored(self, tiny_run, tmp_path, states):
        tests = replayed(tiny_run.run_dir, tmp_path / "out", states=states, max_prompts=5)
        assert failed(tests) == set()
        assert {"self_teacher", "shift", "batches", "template", "ends", "vocabulary", "logprobs", "repeatability"} == {
            t.name for t in tests
        }

    @pytest.mark.slow
    @pytest.mark.parametrize("run", ["new", "same", "other"])
    def test_the_bundled_runs(self, tmp_path, run):
        tests = replayed(DATA / run, tmp_path / "out", checkpoints="20,160", max_prompts=64)
        assert failed(tests) == set()
        unknown = {(t.name, t.model) for t in tests if t.status == "unknown"}
        # the story teller knows some of an equation's tokens, or not: 64 prompts do not tell
        assert unknown <= ({("vocabulary", "teacher reading step 0")} if run == "other" else set())


class TestPlanted:
    def test_shifted_records(self, tiny_run, recorded):
        tests = recorded(tiny_run, lambda r: replace(r, sampled_logprobs=(*r.sampled_logprobs[1:], -1.0)))
        assert failed(tests) == {"shift", "logprobs"}

    def test_a_wrong_temperature_in_the_record(self, tiny_run, recorded):
        tests = recorded(tiny_run, lambda r: replace(r, provenance=replace(r.provenance, temperature=0.5)))
        assert failed(tests) == {"logprobs"}

    def test_each_writer_stops_by_its_own_tokens(self, own_run, tmp_path):
        """A student that is trained to stop by another token than the first one samples by it too."""
        path = own_run.checkpoint(30) / "generation_config.json"
        own, told = [*range(40)], json.loads(path.read_text())
        path.write_text(json.dumps(told | {"eos_token_id": own}))
        tests = replayed(own_run.run_dir, tmp_path / "out", checkpoints="30")
        assert ("ends", "step 30", "pass") in {(t.name, t.model, t.status) for t in tests}
        rollouts = load_rollouts(tmp_path / "out/rollouts/step-000030.jsonl")
        assert sum(r.response_ids[-1] in own for r in rollouts if r.stop_reason == "stop") > 1
        evidence = {t.model: t.evidence for t in tests if t.name == "ends"}
        assert "39 (" in evidence["step 30"]
        assert "39 (" not in evidence["step 0"]

    def test_two_bos(self, tiny_run, recorded):
        """The tiny tokenizer has no BOS: one that every prompt begins with twice is made its own."""
        run = tiny_run.copied_to(tiny_run.root.parent / "with-bos")
        for folder in (run.student, run.teacher, *(run.checkpoint(s) for s in tiny.STEPS)):
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<system>"}))
        bos = tiny.BYTES + tiny.SPECIAL.index("<system>")

        def twice(r):
            ids = (bos, bos, *r.prompt_ids)
            return replace(r, prompt_ids=ids, teacher_prompt_ids=ids)

        assert "template" in failed(recorded(run, twice))

    def test_prompts_that_lost_their_last_token(self, tiny_run, recorded):
        cut = lambda r: replace(r, prompt_ids=r.prompt_ids[:-1], teacher_prompt_ids=r.prompt_ids[:-1])  # noqa: E731
        assert "template" in failed(recorded(tiny_run, cut))

    def test_a_teacher_that_sees_less(self, tiny_run, recorded):
        tests = recorded(tiny_run, lambda r: replace(r, teacher_prompt_ids=r.prompt_ids[:-1]))
        assert ("template", "student and teacher", "fail") in {(t.name, t.model, t.status) for t in tests}

    def test_padding_that_counts(self, tiny_run, recorded):
        def padded(r):
            ids = (*r.response_ids, *(tiny.BYTES,) * 4)
            return replace(r, response_ids=ids, sampled_logprobs=(*r.sampled_logprobs, -1.0, -1.0, -1.0, -1.0))

        assert "ends" in failed(recorded(tiny_run, padded))

    def test_stop_tokens_that_were_stripped(self, tiny_run, recorded):
        assert failed(recorded(tiny_run, lambda r: replace(r, stop_reason="stop"))) == {"ends"}

    def test_a_teacher_with_another_template(self, own_run, tmp_path):
        path = own_run.teacher / "chat_template.jinja"
        path.write_text(path.read_text().replace("{{ m.content }}", "{{ m.content }}!"))
        tests = replayed(own_run.run_dir, tmp_path / "out")
        assert not failed(tests)
        wrong = next(t for t in tests if t.status == "warn")
        assert wrong.model == "teacher's own template"
        assert "others under the teacher's own chat template" in wrong.evidence

    def test_another_stop_token(self, own_run, tmp_path):
        for name in ("generation_config.json",):
            path = own_run.teacher / name
            path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": tiny.BYTES + 2}))
        found = {t.model: t for t in replayed(own_run.run_dir, tmp_path / "out") if t.name == "ends"}
        assert found["student and teacher"].status in ("warn", "unknown")
        assert "The student stops by" in found["student and teacher"].evidence
