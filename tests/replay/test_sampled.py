"""Responses sampled through vLLM in a report: what it is given, what a failure costs, and what decides its parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_run as tiny
from model_server import ModelServer
from safetensors.torch import load_file, save_file
from servers.fake_vllm import put_on_path
from typer.testing import CliRunner

import opd_diag
from opd_diag.cli import app
from opd_diag.errors import CheckpointError, InputError, MissingExtra, ModelError, PromptsError, StoreError
from opd_diag.inference import drawn_elsewhere, load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.rollout import load_rollouts
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay, sampled
from opd_diag.replay.continuing import Continuing
from opd_diag.replay.cost import predicted
from opd_diag.replay.parts import SAMPLED_VERSION, Parts
from opd_diag.replay.prefixes import prefixes_of
from opd_diag.runs import read_manifest

SMALL = {"checkpoints": "30", "max_prompts": 3, "max_new_tokens": 6, "states": ("on-policy",)}
BY_VLLM = SMALL | {"sampler": "vllm"}

pytestmark = pytest.mark.usefixtures("one_thread")


class Here:
    """In place of vLLM's process: the model of the folder it is given, drawn from here."""

    context = 512

    def __init__(self, folder, *, told, spoil=None, **given):
        self.name = given["name"]
        self.log = SimpleNamespace(folder=Path(folder), files={p.name for p in Path(folder).iterdir()}, **given)
        self.log.asked, self.log.closed, self.log.weights = [], None, load_file(Path(folder) / "model.safetensors")
        told.append(self.log)
        if spoil is not None:
            spoil(self.log)
        where = Checkpoint(given["name"], None, Path(folder), "full")
        self._server = ModelServer(load_model(where, stop_ids=given["stop_ids"]))

    def sampled(self, prompts, **how):
        self.log.asked.append((prompts, how))
        for place, (ids, seed) in enumerate(prompts):
            yield place, self._server.sampled(ids, seed=seed, **how)

    def close(self, *, at_once):
        self.log.closed = at_once


@pytest.fixture
def engines(monkeypatch):
    """What was begun, in order; ``spoil`` is called with each before its model is loaded."""
    told = SimpleNamespace(begun=[], spoil=None)
    monkeypatch.setattr(
        sampled, "VLLMBeside", lambda folder, **given: Here(folder, told=told.begun, spoil=told.spoil, **given)
    )
    monkeypatch.setattr(sampled.importlib.util, "find_spec", lambda name: name)
    return told


def planned(run, **options):
    manifest = read_manifest(run.run_dir)
    return make_plan(run.run_dir, settings_from(BY_VLLM | options, manifest.settings, manifest.path), manifest)


def replayed(run, out, **options):
    with open_store(out, run.run_dir) as store:
        return replay(planned(run, **options), store)


def drawn(run, out, labels=("step 0", "step 30"), shared=None, **options):
    """Sample as a replay does, and score nothing."""
    plan = planned(run, **options)
    with open_store(out, run.run_dir, shared) as store:
        parts = Parts(plan, store, lambda *told: None)
        models = {c.label: parts.student(c) for c in plan.checkpoints} | {"teacher": parts.teacher}
        return {label: parts.rollouts(models[label]) for label in labels}


