"""A stand-in for the package vllm: the classes that are used of vLLM 0.32, with a model of arithmetic.

Rows, refusals and their words are those of ``entrypoints/llm.py``, ``logprobs.py``, ``outputs.py``,
``v1/engine/logprobs.py`` and ``v1/engine/input_processor.py``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np


class VLLMError(Exception):
    """vLLM's own base: derived from nothing that is caught elsewhere."""


@dataclass
class FlatLogprobs:
    start_indices: list = field(default_factory=list)
    end_indices: list = field(default_factory=list)
    token_ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)

    def row(self, ids, values):
        self.start_indices.append(len(self.token_ids))
        self.token_ids += [int(one) for one in ids]
        self.logprobs += [float(np.float32(one)) for one in values]
        self.end_indices.append(len(self.token_ids))


class SamplingParams:
    """Keeps what it is given; a name that vLLM has not is a TypeError, as there."""

    NAMES = ("n", "max_tokens", "temperature", "top_p", "seed", "logprobs", "prompt_logprobs", "detokenize")
    NAMES += ("flat_logprobs", "prompt_logprob_token_ids", "prompt_logprob_start")
    NAMES += ("stop_token_ids", "logit_bias", "output_kind")

    def __init__(self, **given):
        assert set(given) <= set(self.NAMES), given
        values = {"n": 1, "max_tokens": 16, "temperature": 1.0, "top_p": 1.0, **given}
        for name in self.NAMES:
            setattr(self, name, values.get(name))
        if not 0 < self.top_p <= 1:
            raise VLLMError(f"top_p must be in (0, 1], got {self.top_p}. (parameter=top_p, value={self.top_p})")
        if self.temperature > 2:
            raise VLLMError(f"temperature must be in [0, 2], got {self.temperature}.")
        if 0 < self.temperature < 0.01:
            self.temperature = 0.01
        if self.temperature == 0:
            self.top_p = 1.0
        if self.temperature == 0 and self.n > 1:
            raise VLLMError(f"n must be 1 when using greedy sampling, got {self.n}.")


def nucleus(logits, top_p):
    """How many of the most probable ids together reach top-p; the one that reaches it is in."""
    best = np.sort(np.exp(logits - logits.max()))[::-1]
    before = np.cumsum(best / best.sum()) - best / best.sum()
    return int((before < top_p).sum())


class Tokenizer:
    def decode(self, ids, skip_special_tokens=True):
        assert skip_special_tokens is False
        return " ".join(map(str, ids))


