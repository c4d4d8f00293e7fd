"""The server of SGLang: ``/generate``, whose prefix cache serves everything before the first row.

Shapes of requests and answers: SGLang 0.5 (``managers/io_struct.py``, ``managers/tokenizer_manager.py``). Input
log-probabilities are those of temperature 1.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.servers import contract
from opd_diag.servers.answers import Answer, Ints, Question, Sampled, whole
from opd_diag.servers.reading import at_path, most_bytes, sampled_of
from opd_diag.servers.server import MEND, NOTHING_ELSE, About, refuse_more_than_its_limit, refuse_what_it_cannot
from opd_diag.servers.transport import SMALL, Line

GENERATE, DETOKENIZE = "/generate", "/detokenize"

MOST_IDS = 256
"""Given ids of one request: rows are put into requests of their own before their different ids are more than this."""


class SGLang:
    """A model behind SGLang.

    Parameters
    ----------
    line
        The way to it.
    about
        What ``/v1/models`` says.
    top
        The most ids a row that will be asked.

    Raises
    ------
    ServerError
        It holds no language model, does not answer, or answers what it must not.
    """

    def __init__(self, line: Line, about: About, top: int) -> None:
        self._line = line
        model = self._said("/model_info", "/get_model_info")
        version = self._said("/server_info", "/get_server_info").get("version")
        root = model.get("model_path", about.root)
        self.about = replace(
            about,
            version=version if isinstance(version, str) else None,
            root=root if isinstance(root, str) else None,
            exact_ids=True,
            why_not_exact=None,
        )
        if model.get("is_generation") is False:
            raise ServerError(f"{self.about.name} holds a model that gives no next tokens. Serve a language model.")
        refuse_more_than_its_limit(self.about, top)
        self.answer(Question((0, 1), 1, 1))

    def answer(self, question: Question) -> Answer:
        """Answer a question: one request, or several where ids are given."""
        refuse_what_it_cannot(self.about, question)
        if not question.rows:
            empty = np.empty((0, question.top))
            return Answer(np.empty(0), empty.astype(np.int64), empty, None, 0)
        read = [self._asked(question, begin, end) for begin, end in _pieces(question)]
        rows = contract.Rows(
            np.concatenate([rows.own for rows, _ in read]),
            np.concatenate([rows.lengths for rows, _ in read]),
            np.concatenate([rows.ids for rows, _ in read]),
            np.concatenate([rows.logprobs for rows, _ in read]),
            None if question.at is None else np.concatenate([rows.at for rows, _ in read]),
        )
        return contract.believed(question, rows, self.about, sum(size for _, size in read))

    def text(self, ids: Sequence[int]) -> str | None:
        """Give the server's own text of ids, special tokens kept; None where it does not offer that."""
        return self._line.text(
            DETOKENIZE, {"model": self.about.model, "tokens": whole(ids), "skip_special_tokens": False}, "text"
        )

    def sampled(
        self, prompt_ids: Sequence[int], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[Sampled]:
        """Sample n responses with the seeds `seed` to ``seed + n - 1``.

        Seeds hold where the server was started with ``--enable-deterministic-inference``. Log-probabilities are there
        at temperature 1 alone: the server divides logits by the temperature first.
        """
        one = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, **NOTHING_ELSE}
        body = {
            "input_ids": [whole(prompt_ids)] * n,
            "sampling_params": [{**one, "sampling_seed": seed + i} for i in range(n)],
            "return_logprob": True,
            "return_text_in_logprobs": False,
        }
        reply = self._line.wanted(GENERATE, body, most=SMALL + 1024 * n * max_new_tokens)
        if not isinstance(reply.data, list) or len(reply.data) != n:
            found = len(reply.data) if isinstance(reply.data, list) else "none"
            raise ServerError(f"{self.about.name}: {n} responses were expected, found {found}. {MEND}")
        responses = []
        for response in reply.data:
            triples = at_path(response, "meta_info", "output_token_logprobs")
            parts = [list(part) for part in zip(*triples, strict=False)] if _are_triples(triples) else [None, None]
            finish = at_path(response, "meta_info", "finish_reason", "type")
            logprobs = parts[0] if temperature == 1 else None
            responses.append(sampled_of(self.about, parts[1], logprobs, finish, max_new_tokens))
        return responses

    def _said(self, *paths: str) -> dict[str, Any]:
        """Ask under the name of today, then under that of earlier releases."""
        for path in paths:
            reply = self._line.asked(path, most=SMALL)
            if reply.ok and isinstance(reply.data, dict):
                return reply.data
        return {}

    def _asked(self, question: Question, begin: int, end: int) -> tuple[contract.Rows, int]:
        """Ask for the rows `begin` to `end` of a question."""
        first, last = question.start + begin, question.start + end
        at = None if question.at is None else question.at[begin:end]
        given = None if at is None else np.unique(at[at >= 0])
        body = {
            "input_ids": question.sent[:last],
            "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": first - 1,
            "top_logprobs_num": question.top,
            "return_text_in_logprobs": False,
            "return_flat_raw_top_logprobs": True,
            "return_flat_raw_top_logprobs_b64": True,
            **({} if given is None or not given.size else {"token_ids_logprob": given}),
        }
        entries = question.top + 1 + (0 if given is None else len(given))
        reply = self._line.wanted(GENERATE, body, most=most_bytes(end - begin, entries))
        meta = at_path(reply.data, "meta_info")
        counted = at_path(meta, "prompt_tokens")
        if counted != last:
            found = f"{counted}" if isinstance(counted, int) else "none"
            raise ServerError(f"{self.about.name}: {last} ids were sent, it has read {found}. {MEND}")
        own = self._triples(meta, "input_token_logprobs", 1, first, last, nested=False)
        for token, one in enumerate(own[1], start=first):
            if one != question.sent[token]:
                raise ServerError(
                    f"{self.about.name}: the row of token {token} was expected to be that of id "
                    f"{question.sent[token]}, found {one!r:.12}. Rows are missing or in another order. {MEND}"
                )
        top = self._flat(meta, (end - begin) * question.top)
        logprobs, ids = top or self._triples(meta, "input_top_logprobs", question.top, first, last)
        rows = contract.Rows(
            contract.floats(own[0], self.about).reshape(-1),
            np.full(end - begin, question.top, np.int64),
            contract.integers(ids, self.about).reshape(-1),
            contract.floats(logprobs, self.about).reshape(-1),
            self._at(meta, at, given, first, last),
        )
        return rows, reply.size

    def _at(self, meta: Any, at: Ints | None, given: Ints | None, first: int, last: int) -> Any:
        """Take each row's own ids out of the values at those of all rows."""
        if at is None or given is None:
            return None
        if not given.size:
            return np.full(at.shape, np.nan)
        logprobs, ids = self._triples(meta, "input_token_ids_logprobs", len(given), first, last)
        values, found = contract.floats(logprobs, self.about), contract.integers(ids, self.about)
        if not values.size == found.size == len(at) * len(given):
            raise ServerError(f"{self.about.name} answers log-probabilities that are no numbers. {MEND}")
        values, found = values.reshape(len(at), len(given)), found.reshape(len(at), len(given))
        order = np.argsort(found, axis=1)
        if not (np.take_along_axis(found, order, axis=1) == given).all():
            raise ServerError(
                f"{self.about.name}: values at the {len(given)} ids that were given were expected in each row, found "
                f"others. {MEND}"
            )
        places = np.searchsorted(given, np.maximum(at, given[0]))
        return np.take_along_axis(np.take_along_axis(values, order, axis=1), places, axis=1)

    def _triples(
        self, meta: Any, name: str, width: int, first: int, last: int, *, nested: bool = True
    ) -> tuple[list[Any], list[Any]]:
        """Read rows of [log-probability, id, text], of which the first has none; give both of all rows."""
        rows = at_path(meta, name)
        if not isinstance(rows, list) or len(rows) != last - first + 1:
            found = max(len(rows) - 1, 0) if isinstance(rows, list) else "none"
            raise ServerError(f"{self.about.name}: {last - first} rows of {name} were expected, found {found}. {MEND}")
        triples = [row if nested else [row] for row in rows[1:]]
        for token, row in enumerate(triples, start=first):
            if not isinstance(row, list) or len(row) != width or not _are_triples(row):
                found = len(row) if isinstance(row, list) else "none"
                raise ServerError(
                    f"{self.about.name}: in the row of token {token} {width} ids with their log-probabilities were "
                    f"expected in {name}, found {found}. {MEND}"
                )
        return [one[0] for row in triples for one in row], [one[1] for row in triples for one in row]

    def _flat(self, meta: Any, size: int) -> tuple[Any, Any] | None:
        """Read the compact form; None where the server answers the other one."""
        read = []
        for name, dtype in (("input_top_logprobs_val_flat", "<f4"), ("input_top_logprobs_idx_flat", "<i4")):
            values = at_path(meta, name)
            coded = at_path(meta, f"{name}_b64")
            if isinstance(coded, str):
                try:
                    values = np.frombuffer(base64.b64decode(coded, validate=True), dtype)
                except (ValueError, binascii.Error):
                    values = []
            if values is None:
                return None
            read.append(values)
        for values in read:
            if not isinstance(values, (list, np.ndarray)) or len(values) != size:
                found = len(values) if isinstance(values, (list, np.ndarray)) else "none"
                raise ServerError(
                    f"{self.about.name}: {size} values of the most probable ids were expected, found {found}. {MEND}"
                )
        return read[0], read[1]


def _are_triples(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(one, list) and len(one) >= 2 for one in rows)


def _pieces(question: Question) -> Iterator[tuple[int, int]]:
    """Cut rows into requests: a request has one list of given ids for all its rows."""
    if question.at is None:
        yield 0, question.rows
        return
    begin, given = 0, set[int]()
    for row, ids in enumerate(question.at):
        joined = given.union(ids[ids >= 0].tolist())
        if len(joined) > MOST_IDS and row > begin:
            yield begin, row
            begin, joined = row, set(ids[ids >= 0].tolist())
        given = joined
    yield begin, question.rows