class TestWhatItIsGiven:
    def test_each_model_once_with_the_stop_ids_precision_and_vocabulary_of_our_own_sampler(
        self, tiny_run, tmp_path, engines
    ):
        made = drawn(tiny_run, tmp_path / "out", ("teacher", "step 0", "step 30"))
        assert [one.name for one in engines.begun] == ["teacher", "step 0", "step 30"]
        assert [one.folder.resolve() for one in engines.begun] == [
            tiny_run.teacher, tiny_run.student, tiny_run.checkpoint(30),
        ]  # fmt: skip
        for one in engines.begun:
            assert (one.dtype, one.drawable, one.stop_ids) == ("float32", tiny.VOCABULARY, (tiny.BYTES + 1,))
            assert one.closed is False
            ((prompts, how),) = one.asked
            assert len(prompts) == 3
            assert how == {"n": 2, "max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}
        assert len({seed for one in engines.begun for _, seed in one.asked[0][0]}) == 9
        assert {label: {r.provenance.weights for r in of} for label, of in made.items()} == {n: {n} for n in made}

    def test_a_folder_that_it_does_not_read_is_loaded_and_saved_for_it(self, own_run, tmp_path, engines):
        weights = load_file(own_run.checkpoint(30) / "model.safetensors")
        save_file({"value": weights["model.norm.weight"]}, own_run.checkpoint(30) / "value_head.safetensors")
        drawn(own_run, tmp_path / "out")
        of_student, exported = engines.begun
        assert of_student.folder.resolve() == own_run.student
        assert exported.folder.is_relative_to(tmp_path / "out")
        assert exported.files == {"config.json", "generation_config.json", "model.safetensors"}
        assert {name: w.tolist() for name, w in exported.weights.items()} == {n: w.tolist() for n, w in weights.items()}
        assert not exported.folder.exists()
        assert not (tmp_path / "out/.shards").exists()

    def test_of_a_saved_model_nothing_stays_after_a_failure(self, own_run, tmp_path, engines):
        shutil.copy(own_run.student / "model.safetensors", own_run.student / "other.safetensors")

        def fails(log):
            raise CheckpointError("step 0: vLLM does not load it: No room. Sample without vLLM: --sampler local.")

        engines.spoil = fails
        with pytest.raises(CheckpointError, match="No room"):
            drawn(own_run, tmp_path / "out")
        assert not (tmp_path / "out").exists()  # and nothing else was made

    def test_what_a_killed_report_left_is_taken_away(self, tiny_run, tmp_path, engines):
        left = tmp_path / "out/.shards/scratch-x"
        drawn(tiny_run, tmp_path / "out")
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"half")
        drawn(tiny_run, tmp_path / "out")
        assert not left.exists()

    def test_a_folder_that_is_written_to_meanwhile_is_refused(self, own_run, tmp_path, engines):
        engines.spoil = lambda log: tiny.change_weights(own_run.checkpoint(30), lambda name, w: w + 1)
        with pytest.raises(CheckpointError, match=r"model\.safetensors changed while it was read"):
            drawn(own_run, tmp_path / "out", ("step 30",))
        assert engines.begun[0].closed is True


class TestWhatDecides:
    def test_the_key_of_our_own_sampler_is_what_it_was(self, tiny_run, tmp_path):
        drawn(tiny_run, tmp_path / "out", sampler="local")
        plan = planned(tiny_run, sampler="local")
        with open_store(tmp_path / "out", tiny_run.run_dir) as store:
            parts = Parts(plan, store, lambda *told: None)
            model = parts.student(plan.checkpoints[1])
            expected = [
                "sampled", SAMPLED_VERSION, model.key, ["step 30", 30], plan.prompts_key(),
                asdict(plan.settings.sampling), "float32", tiny.VOCABULARY, (tiny.BYTES + 1,),
            ]  # fmt: skip
            assert store.parts["rollouts/step-000030.jsonl"].key == content_key(expected)

    def test_samplers_share_no_part(self, tiny_run, tmp_path, engines):
        options = {"store": str(tmp_path / "shared")}
        own, by_vllm, again = (
            drawn(tiny_run, tmp_path / name, shared=tmp_path / "shared", **options, sampler=sampler)
            for name, sampler in (("own", "local"), ("vllm", "vllm"), ("again", "vllm"))
        )
        assert [one.name for one in engines.begun] == ["step 0", "step 30"]
        assert own != by_vllm
        assert by_vllm == again

    def test_a_report_goes_on_at_the_batch_where_it_was(self, tiny_run, tmp_path, engines, monkeypatch):
        monkeypatch.setattr(drawn_elsewhere, "ROWS_PER_SHARD", 4)
        whole = drawn(tiny_run, tmp_path / "whole")
        engines.begun.clear()
        made = []
        plain = Here.sampled

        def killed(self, prompts, **how):
            made.append(len(prompts))
            if len(made) == 2:
                raise KeyboardInterrupt
            yield from plain(self, prompts, **how)

        with monkeypatch.context() as patch:
            patch.setattr(Here, "sampled", killed)
            with pytest.raises(KeyboardInterrupt):
                drawn(tiny_run, tmp_path / "out")
        assert (made, engines.begun[0].closed) == ([2, 1], True)
        engines.begun.clear()
        assert drawn(tiny_run, tmp_path / "out") == whole
        assert [[len(prompts) for prompts, _ in one.asked] for one in engines.begun] == [[1], [2, 1]]


class TestBelowTopP:
    def test_at_temperature_one_the_self_test_holds_what_was_sampled(self, tiny_run, tmp_path, engines):
        done = replayed(tiny_run, tmp_path / "out", max_prompts=8, top_p=0.9)
        assert {one.raw for one in engines.begun} == {True}
        assert [check.model for check in done.logprobs] == ["step 0", "step 30"]
        assert max(check.max_abs_difference for check in done.logprobs) < 1e-4
        assert {t.status for t in done.selftests if t.name == "logprobs"} == {"pass"}


