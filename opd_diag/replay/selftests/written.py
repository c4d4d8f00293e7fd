"""The self-tests of what one model wrote, and of who reads it: they need responses and scores, and no model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.selftests.expected import surprise_of
from opd_diag.replay.selftests.kept import Kept, Who, tokens_near
from opd_diag.replay.selftests.logprobs import (
    as_table,
    likeliest_temperature,
    logprobs,
    own_tokens,
    recorded_at,
    tokens_together,
)
from opd_diag.replay.selftests.shift import shift, shift_at_first_token, shift_of_records
from opd_diag.replay.selftests.vocabulary import vocabulary_of_responses


def tests_of_written(writer: str, who: Who, rollouts: Sequence[Rollout], scores: Scores) -> list[SelfTest]:
    """Ask what can be asked of a model and its own responses.

    Parameters
    ----------
    writer
        How messages call who wrote them.
    who
        Which side of the scores that is.
    rollouts, scores
        Its own responses, and their scores.

    Returns
    -------
    list of SelfTest
        ``shift`` of tokens, of records and at first tokens; ``logprobs`` that came with them, and what the tokens say
        without any; ``vocabulary``. What cannot be asked at all, as nothing was recorded or freely drawn, is left out.
    """
    kept = Kept.of(scores, rollouts, who)
    scored = float(scores.provenance[f"{who}_temperature"])
    recorded = recorded_at(kept, rollouts)
    asked = [
        shift(writer, kept, rollouts),
        shift_of_records(writer, as_table(kept, recorded), as_table(kept, kept.sampled)),
        logprobs(writer, kept, rollouts, scored_temperature=scored, dtype=str(scores.provenance["dtype"])),
    ]
    free = _freely_drawn(kept, rollouts, scored)
    first = free & (kept.positions == 0)
    if first.any():
        asked.append(shift_at_first_token(writer, surprise_of(kept, first)))
    if free.any():
        surprise = surprise_of(kept, free)
        fitting = math.nan if surprise.expected or not surprise.n else likeliest_temperature(kept, free, scored)
        asked.append(own_tokens(writer, surprise, fitting))
    asked.append(vocabulary_of_responses(writer, kept, tokens_near(kept, rollouts, 0)))
    return [test for test in asked if test is not None]


def tests_of_all(written: Sequence[tuple[Who, Sequence[Rollout], Scores]]) -> list[SelfTest]:
    """Ask what can be asked of several writers together; nothing where fewer than two drew freely.

    Parameters
    ----------
    written
        (which side of the scores wrote, its responses, their scores) of each writer.
    """
    surprises = []
    for who, rollouts, scores in written:
        kept = Kept.of(scores, rollouts, who)
        free = _freely_drawn(kept, rollouts, float(scores.provenance[f"{who}_temperature"]))
        surprises += [surprise_of(kept, free)] if free.any() else []
    return [tokens_together(surprises)] if len(surprises) > 1 else []


def _freely_drawn(kept: Kept, rollouts: Sequence[Rollout], scored: float) -> np.ndarray:
    """(N,) whether the token was drawn from the scored distribution itself, as the record says."""
    drawn = [r.provenance.temperature == scored and r.provenance.top_p == 1.0 for r in rollouts]
    return np.array(drawn, dtype=bool)[kept.rows]


def tests_of_read(reader: str, who: Who, rollouts: Sequence[Rollout], scores: Scores) -> list[SelfTest]:
    """Ask what can be asked of a model that reads the responses of another.

    Parameters
    ----------
    reader
        How messages call it.
    who
        Which side of the scores that is.
    rollouts, scores
        Responses of the other model, and their scores.

    Returns
    -------
    list of SelfTest
        ``shift`` and ``vocabulary``.
    """
    kept = Kept.of(scores, rollouts, who)
    model = f"{reader} reading {rollouts[0].provenance.weights}"
    return [shift(model, kept, rollouts), vocabulary_of_responses(model, kept, tokens_near(kept, rollouts, 0))]


def tests_of_scores(student: str, rollouts: Sequence[Rollout], scores: Scores) -> list[SelfTest]:
    """Ask both models of one set of scores: the one that wrote the responses, and the one that reads them.

    Parameters
    ----------
    student
        How messages call the student.
    rollouts, scores
        Responses of the student or of the teacher, and their scores.
    """
    writer = rollouts[0].provenance.weights
    of_teacher = writer == TEACHER_LABEL
    who: tuple[Who, Who] = ("teacher", "student") if of_teacher else ("student", "teacher")
    reader = student if of_teacher else TEACHER_LABEL
    return [*tests_of_written(writer, who[0], rollouts, scores), *tests_of_read(reader, who[1], rollouts, scores)]
