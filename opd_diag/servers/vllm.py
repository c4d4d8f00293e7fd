"""The server of vLLM: ``/v1/completions`` with prompt log-probabilities, ``/inference/v1/generate`` for given ids.

Shapes of requests and answers: protocol of vLLM 0.32 (``entrypoints/openai/completion``,
``entrypoints/scale_out/token_in_token_out``). Prompt log-probabilities are those of temperature 1 whatever is sampled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.servers import contract
from opd_diag.servers.answers import ALL, Answer, Floats, Ints, Question, Sampled, whole
from opd_diag.servers.reading import at_path, most_bytes, npy_array, sampled_of
from opd_diag.servers.server import MEND, NOTHING_ELSE, About, refuse_more_than_its_limit, refuse_what_it_cannot
from opd_diag.servers.transport import SMALL, Line
from opd_diag.text import visible

COMPLETIONS, GENERATE, DETOKENIZE = "/v1/completions", "/inference/v1/generate", "/detokenize"

NO_EXACT = "Exact values at given ids need vLLM 0.32 or newer on its V2 model runner, started with --enable-scale-out"

_WHOLE_VOCABULARY = 2**28
"""Bytes that one row of a whole vocabulary may have."""

_TOO_MANY = re.compile(r"prompt logprobs of (\d+), which is greater than max allowed: (\d+)")


class VLLM:
    """A model behind vLLM.

    Parameters
    ----------
    line
        The way to it.
    about
        What ``/v1/models`` says; what it can be asked is found out here, with a few requests of two tokens.
    top
        The most ids a row that will be asked; -1 for all.

    Raises
    ------
    ServerError
        It gives fewer, does not answer, or answers what it must not.
    """

    def __init__(self, line: Line, about: About, top: int) -> None:
        self._line = line
        version = line.asked("/version", most=SMALL)
        said = version.data.get("version") if version.ok and isinstance(version.data, dict) else None
        self.about = replace(about, version=said if isinstance(said, str) else None)
        self.about = self._with_limit(top)
        refuse_more_than_its_limit(self.about, top)
        self.about = self._with_exact_ids()
        self.answer(Question((0, 1), 1, 1))

    def answer(self, question: Question) -> Answer:
        """Answer a question: one request, or several where more ids are given a row than the server takes."""
        refuse_what_it_cannot(self.about, question)
        if not question.rows:
            empty = np.empty((0, max(question.top, 0)))
            return Answer(np.empty(0), empty.astype(np.int64), empty, None, 0)
        if question.at is None:
            reply = self._line.wanted(COMPLETIONS, self._completion(question), most=self._most(question))
            choice = at_path(reply.data, "choices", 0)
            echo = at_path(choice, "prompt_token_ids")
            listed = at_path(choice, "prompt_logprobs")
            return contract.believed(question, self._rows(question, echo, listed), self.about, reply.size)
        width = self.about.top_limit or question.at.shape[1]
        pieces = [question.at[:, i : i + width] for i in range(0, question.at.shape[1], width)]
        read = [self._generated(question, piece, with_top=i == 0) for i, piece in enumerate(pieces)]
        first = read[0][0]
        rows = self._rows(question, at_path(first, "prompt_token_ids"), at_path(first, "prompt_logprobs"))
        rows = replace(rows, at=np.concatenate([at for _, at, _ in read], axis=1))
        return contract.believed(question, rows, self.about, sum(size for _, _, size in read))

    def text(self, ids: Sequence[int]) -> str | None:
        """Give the server's own text of ids, special tokens kept; None where it does not offer that."""
        return self._line.text(DETOKENIZE, {"model": self.about.model, "tokens": whole(ids)}, "prompt")

    def sampled(
        self, prompt_ids: Sequence[int], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[Sampled]:
        """Sample n responses; vLLM gives each a stream of its own from `seed`. At temperature 0 all are one."""
        different = n if temperature > 0 else 1
        body = {
            "model": self.about.model,
            "prompt": whole(prompt_ids),
            "n": different,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **NOTHING_ELSE,
        }
        reply = self._line.wanted(COMPLETIONS, body, most=SMALL + 1024 * different * max_new_tokens)
        choices = at_path(reply.data, "choices")
        if not isinstance(choices, list) or len(choices) != different:
            found = len(choices) if isinstance(choices, list) else "none"
            raise ServerError(f"{self.about.name}: {different} responses were expected, found {found}. {MEND}")
        read = [
            sampled_of(
                self.about,
                at_path(one, "token_ids"),
                at_path(one, "logprobs", "token_logprobs"),
                at_path(one, "finish_reason"),
                max_new_tokens,
            )
            for one in choices
        ]
        return read if temperature > 0 else read * n

    def _with_limit(self, top: int) -> About:
        """Find how many log-probabilities the server gives, by asking for all: it then says how many there are."""
        body = self._completion(Question((0, 1), 1, ALL))
        reply = self._line.asked(COMPLETIONS, body, most=_WHOLE_VOCABULARY)
        if reply.ok:
            row = at_path(reply.data, "choices", 0, "prompt_logprobs", 1)
            size = len(row) if isinstance(row, dict) else None
            return replace(self.about, top_limit=None, sees_all=True, vocab_size=size)
        if said := _TOO_MANY.search(reply.words):
            size, limit = map(int, said.groups())
            return replace(self.about, top_limit=limit, vocab_size=size)
        if reply.status in (401, 403) or top == ALL:
            self._line.refused(COMPLETIONS, reply)
        self._line.wanted(COMPLETIONS, self._completion(Question((0, 1), 1, top)), most=SMALL + 2**10 * top)
        return replace(self.about, top_limit=top)

    def _with_exact_ids(self) -> About:
        """Find out whether given ids can be asked, by asking for one."""
        reply = self._line.asked(GENERATE, self._generation(Question((0, 1), 1, 1), _ONE_ID, False), most=SMALL)
        if reply.ok and isinstance(at_path(reply.data, "prompt_token_id_logprobs"), str):
            return replace(self.about, exact_ids=True, why_not_exact=None)
        if reply.ok:
            words = "it answers without them"
        else:
            words = f"it answers HTTP {reply.status}{reply.words and ', '}{reply.words}"
        return replace(self.about, exact_ids=False, why_not_exact=f"{NO_EXACT}; {words.rstrip('.')}.")

    def _completion(self, question: Question) -> dict[str, Any]:
        return {
            "model": self.about.model,
            "prompt": question.sent,
            "max_tokens": 1,  # 0 is refused
            "temperature": 0.0,
            "prompt_logprobs": question.top,
            "return_token_ids": True,
        }

    def _generation(self, question: Question, at: Ints, with_top: bool) -> dict[str, Any]:
        scoring = {"prompt_logprob_token_ids": at.tolist(), "prompt_logprob_start": question.start - 1}
        top = {"prompt_logprobs": question.top} if with_top else {}
        return {
            "model": self.about.model,
            "token_ids": question.sent,
            "sampling_params": {"max_tokens": 1, "temperature": 0.0, "detokenize": False, **scoring, **top},
            "return_token_ids": True,
        }

    def _generated(self, question: Question, at: Ints, with_top: bool) -> tuple[Any, Floats, int]:
        body = self._generation(question, at, with_top)
        reply = self._line.wanted(GENERATE, body, most=self._most(question) + 32 * at.size)
        return reply.data, npy_array(at_path(reply.data, "prompt_token_id_logprobs"), at.shape, self.about), reply.size

    def _most(self, question: Question) -> int:
        """Bound the bytes of an answer, which has rows of the prompt too."""
        if question.top != ALL:
            return most_bytes(len(question.sent), question.top + 1)
        return len(question.sent) * (
            _WHOLE_VOCABULARY if self.about.vocab_size is None else 2**8 * self.about.vocab_size
        )

    def _rows(self, question: Question, echo: Any, listed: Any) -> contract.Rows:
        """Read one list with a row a token, of which the first has none."""
        sent, name = question.sent, self.about.name
        if echo != list(sent):
            raise ServerError(_other_ids(name, echo, sent))
        if not isinstance(listed, list) or len(listed) != len(sent):
            found = len(listed) if isinstance(listed, list) else "none"
            raise ServerError(
                f"{name}: {len(sent)} rows of prompt log-probabilities were expected, found {found}. Start it with "
                "--no-enable-prefix-caching, or update it: old releases lose rows that they have in the prefix cache."
            )
        wanted = question.top if question.top != ALL else self.about.vocab_size or 0
        own: list[Any] = []
        lengths: list[int] = []
        ids: list[int] = []
        logprobs: list[Any] = []
        for token, row in enumerate(listed[question.start :], start=question.start):
            if not isinstance(row, dict) or str(sent[token]) not in row:
                raise ServerError(
                    f"{name}: the row of token {token} was expected to have the token's own id, {sent[token]}; found "
                    f"{_some(row)}. Rows are missing or in another order. {MEND}"
                )
            if not wanted <= len(row) <= wanted + (question.top != ALL):
                raise ServerError(
                    f"{name}: in the row of token {token} {wanted} ids and the token's own were expected, found "
                    f"{len(row)}. {MEND}"
                )
            try:
                values = [one["logprob"] for one in row.values()]
                own.append(row[str(sent[token])]["logprob"])
                ids.extend(map(int, row))
            except (TypeError, KeyError, ValueError, IndexError):
                raise ServerError(
                    f"{name}: in the row of token {token} ids with their log-probabilities were expected, found "
                    f"{_some(row)}. {MEND}"
                ) from None
            lengths.append(len(row))
            logprobs.extend(values)
        return contract.Rows(own, np.asarray(lengths, np.int64), ids, logprobs)


_ONE_ID = np.zeros((1, 1), np.int64)


def _other_ids(name: str, echo: Any, sent: tuple[int, ...]) -> str:
    if not isinstance(echo, list):
        return (
            f"{name}: the ids that were sent were expected back, found none. Update it to vLLM 0.10.2 or newer, which "
            "answers return_token_ids."
        )
    place = next((i for i, (a, b) in enumerate(zip(echo, sent, strict=False)) if a != b), min(len(echo), len(sent)))
    return (
        f"{name}: the {len(sent)} ids that were sent were expected back, found {len(echo)} which differ from them at "
        f"token {place}. {MEND}"
    )


def _some(row: Any) -> str:
    """Name a few ids of a row."""
    return (
        f"ids {', '.join(visible(str(one)[:12], keep='') for one in list(row)[:4])}"
        if isinstance(row, dict)
        else "none"
    )