class TestFailures:
    def test_checkpoints_that_it_does_not_sample_are_left_out(self, tiny_run, tmp_path, engines):
        said = "it does not load it: No room. Sample without vLLM: --sampler local."

        def fails(log):
            if log.name in ("step 10", "step 20"):
                raise (CheckpointError if log.name == "step 10" else ModelError)(said)

        engines.spoil = fails
        done = replayed(tiny_run, tmp_path / "out", checkpoints="10,20,30", max_prompts=8)
        assert [(c.label, c.blocker) for c in done.broken] == [("step 10", said), ("step 20", said)]
        assert [check.model for check in done.logprobs] == ["step 0", "step 30"]
        assert max(check.max_abs_difference for check in done.logprobs) < 1e-4
        assert {t.status for t in done.selftests if t.name == "logprobs"} == {"pass"}

    def test_an_engine_that_cannot_run_at_all_ends_the_report(self, tiny_run, tmp_path, engines):
        def cannot(log):
            raise InputError("vLLM cannot be used here: No libiomp5.so. Mend its installation, or leave --sampler out.")

        engines.spoil = cannot
        with pytest.raises(InputError, match=r"^vLLM cannot be used here: No libiomp5\.so\."):
            replayed(tiny_run, tmp_path / "out")
        assert len(engines.begun) == 1

    def test_without_the_package(self, tiny_run, tmp_path, monkeypatch):
        monkeypatch.setattr(sampled.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra) as caught:
            opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", **BY_VLLM)
        assert str(caught.value) == "This needs vllm, which is not installed: run pip install 'opd-diag[vllm]'."
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("temperature", [0.005, 2.5])
    def test_temperatures_at_which_it_does_not_sample(self, tiny_run, temperature):
        with pytest.raises(InputError) as caught:
            planned(tiny_run, temperature=temperature)
        assert str(caught.value) == (
            f"Option temperature must be 0, or 0.01 to 2, for --sampler vllm, found {temperature:g}. Change "
            "--temperature, or leave --sampler out."
        )
        planned(tiny_run, temperature=temperature, sampler="local")

    @pytest.mark.parametrize("temperature", [0.0, 0.01, 2.0])
    def test_temperatures_at_which_it_does(self, tiny_run, engines, temperature):
        assert planned(tiny_run, temperature=temperature).settings.temperature == temperature

    def test_workers_do_not_sample_with_it(self, tiny_run):
        with pytest.raises(InputError) as caught:
            planned(tiny_run, engine="ray")
        assert str(caught.value) == (
            "vLLM samples beside one process, found --sampler vllm with --engine ray. Leave one of them out."
        )

    def test_a_sampler_that_is_none(self, tiny_run):
        with pytest.raises(InputError) as caught:
            planned(tiny_run, sampler="sglang")
        assert str(caught.value) == "Option sampler must be one of local, vllm, found sglang."

    def test_a_prompt_that_leaves_no_room(self, tiny_run, tmp_path, engines, monkeypatch):
        monkeypatch.setattr(Here, "context", 20)
        with pytest.raises(PromptsError, match=r"that exceeds the 20 tokens that step 0 in vLLM takes\."):
            drawn(tiny_run, tmp_path / "out", max_new_tokens=18)

    def test_a_folder_that_cannot_be_written_to(self, own_run, tmp_path, engines, monkeypatch):
        shutil.copy(own_run.student / "model.safetensors", own_run.student / "other.safetensors")

        def full(prefix, dir):
            raise OSError(28, "full")

        monkeypatch.setattr("opd_diag.replay.store.tempfile.mkdtemp", full)
        with pytest.raises(StoreError) as caught:
            drawn(own_run, tmp_path / "out")
        assert str(caught.value) == (
            f"Cannot write {tmp_path / 'out/.shards'}: No space left on device. Free some space and run the same "
            "command again: what was finished is kept."
        )


