"""The package vLLM, imported; its engine in this process, and the one thread that works with it.

Weights are read from safetensors alone, and no code of the model's folder is run. A teacher that needs several GPUs is
for a server.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from opd_diag.errors import InputError, MissingExtra, ServerError
from opd_diag.servers.child import words
from opd_diag.text import visible

EXTRA = "vllm"

GPU_SHARE = 0.6
"""Of a GPU's memory, for the teacher and its keys and values; students take the rest."""

CPU_CACHE = 2**31
"""Bytes for keys and values on a CPU, where vLLM's default is most of the machine's memory."""

MOST_VALUES = 2**22
"""Log-probabilities that one call of the engine may give, some 400 MiB as vLLM has them; a longer question is alone."""

MOMENT_S = 0.003
"""Seconds that the engine waits for more before each call: those whose answers came together ask again together."""

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a fork of a process that has run torch may hang
    "VLLM_LOGGING_LEVEL": "ERROR",  # only the terminal door draws
    "VLLM_NO_USAGE_STATS": "1",  # nothing of a user's leaves the machine
}
"""What vLLM reads when it is imported, where the user has not said otherwise."""

LIBRARY_ERRORS = (
    *(OSError, ImportError, RuntimeError, ValueError, TypeError),
    *(LookupError, AttributeError, ArithmeticError, AssertionError),
)
"""What it raises beside its own errors, and what importing it ends in where its parts do not fit each other."""

OTHERS = ("speculators_config", "configuration_files")
"""What in a ``config.json`` makes vLLM load another model (``maybe_override_with_speculators``), or another config."""


@dataclass(frozen=True)
class Library:
    """vLLM, imported."""

    vllm: Any
    errors: tuple[type[Exception], ...]
    """What it raises."""
    on_cpu: bool

    def loaded(self, model: str, dtype: str | None, gpu_share: float, **more: Any) -> Any:
        """Load a model: its ``LLM``.

        Parameters
        ----------
        model, dtype
            As of :class:`Engine`.
        gpu_share
            Of the GPU's memory, in (0, 1]; no matter on a CPU.
        more
            Further arguments of ``LLM``.

        Raises
        ------
        ValueError
            vLLM would load another model, or has.
        Exception
            One of `errors`.
        """
        for name in OTHERS:
            if _config(model).get(name) is not None:
                raise ValueError(f"its config.json has {name}, by which vLLM may load another model")
        memory = {"kv_cache_memory_bytes": CPU_CACHE} if self.on_cpu else {"gpu_memory_utilization": gpu_share}
        llm = self.vllm.LLM(
            model=model,
            dtype=dtype or "auto",
            max_model_len=-1,  # as much of the model's context as fits into memory
            enforce_eager=self.on_cpu,
            load_format="safetensors",
            trust_remote_code=False,
            use_tqdm_on_load=False,
            **memory,
            **more,
        )
        found = str(llm.model_config.model)
        other = os.path.isdir(model) and os.path.realpath(found) != os.path.realpath(model)
        if other or llm.llm_engine.vllm_config.speculative_config is not None:
            raise ValueError(f"it loads {visible(found, keep='')} in its place")
        return llm


def _config(model: str) -> dict[str, Any]:
    """Read the config of a folder; what is none is left to vLLM, and so is a hub id's."""
    try:
        read = json.loads(Path(model, "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def imported() -> Library:
    """Import vLLM.

    Raises
    ------
    MissingExtra
        It is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        vllm = importlib.import_module("vllm")
        platform = importlib.import_module("vllm.platforms").current_platform
        errors = (*LIBRARY_ERRORS, importlib.import_module("vllm.exceptions").VLLMError)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra=EXTRA) from error
    return Library(vllm, errors, bool(platform.is_cpu()))


@dataclass(eq=False)
class _Call:
    """Questions that go to the engine together."""

    prompts: list[Any] = field(default_factory=list)
    params: list[Any] = field(default_factory=list)
    values: int = 0
    done: Future[list[Any]] = field(init=False)


class Engine:
    """A model that vLLM has loaded, and the one thread that works with it.

    Parameters
    ----------
    model
        Folder or hub id.
    dtype
        ``"float32"``, ``"bfloat16"`` or ``"float16"``; None: vLLM's choice for the folder.
    weights_key
        Fingerprint of the weights in the folder; None where none is known.

    Raises
    ------
    MissingExtra
        vLLM is not installed.
    ServerError
        The model does not load.
    """

    def __init__(self, model: str, dtype: str | None, weights_key: str | None) -> None:
        library = imported()
        self.weights_key = weights_key
        self.vllm, self.errors = library.vllm, library.errors
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vllm")
        self._lock = Lock()
        self._open: _Call | None = None
        load = functools.partial(library.loaded, model, dtype, GPU_SHARE, max_logprobs=-1, logprobs_mode="raw_logprobs")
        try:  # in its thread, to which vLLM binds those of its kernels
            self.llm = self._thread.submit(load).result()
        except self.errors as error:
            raise ServerError(
                f"vLLM does not load {visible(model, keep='')}: {words_of(error)}. Name a model that it loads, or load "
                "the teacher without it: --teacher DIR."
            ) from error

    def generated(self, ids: Sequence[int], params: Any, values: int) -> Any:
        """Give the engine's output for one sequence; who asks while it works is answered together.

        Parameters
        ----------
        ids
            The sequence.
        params
            Its ``SamplingParams``.
        values
            Log-probabilities that it will give.
        """
        prompt = self.vllm.TokensPrompt(prompt_token_ids=list(ids))
        with self._lock:
            call = self._open
            if call is None or call.values + values > MOST_VALUES:
                call = self._open = _Call()
                call.done = self._thread.submit(self._run, call)
            place = len(call.prompts)
            call.prompts.append(prompt)
            call.params.append(params)
            call.values += values
        return call.done.result()[place]

    def _run(self, call: _Call) -> list[Any]:
        time.sleep(MOMENT_S)
        with self._lock:
            if self._open is call:
                self._open = None
        outputs: list[Any] = self.llm.generate(call.prompts, call.params, use_tqdm=False)
        return outputs


ENGINES: dict[tuple[str, str | None], Engine] = {}
"""Those of this process, by model and dtype: a second one of a model would need its memory again."""


def engine_of(model: str, dtype: str | None, weights_key: str | None) -> Engine:
    """Load a model once; parameters and errors as of :class:`Engine`.

    Raises
    ------
    InputError
        It is loaded here with other weights than it has now.
    """
    engine = ENGINES.get((model, dtype))
    if engine is None:
        engine = ENGINES[model, dtype] = Engine(model, dtype, weights_key)
    if engine.weights_key != weights_key:
        raise InputError(
            f"{visible(model, keep='')} is loaded in this process with other weights than lie there now, and vLLM "
            "loads a model once. Begin a new process for these."
        )
    return engine


def words_of(error: BaseException) -> str:
    """Give what a library says, in one line."""
    return words(error) or type(error).__name__
