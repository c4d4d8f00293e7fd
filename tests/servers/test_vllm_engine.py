"""How vLLM is loaded into this process, and how questions of many threads reach it."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from opd_diag.errors import InputError, MissingExtra, ServerError
from opd_diag.servers import Question, answered, connect, vllm_engine

from .stand_in import TinyModel

MODEL = TinyModel(48)
IDS = (11, 12, 13, 14, 15, 16)


def until(happened):
    """Wait for what another thread does, ten seconds at most."""
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)


class TestLoading:
    def test_how_it_is_loaded(self, fake):
        on_cpu = fake()
        connect("vllm=org/teacher", top=4, dtype="float32")
        assert on_cpu.loaded == [
            {
                "model": "org/teacher",
                "dtype": "float32",
                "max_model_len": -1,
                "max_logprobs": -1,
                "logprobs_mode": "raw_logprobs",
                "enforce_eager": True,
                "load_format": "safetensors",
                "trust_remote_code": False,
                "use_tqdm_on_load": False,
                "kv_cache_memory_bytes": 2**31,
            }
        ]
        on_gpu = fake(cpu=False)
        connect("vllm=org/teacher", top=4)
        loaded = on_gpu.loaded[0]
        assert (loaded["dtype"], loaded["enforce_eager"], loaded["gpu_memory_utilization"]) == ("auto", False, 0.6)
        assert "kv_cache_memory_bytes" not in loaded

    def test_what_a_user_said_to_vllm_stands(self, fake, monkeypatch):
        fake()
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        connect("vllm=org/teacher", top=4)
        assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"

    def test_a_model_is_loaded_once(self, fake, tmp_path):
        of = fake()
        connect("vllm=org/teacher", top=4)
        connect("vllm=org/teacher", top=8)
        assert len(of.loaded) == 1
        connect(f"vllm={tmp_path}", top=8)
        assert [one["model"] for one in of.loaded] == ["org/teacher", str(tmp_path)]

    def test_weights_that_changed_since_are_not_taken_for_those_that_are_loaded(self, fake, tmp_path):
        of = fake()
        connect(f"vllm={tmp_path}", top=4, weights_key="one")
        connect(f"vllm={tmp_path}", top=8, weights_key="one")
        for other in ("two", None):
            with pytest.raises(InputError) as caught:
                connect(f"vllm={tmp_path}", top=4, weights_key=other)
            assert str(caught.value) == (
                f"{tmp_path} is loaded in this process with other weights than lie there now, and vLLM loads a model "
                "once. Begin a new process for these."
            )
        assert len(of.loaded) == 1

    def test_a_model_that_does_not_load(self, fake):
        fake(loads=False)
        with pytest.raises(ServerError) as caught:
            connect("vllm=org/teacher", top=4)
        assert str(caught.value) == (
            "vLLM does not load org/teacher: No model here. Name a model that it loads, or load the teacher without "
            "it: --teacher DIR."
        )

    @pytest.mark.parametrize("name", ["speculators_config", "configuration_files"])
    def test_a_folder_whose_config_may_name_another_model_is_not_given_to_it(self, fake, tmp_path, name):
        of = fake()
        (tmp_path / "config.json").write_text(json.dumps({name: {"verifier": {"name_or_path": "org/other"}}}))
        with pytest.raises(ServerError) as caught:
            connect(f"vllm={tmp_path}", top=4)
        assert str(caught.value) == (
            f"vLLM does not load {tmp_path}: its config.json has {name}, by which vLLM may load another model. Name a "
            "model that it loads, or load the teacher without it: --teacher DIR."
        )
        assert of.loaded == []

    def test_a_hub_id_in_whose_place_it_loads_another_model(self, fake):
        of = fake()
        of.on_hub["org/draft"] = {"speculators_config": {"verifier": {"name_or_path": "org/other"}}}
        with pytest.raises(ServerError) as caught:
            connect("vllm=org/draft", top=4)
        assert str(caught.value) == (
            "vLLM does not load org/draft: it loads org/other in its place. Name a model that it loads, or load the "
            "teacher without it: --teacher DIR."
        )

    @pytest.mark.parametrize("said", ["{", "[1]", '{"speculators_config": null}'])
    def test_other_configs_are_left_to_it(self, fake, tmp_path, monkeypatch, said):
        of = fake()
        monkeypatch.setattr(of, "resolved", lambda model: (model, None))
        (tmp_path / "config.json").write_text(said)
        connect(f"vllm={tmp_path}", top=4)
        assert len(of.loaded) == 1

    def test_a_folder_that_changes_into_another_model_while_it_loads(self, fake, tmp_path, monkeypatch):
        of = fake()
        monkeypatch.setattr(of, "resolved", lambda model: ("else/where", None))
        with pytest.raises(ServerError, match=r": it loads else/where in its place\."):
            connect(f"vllm={tmp_path}", top=4)

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "vllm", None)
        with pytest.raises(MissingExtra) as caught:
            connect("vllm=org/teacher", top=4)
        assert str(caught.value) == "This needs vllm, which is not installed: run pip install 'opd-diag[vllm]'."


class TestManyAtOnce:
    def test_questions_of_many_threads_go_to_the_engine_together(self, fake):
        of = fake()
        server = connect("vllm=org/teacher", top=4)
        of.calls.clear()
        of.gate = threading.Event()
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(server.answer, Question((40, *IDS), 2, 4))
            assert of.at_gate.wait(10)
            others = [pool.submit(server.answer, Question((i, *IDS), 2, 4)) for i in range(8)]
            until(lambda: server._engine._open is not None and len(server._engine._open.prompts) == 8)
            of.gate.set()
        assert [len(call) for call in of.calls] == [1, 8]
        assert first.result().sampled_logprobs[0] == pytest.approx(MODEL((40, *IDS))[1, 12], abs=1e-6)
        for i, one in enumerate(others):
            np.testing.assert_allclose(one.result().sampled_logprobs[0], MODEL((i, *IDS))[1, 12], atol=1e-6)
        assert of.threads == {"vllm_0"}

    def test_a_call_holds_a_bounded_number_of_values(self, fake, monkeypatch):
        of = fake()
        server = connect("vllm=org/teacher", top=4)
        monkeypatch.setattr(vllm_engine, "MOST_VALUES", 3 * 6 * 5)
        of.calls.clear()
        questions = [Question((i, *IDS[1:]), 2, 4) for i in range(20)]
        answers = list(answered(server, questions, at_once=20))
        assert max(map(len, of.calls)) <= 3
        assert sum(map(len, of.calls)) == 20
        for i, one in enumerate(answers):
            np.testing.assert_allclose(one.sampled_logprobs[0], MODEL((i, *IDS[1:]))[1, 13], atol=1e-6)
