"""What the process asks of vLLM and answers, held against the model that its stand-in computes with."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from opd_diag.servers.vllm_child import serve

from .fake_vllm import put_on_path
from .stand_in import TinyModel

MODEL = TinyModel(48)
PARAMS = {"n": 2, "max_tokens": 12, "temperature": 1.0, "top_p": 1.0, "stop_token_ids": [3, 9]}
BEGIN = {"model": "a/folder", "dtype": "float32", "drawable": 48, "gpu_share": 0.5, "raw": False}


def served(*requests, begin=BEGIN):
    out = io.StringIO()
    serve([json.dumps(line) for line in (begin, *requests)], out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def asked(*prompts, **params):
    return {"prompts": prompts, "params": PARAMS | params}


def logprobs(ids, response, temperature=1.0, drawable=48):
    """By hand: the model's rows before each token of the response, over what may be drawn."""
    rows = MODEL([*ids, *response])[len(ids) - 1 : -1, :drawable] / temperature
    rows = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
    return rows[np.arange(len(response)), response]


class TestLoading:
    def test_on_a_cpu(self, fake):
        of = fake()
        assert served() == [{"vllm": "0.32.0"}, {"context": 512, "vocabulary": 48}]
        assert of.loaded == [
            {
                "model": "a/folder",
                "dtype": "float32",
                "max_model_len": -1,
                "logprobs_mode": "processed_logprobs",
                "skip_tokenizer_init": True,
                "generation_config": "vllm",
                "enforce_eager": True,
                "load_format": "safetensors",
                "trust_remote_code": False,
                "use_tqdm_on_load": False,
                "kv_cache_memory_bytes": 2**31,
            }
        ]

    def test_on_a_gpu(self, fake, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        of = fake(cpu=False)
        served()
        assert (of.loaded[0]["gpu_memory_utilization"], of.loaded[0]["enforce_eager"]) == (0.5, False)

    def test_a_model_that_does_not_load(self, fake):
        fake(loads=False)
        assert served(asked([[5], 1])) == [{"vllm": "0.32.0"}, {"refused": "No model here"}]

    def test_a_folder_whose_config_names_another_model(self, fake, tmp_path):
        of = fake()
        (tmp_path / "config.json").write_text('{"speculators_config": {"verifier": {"name_or_path": "org/other"}}}')
        assert served(asked([[5], 1]), begin=BEGIN | {"model": str(tmp_path)}) == [
            {"vllm": "0.32.0"},
            {"refused": "its config.json has speculators_config, by which vLLM may load another model"},
        ]
        assert of.loaded == []

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "vllm", None)
        assert served() == [{"refused": "This needs vllm, which is not installed: run pip install 'opd-diag[vllm]'"}]


class TestSampling:
    def test_responses_come_as_they_are_finished(self, fake):
        fake()
        _, _, *answers = served(asked([[5, 6], 1], [[7], 2]), asked([[8], 3]))
        assert [answer["prompt"] for answer in answers] == [1, 0, 0]
        for ids, answer in zip(([7], [5, 6], [8]), answers, strict=True):
            assert len(answer["responses"]) == 2
            for response, values, why in answer["responses"]:
                np.testing.assert_allclose(values, logprobs(ids, response), atol=1e-6)
                assert [i for i in response if i in (3, 9)] == ([response[-1]] if why == "stop" else [])
                assert why == "stop" or len(response) == 12

    def test_the_seed_decides(self, fake):
        fake()
        _, _, first, again, other = served(asked([[5], 1]), asked([[5], 1]), asked([[5], 2]))
        assert first == again
        assert first["responses"] != other["responses"]

    def test_log_probabilities_are_at_the_temperature_over_what_may_be_drawn(self, fake):
        of = fake()
        _, _, answer = served(asked([[5, 6], 1], temperature=0.5, n=20), begin=BEGIN | {"drawable": 40})
        for response, values, _ in answer["responses"]:
            assert max(response) < 40
            np.testing.assert_allclose(values, logprobs([5, 6], response, 0.5, 40), atol=1e-6)
        assert of.asked == []

    @pytest.mark.parametrize("raw", [False, True])
    def test_below_top_p_one_raw_log_probabilities_are_the_models_own(self, fake, raw):
        fake()
        request = asked([[5, 1], 1], top_p=0.6, n=20, max_tokens=1)
        _, _, answer = served(request, begin=BEGIN | {"drawable": 40, "raw": raw})
        row = MODEL([5, 1])[-1]
        best = sorted(range(40), key=lambda i: -row[i])
        total, nucleus = np.exp(row[:40]).sum(), []
        while np.exp(row[nucleus]).sum() < 0.6 * total:
            nucleus.append(best[len(nucleus)])
        assert 1 < len(nucleus) < 20
        of = row if raw else row[nucleus]
        for (token,), (value,), _ in answer["responses"]:
            assert token in nucleus
            np.testing.assert_allclose(value, row[token] - np.log(np.exp(of).sum()), atol=1e-6)

    def test_what_vllm_refuses_ends_it(self, fake):
        fake()
        _, _, refused = served(asked([[5], 1], top_p=1.5), asked([[5], 1]))
        assert refused == {"refused": "top_p must be in (0, 1], got 1.5. (parameter=top_p, value=1.5)"}


def test_what_libraries_print_is_no_answer(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, lines="import os; print('Loading'); os.system('echo from below')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "opd_diag.servers.vllm_child"],
        input="".join(json.dumps(line) + "\n" for line in (BEGIN, asked([[5], 1], n=1, max_tokens=1))),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [
        ["vllm"], ["context", "vocabulary"], ["prompt", "responses"],
    ]  # fmt: skip
    assert "Loading" in done.stderr
    assert "from below" in done.stderr
