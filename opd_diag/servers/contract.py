"""What an answer must be before it is believed: log-probabilities, of the ids that were sent, free of contradiction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.servers.answers import ALL, Answer, Floats, Ints, Question
from opd_diag.servers.server import About

MINUS_INFINITY = -9999.0
"""Servers write this, or less, for a log-probability of -inf, which JSON has no word for."""

TOLERANCE = 1e-3
"""How far probabilities may sum to above one, and two values of one log-probability may lie apart."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a server sent of R rows, not believed yet."""

    own: Any
    """R log-probabilities of the tokens that the rows predict."""
    lengths: Ints
    """(R,) how many ids each row has."""
    ids: Any
    """The ids of all rows, one row behind the other."""
    logprobs: Any
    """Their log-probabilities."""
    at: Any = None
    """(R, m) log-probabilities at the ids asked."""


def believed(question: Question, rows: Rows, about: About, received_bytes: int) -> Answer:
    """Check what a server sent, and order it.

    Parameters
    ----------
    question
        What was asked.
    rows
        With at least K ids a row; where K + 1 are there the least probable is left out.
    about
        Whose answer it is.
    received_bytes
        Noted in the answer.

    Raises
    ------
    ServerError
        A value is no number or no log-probability, an id is none or comes twice, or values contradict one another.
    """
    check = _Check(question, about)
    own = check.numbers(rows.own, np.arange(question.rows))
    row_of = np.repeat(np.arange(question.rows), rows.lengths)
    flat_ids, flat = check.ids(rows.ids, row_of), check.numbers(rows.logprobs, row_of)
    ids, logprobs = _in_order(rows.lengths, row_of, flat_ids, flat)
    check.no_id_twice(rows.lengths, ids)
    k = question.top if question.top != ALL else ids.shape[1]
    ids, logprobs = ids[:, :k], logprobs[:, :k]
    check.distributions(logprobs)
    check.agree(np.asarray(question.sent[question.start :])[:, None], own[:, None], ids, logprobs)
    at = None
    if question.at is not None:
        at = check.at(rows.at)
        check.agree(question.at, at, ids, logprobs)
    # A copy each: a view would keep what was cut off.
    return Answer(own[: len(question.ids) - question.start].copy(), ids.copy(), logprobs.copy(), at, received_bytes)


def _in_order(lengths: Ints, row_of: Ints, ids: Ints, logprobs: Floats) -> tuple[Ints, Floats]:
    """Put rows of any length beside each other, best first, of equal values the lower id first; then -1 and -inf."""
    order = np.lexsort((ids, -logprobs, row_of))
    width = int(lengths.max(initial=0))
    place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids_out = np.full((len(lengths), width), -1, np.int64)
    logprobs_out = np.full((len(lengths), width), -np.inf)
    ids_out[row_of, place], logprobs_out[row_of, place] = ids[order], logprobs[order]
    return ids_out, logprobs_out