class Fake:
    """What was loaded and asked, and how the engine misbehaves."""

    def __init__(
        self, model=None, *, of_folder=None, exact=True, spoil=None, cpu=True, context=512, loads=True, stop_id=None
    ):
        self.of_folder = of_folder or (lambda folder: model)
        self.model, self.exact, self.spoil, self.cpu, self.context = model, exact, spoil, cpu, context
        self.loads, self.stop_id = loads, stop_id
        self.on_hub = {}
        """Configs by hub id."""
        self.asked = []
        """(number, prompt, parameters) of what the engine was given and has not finished."""
        self.loaded, self.calls, self.threads = [], [], set()
        self.gate, self.at_gate = None, threading.Event()
        """An event that the engine waits for before each call, and one that it sets before it waits."""

    @property
    def vocab_size(self):
        return self.model([0]).shape[1]

    def modules(self):
        """The modules of the package, by name."""
        made = {}
        for name, has in {
            "vllm": {"__version__": "0.32.0", "LLM": self.llm, "SamplingParams": SamplingParams, "TokensPrompt": dict},
            "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: self.cpu)},
            "vllm.exceptions": {"VLLMError": VLLMError},
            "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY="final")},
        }.items():
            made[name] = ModuleType(name)
            vars(made[name]).update(has)
        return made

    def install(self, monkeypatch):
        for name, module in self.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        return self

    def llm(self, **arguments):
        self.threads.add(threading.current_thread().name)
        self.loaded.append(arguments)
        if not self.loads:
            raise ValueError("No model\nhere.")
        model, draft = self.resolved(arguments["model"])
        self.model = self.of_folder(model)
        config = SimpleNamespace(model=model, max_model_len=self.context, get_vocab_size=lambda: self.vocab_size)
        engine = SimpleNamespace(
            vllm_config=SimpleNamespace(speculative_config=draft),
            add_request=lambda *request: self.asked.append(request),
            has_unfinished_requests=lambda: bool(self.asked),
            step=self.step,
        )
        return SimpleNamespace(model_config=config, generate=self.generate, get_tokenizer=Tokenizer, llm_engine=engine)

    def resolved(self, model):
        """What is loaded for a model, and the draft model beside it: ``maybe_override_with_speculators``."""
        config = Path(model, "config.json")
        said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else self.on_hub.get(model, {})
        speculators = said.get("speculators_config")
        return (model, None) if speculators is None else (speculators["verifier"]["name_or_path"], model)

    def step(self):
        """Finish the request that came last, with what had not to be returned before."""
        number, prompt, params = self.asked.pop()
        assert params.output_kind == "final"
        output = self.output(prompt["prompt_token_ids"], params)
        output.request_id = number
        return [output]

    def generate(self, prompts, params, *, use_tqdm):
        assert use_tqdm is False
        assert len(prompts) == len(params) > 0
        self.threads.add(threading.current_thread().name)
        if self.gate is not None:
            self.at_gate.set()
            self.gate.wait(10)
        self.calls.append([tuple(prompt["prompt_token_ids"]) for prompt in prompts])
        return [self.output(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, params, strict=True)]

    def output(self, ids, params):
        if max(ids) >= self.vocab_size:
            raise VLLMError(f"Token id {max(ids)} is out of vocabulary")
        at = params.prompt_logprob_token_ids
        if at is not None and not self.exact:
            raise VLLMError(
                "prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1). "
                "(parameter=prompt_logprob_token_ids)"
            )
        assert params.detokenize is False
        assert params.flat_logprobs is True
        spoil = self.spoil if len(ids) > 2 else None
        rows = self.model(ids)
        if spoil == "logits":
            rows = rows + 9.0
        out = SimpleNamespace(
            prompt_token_ids=[*ids[:-1], ids[-1] + 1] if spoil == "other_ids" else list(ids),
            prompt_logprobs=self.prompt_rows(ids, rows, params, spoil),
            prompt_token_id_logprobs=None,
            outputs=[self.response(ids, params, i) for i in range(params.n - (spoil == "few_responses"))],
        )
        if at is not None:
            scored = rows[params.prompt_logprob_start : len(ids) - 1]
            assert len(at) == len(scored)
            values = np.take_along_axis(scored, np.maximum(at, 0), axis=1)
            out.prompt_token_id_logprobs = np.where(at < 0, -np.inf, values).astype(np.float32)
        return out

    def prompt_rows(self, ids, rows, params, spoil):
        """The first token has none; each other its own value first, then the K best with ties as the sort has them."""
        k = self.vocab_size if params.prompt_logprobs == -1 else params.prompt_logprobs
        if k is None:
            return None
        flat = FlatLogprobs()
        flat.row([], [])
        last = len(ids) - (spoil == "few_rows")
        for own, row in zip(ids[1:last], rows, strict=False):
            best = np.argsort(-row)[:k]
            one = (own + 1) % self.vocab_size if spoil == "shifted" else own
            flat.row([one, *best], [row[own], *row[best]])
        return flat

    def response(self, ids, params, index):
        """Draw one; log-probabilities are the model's, or processed: with the bias, at the temperature, in top-p."""
        numbers, drawn, flat = np.random.default_rng([params.seed or 0, index]), [], FlatLogprobs()
        stops = {self.stop_id, *(params.stop_token_ids or ())}
        processed = self.loaded[-1]["logprobs_mode"] == "processed_logprobs"
        while len(drawn) < params.max_tokens and (not drawn or drawn[-1] not in stops):
            row = self.model([*ids, *drawn])[-1].astype(np.float64)
            biased = row.copy()
            for token, bias in (params.logit_bias or {}).items():
                biased[token] += bias
            tempered = biased / (params.temperature or 1.0)
            least = np.sort(tempered)[::-1][nucleus(tempered, params.top_p) - 1]
            tempered[tempered < least] = -np.inf
            scores = np.exp(tempered) if params.temperature else biased == biased.max()
            drawn.append(int(numbers.choice(len(row), p=scores / scores.sum())))
            own = tempered - np.log(np.exp(tempered).sum()) if processed else row
            flat.row([drawn[-1]], [own[drawn[-1]]])
        reason = "stop" if drawn[-1] in stops else "length"
        return SimpleNamespace(token_ids=drawn, logprobs=flat, finish_reason=reason)


PACKAGE = """
import sys
from servers.fake_vllm import Fake
from servers.stand_in import TinyModel
{lines}
sys.modules.update(Fake({arguments}).modules())
"""


def put_on_path(folder, monkeypatch, arguments="TinyModel(48)", lines=""):
    """Let this process find the stand-in, and those that it begins import it.

    Parameters
    ----------
    folder
        Where its file is written.
    arguments
        Of `Fake`, as source.
    lines
        Source that runs before it is made.
    """
    package = folder / "vllm"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PACKAGE.format(arguments=arguments, lines=lines), encoding="utf-8")
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(tests), *filter(None, sys.path)]))
    monkeypatch.syspath_prepend(str(folder))