class TestContinuations:
    def test_one_engine_a_model_for_all_prefixes(self, tiny_run, tmp_path, engines):
        options = {"states": ("on-policy", "teacher"), "max_new_tokens": 8, "max_prompts": 5}
        own, theirs = drawn(tiny_run, tmp_path / "out", ("step 30", "teacher"), **options).values()
        plan = planned(tiny_run, **options)
        with open_store(tmp_path / "out", plan.run_dir) as store:
            prefixes = prefixes_of(own, theirs, 4, most_prompts=5, stops=plan.tokenizer.stop_ids)
            engines.begun.clear()
            going_on = Continuing(plan, store, plan.checkpoints[-1], 1, lambda ids, of: True, lambda *_: None)
            made = going_on.of_prefixes(prefixes, [2, 4])
            keys = {part.key for name, part in store.parts.items() if name.startswith("continuations/")}
        assert [one.name for one in engines.begun] == ["step 30", "teacher"]
        assert [len(one.asked) for one in engines.begun] == [6, 6]
        assert {how["max_new_tokens"] for one in engines.begun for _, how in one.asked} == {6, 4}
        assert {one.closed for one in engines.begun} == {False}
        assert len(made) == 2 * 2 * sum(map(len, prefixes.values()))
        assert len(keys) == 12

    def test_what_a_server_draws_hangs_on_no_sampler(self, tiny_run, tmp_path, engines, monkeypatch):
        server = ModelServer(load_model(Checkpoint("teacher", None, tiny_run.teacher, "full")))
        monkeypatch.setattr("opd_diag.replay.served.connect", lambda address, **how: server)
        options = {"max_new_tokens": 8, "teacher": "vllm=http://127.0.0.1:8000"}
        own, theirs = drawn(tiny_run, tmp_path / "responses", ("step 30", "step 0"), sampler="local").values()
        prefixes = prefixes_of(own, theirs, 4, most_prompts=3, stops=(tiny.BYTES + 1,))
        keys = {}
        for sampler in ("local", "vllm"):
            plan = planned(tiny_run, **options, sampler=sampler)
            with open_store(tmp_path / sampler, plan.run_dir) as store:
                going_on = Continuing(plan, store, plan.checkpoints[-1], 1, lambda ids, of: True, lambda *_: None)
                going_on.of_prefixes(prefixes, [2])
                keys[sampler] = {name: part.key for name, part in store.parts.items() if "continuations/" in name}
        assert [one.name for one in engines.begun] == ["step 30"]
        same = {name for name, key in keys["local"].items() if keys["vllm"][name] == key}
        assert same == {name for name in keys["local"] if name.startswith("continuations/teacher.")} != set()
        assert len(same) < len(keys["local"])


class TestWhatIsSaid:
    def test_where_log_probabilities_are_not_held(self, tiny_run, engines):
        said = (
            "Below top-p 1 vLLM gives log-probabilities before top-p at temperature 1 alone. Those of the responses "
            "that it samples at 0.7 are not held against replayed ones."
        )
        for top_p, temperature, sampler in (
            (0.9, 0.7, "vllm"),
            (0.9, 1, "vllm"),
            (1, 0.7, "vllm"),
            (0.9, 0.7, "local"),
        ):
            notes = planned(tiny_run, top_p=top_p, temperature=temperature, sampler=sampler).notes
            assert (said in notes) == ((top_p, temperature, sampler) == (0.9, 0.7, "vllm"))

    def test_of_a_plan(self, tiny_run, engines):
        plan = planned(tiny_run, states=("on-policy", "teacher"))
        assert plan.description()[4] == "to sample    3 models × 6 responses (at most 108 tokens), by vLLM"
        prediction, own = (
            predicted(plan),
            predicted(planned(tiny_run, states=("on-policy", "teacher"), sampler="local")),
        )
        parameters = sum(w.numel() for w in load_file(tiny_run.teacher / "model.safetensors").values())
        assert prediction.beside == (
            "vLLM         samples 3 models, one after another; how long that takes is not known, and not in these "
            "minutes",
            f"             beside what is in memory it holds up to {4 * parameters / 1000:.1f} kB of weights, and on a "
            "CPU 2.1 GB of keys and values; on a GPU it takes nine tenths of what is free",
        )
        assert [line for line in prediction.lines() if line in prediction.beside] == [*prediction.beside]
        assert own.beside == ()
        assert prediction.at_most.sampled == own.at_most.sampled == 108
        assert prediction.at_most.tokens < own.at_most.tokens


def test_a_report_from_the_terminal_whose_processes_are_really_begun(tiny_run, tmp_path, monkeypatch, without_pages):
    """What is in them is another model than is scored, which does not pass."""
    put_on_path(tmp_path / "path", monkeypatch, f"TinyModel({tiny.VOCABULARY})")
    out = tmp_path / "out"
    words = ["report", str(tiny_run.run_dir), "--out", str(out), "--states", "on-policy", "--checkpoints", "30"]
    words += ["--max-prompts", "8", "--max-new-tokens", "6", "--sampler", "vllm", "--quiet"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    tests = json.loads((out / "selftest.json").read_text())["tests"]
    failed = {test["model"] for test in tests if test["name"] == "logprobs" and test["status"] == "fail"}
    assert failed >= {"step 0", "step 30"}
    said = json.loads((out / "report.json").read_text())["provenance"]
    assert said["sampler"] == {"name": "vllm", "version": None, "models": ["step 0", "step 30"]}
    assert (said["settings"]["sampler"], "--sampler vllm" in said["command"]) == ("vllm", True)
    stored = [r for label in ("step-000000", "step-000030") for r in load_rollouts(out / f"rollouts/{label}.jsonl")]
    assert said["cost"]["actual"]["sampled"] == sum(len(r.response_ids) for r in stored)
