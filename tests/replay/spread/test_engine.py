"""What is refused before anything is started, and which parts an engine gives."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from opd_diag.diagnosis import diagnose, plan_report
from opd_diag.errors import InputError, MissingExtra
from opd_diag.inference import load_model, placing, swapping
from opd_diag.inference.device_maps import Sharded
from opd_diag.records.settings import Settings
from opd_diag.replay import open_store
from opd_diag.replay.parts import Parts
from opd_diag.replay.spread.engine import parts_of, refuse_engine, runs_elsewhere


@pytest.fixture
def without_ray(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "ray" else found(name, *of))


def test_without_the_extra_it_is_one_sentence_and_nothing_is_left(tiny_run, tmp_path, without_ray):
    with pytest.raises(MissingExtra) as raised:
        diagnose(tiny_run.run_dir, out=tmp_path / "out", engine="ray")
    assert str(raised.value) == "This needs ray, which is not installed: run pip install 'opd-diag[ray]'."
    assert not (tmp_path / "out").exists()


def test_one_process_needs_no_extra(tiny_run, tmp_path, without_ray):
    plan = plan_report(tiny_run.run_dir, out=tmp_path / "out")
    with open_store(tmp_path / "out", plan.run_dir) as store, parts_of(plan, store) as parts:
        assert type(parts) is Parts


def test_a_device_of_one_machine_is_refused():
    with pytest.raises(InputError) as raised:
        refuse_engine(Settings(engine="ray", device="cuda:1"))
    assert str(raised.value) == (
        "Device 'cuda:1' is one of a machine, and workers are given theirs. With --engine ray, use --device auto, cpu "
        "or cuda."
    )
    refuse_engine(Settings(device="cuda:1"))


def test_a_teacher_that_vllm_loads_is_to_be_served():
    for address in ("vllm=Qwen/Qwen3-8B", "vllm=."):
        with pytest.raises(InputError) as raised:
            refuse_engine(Settings(engine="ray", teacher=address))
        assert str(raised.value) == (
            f"{address} is loaded into vLLM in one process, and --engine ray has many. Start a server (vllm serve) and "
            "name it with --teacher vllm=http://HOST:PORT, or leave --engine out."
        )
        refuse_engine(Settings(teacher=address))
    refuse_engine(Settings(engine="ray", teacher="vllm=http://10.0.0.1:8000"))


def test_a_teacher_in_shards_is_refused():
    with pytest.raises(InputError) as raised:
        refuse_engine(Settings(engine="ray", tensor_parallel=2))
    assert str(raised.value) == (
        "--tensor-parallel needs the GPUs of one machine for one teacher, and every worker holds a whole one. With "
        "--engine ray, leave it out."
    )


def test_the_ranks_of_a_teacher_in_shards_end_with_its_parts(tiny_run, tmp_path, monkeypatch):
    places, ended = [], []

    class Ended:
        close = staticmethod(lambda: ended.append(True))

    def load(checkpoint, *, device_map, **how):
        places.append(device_map)
        model = load_model(checkpoint, **how)
        return replace(model, ranks=Ended()) if isinstance(device_map, Sharded) else model

    monkeypatch.setattr(swapping, "load_model", load)
    monkeypatch.setattr(placing, "refuse_unshardable", lambda *of: None)  # it has one head of keys
    plan = plan_report(tiny_run.run_dir, out=tmp_path / "out", tensor_parallel=2)
    with open_store(tmp_path / "out", plan.run_dir) as store, parts_of(plan, store) as parts:
        assert parts.student(plan.first).model.ranks is None
        assert parts.teacher.model.ranks is not None
        assert places == [None, Sharded(2)]
        assert not ended
    assert ended == [True]


def test_what_keeps_hidden_states_of_several_pairs_runs_in_one_process(tiny_run, tmp_path):
    plan = plan_report(tiny_run.run_dir, out=tmp_path / "out", engine="ray")
    with (
        open_store(tmp_path / "out", plan.run_dir) as store,
        pytest.raises(
            InputError, match=r"^What compares several pairs of models runs in one process: .* Leave --engine"
        ),
        parts_of(plan, store, hidden=store),
    ):
        pass


def test_what_is_known_of_devices_before_workers_are_there(monkeypatch):
    """Of a cluster elsewhere nothing is, but that a CPU is a CPU."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not runs_elsewhere(Settings(engine="ray"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert runs_elsewhere(Settings(engine="ray"))
    assert not runs_elsewhere(Settings(engine="ray", device="cpu"))
    assert not runs_elsewhere(Settings())