class _Check:
    """The checks of one answer; each raises :class:`ServerError` that names the first row at fault."""

    def __init__(self, question: Question, about: About) -> None:
        self.question = question
        self.about = about

    def refuse(self, row: int, expected: str, found: str, mend: str | None = None) -> None:
        raise ServerError(
            f"{self.about.name} answers what cannot be: in the row of token {self.question.start + int(row)} "
            f"{expected} expected, found {found}. {mend or self.about.mend}"
        )

    def numbers(self, values: Any, row_of: Ints) -> Floats:
        """Give log-probabilities, in [-inf, 0]."""
        numbers = floats(values, self.about)
        if numbers.shape != row_of.shape:
            raise ServerError(f"{self.about.name} answers log-probabilities that are no numbers. {self.about.mend}")
        for row in row_of[np.isnan(numbers)][:1]:
            self.refuse(row, "log-probabilities were", "a value that is no number")
        for row, value in zip(row_of[numbers > TOLERANCE][:1], numbers[numbers > TOLERANCE][:1], strict=True):
            self.refuse(row, "log-probabilities of at most 0 were", f"{value:.6g}", self.about.mend_logits)
        return _bounded(numbers)

    def ids(self, values: Any, row_of: Ints) -> Ints:
        ids = integers(values, self.about)
        if ids.shape != row_of.shape:
            raise ServerError(f"{self.about.name} answers token ids that are no integers. {self.about.mend}")
        most = np.iinfo(np.int64).max if self.about.vocab_size is None else self.about.vocab_size - 1
        outside = (ids < 0) | (ids > most)
        for row, one in zip(row_of[outside][:1], ids[outside][:1], strict=True):
            known = "ids of at least 0" if self.about.vocab_size is None else f"ids of 0 to {most}"
            self.refuse(row, f"{known} were", str(one))
        return ids

    def no_id_twice(self, lengths: Ints, ids: Ints) -> None:
        ordered = np.sort(ids, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        for row in np.flatnonzero(twice.any(axis=1))[:1]:
            one = ordered[row, 1:][twice[row]][0]
            self.refuse(row, f"{lengths[row]} different ids were", f"id {one} twice")

    def distributions(self, logprobs: Floats) -> None:
        """Hold each row against the whole: no more than 1, and what the rest of the vocabulary can have makes it up."""
        mass = np.exp(logprobs).sum(axis=1)
        for row in np.flatnonzero(mass > 1 + TOLERANCE)[:1]:
            found = f"{mass[row]:.6g}"
            self.refuse(row, "probabilities that sum to at most 1 were", found, self.about.mend_logits)
        if self.about.vocab_size is None or not logprobs.size:
            return
        most = mass + (self.about.vocab_size - logprobs.shape[1]) * np.exp(logprobs[:, -1])
        for row in np.flatnonzero(most < 1 - TOLERANCE)[:1]:
            found = f"at most {most[row]:.6g}"
            self.refuse(row, "probabilities that sum to 1 were", found, self.about.mend_logits)

    def agree(self, asked: Ints, values: Floats, ids: Ints, logprobs: Floats) -> None:
        """Hold values at (R, m) given ids against the (R, K) best: equal where listed, else not above the last."""
        for column in range(asked.shape[1]):
            one, value = asked[:, column], values[:, column]
            listed = ids == one[:, None]
            in_row = listed.any(axis=1)
            best = np.where(in_row, logprobs[np.arange(len(ids)), listed.argmax(axis=1)], logprobs[:, -1])
            with np.errstate(invalid="ignore"):
                apart = np.where(value == best, 0.0, value - best)
            wrong = (one >= 0) & np.where(in_row, np.abs(apart) > TOLERANCE, apart > TOLERANCE)
            for row in np.flatnonzero(wrong)[:1]:
                expected = (
                    f"one log-probability of id {one[row]} was" if in_row[row] else f"id {one[row]} among the best was"
                )
                found = f"{best[row]:.6g} and {value[row]:.6g}" if in_row[row] else f"it missing with {value[row]:.6g}"
                self.refuse(row, expected, found)

    def at(self, values: Any) -> Floats:
        """Give the values at the ids asked, NaN where none was."""
        asked = self.question.at
        assert asked is not None
        numbers = floats(values, self.about)
        if numbers.shape != asked.shape:
            raise ServerError(
                f"{self.about.name} answers what cannot be: log-probabilities of shape {asked.shape} at the ids asked "
                f"were expected, found shape {numbers.shape}. {self.about.mend}"
            )
        wanted = asked >= 0
        out = np.full(asked.shape, np.nan)
        out[wanted] = self.numbers(numbers[wanted], np.nonzero(wanted)[0])
        return out


def log_probabilities(values: Any, size: int) -> Floats | None:
    """Read `size` log-probabilities, in [-inf, 0]; None where they are anything else."""
    numbers = _numbers(values)
    if numbers is None or numbers.shape != (size,) or not (numbers <= TOLERANCE).all():
        return None
    return _bounded(numbers)


def _bounded(numbers: Floats) -> Floats:
    return np.where(numbers <= MINUS_INFINITY, -np.inf, np.minimum(numbers, 0.0))


def floats(values: Any, about: About) -> Floats:
    """Make numbers of what JSON had; a null becomes NaN.

    Raises
    ------
    ServerError
        They are none.
    """
    numbers = _numbers(values)
    if numbers is None:
        raise ServerError(f"{about.name} answers log-probabilities that are no numbers. {about.mend}")
    return numbers


def integers(values: Any, about: About) -> Ints:
    """Make ids of what JSON had.

    Raises
    ------
    ServerError
        They are no integers, or too large for any.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        array = np.array(["none"])
    if array.dtype.kind not in "iu" and array.size:
        raise ServerError(f"{about.name} answers token ids that are no integers. {about.mend}")
    return array.astype(np.int64)


def _numbers(values: Any) -> Floats | None:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
