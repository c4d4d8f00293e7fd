"""The self-tests that run student and teacher on a few responses, and what is stored of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opd_diag.inference import Model
from opd_diag.inference.served import score_with
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.records.files import write_json
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.selftests.ends import ends_of_models
from opd_diag.replay.selftests.kept import Ints, Kept
from opd_diag.replay.selftests.probe import probe_of
from opd_diag.replay.selftests.repeatability import repeatability
from opd_diag.replay.selftests.self_teacher import self_teacher
from opd_diag.replay.selftests.written import tests_of_scores
from opd_diag.tokenization import Tokenizer

Told = Callable[[str], Callable[[int, int], None]]
"""What is being done → a callback for (tokens done, tokens in all)."""

WHOLE = 4
"""Whole responses that are scored where the models stop by different tokens, to see which one the teacher prefers."""


@dataclass(frozen=True)
class PairTests:
    """What was found of one student and one teacher."""

    tests: tuple[SelfTest, ...]
    written: tuple[SelfTest, ...]
    """Of the responses that were looked at; a report asks the same of all responses later."""
    student_stop_ids: tuple[int, ...]
    teacher_stop_ids: tuple[int, ...]
    n_states: int = 0
    """States that were scored for it, where it was made now."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        tests = {name: [test.as_record() for test in getattr(self, name)] for name in ("tests", "written")}
        write_json(path, tests | {name: list(getattr(self, name)) for name in _STOPS})

    @classmethod
    def load(cls, path: Path) -> PairTests:
        """Read what :meth:`save` wrote."""
        record = json.loads(path.read_text(encoding="utf-8"))
        tests, written = (tuple(SelfTest.from_record(r) for r in record[name]) for name in ("tests", "written"))
        ours, theirs = (tuple(record[name]) for name in _STOPS)
        return cls(tests, written, ours, theirs)


_STOPS = ("student_stop_ids", "teacher_stop_ids")


def tests_of_pair(
    student: Model, teacher: Model | ServedTeacher, rollouts: Sequence[Rollout], *, tokenizer: Tokenizer, told: Told
) -> PairTests:
    """Run both models on a few responses and judge what comes out.

    Parameters
    ----------
    student, teacher
        The first checkpoint, and the teacher. Both are scored at temperature 1.
    rollouts
        All responses of one of them.
    tokenizer
        The student's.
    told
        Gives what shows progress.
    """
    probe = probe_of(rollouts)
    first, second = (score_with(student, teacher, probe, progress=told(f"{n} pass")) for n in ("first", "second"))
    tests = [
        self_teacher(student, probe, progress=told("as its own teacher")),
        repeatability("student and teacher", first, second),
        _ends(student, teacher, rollouts, tokenizer, told("ends")),
    ]
    written = tests_of_scores(student.name, probe, first)
    stops = tuple(student.stop_ids), tuple(teacher.stop_ids)
    return PairTests(tuple(tests), tuple(written), *stops, n_states=3 * len(first))


def _ends(
    student: Model,
    teacher: Model | ServedTeacher,
    rollouts: Sequence[Rollout],
    tokenizer: Tokenizer,
    told: Callable[[int, int], None],
) -> SelfTest:
    """Compare the stop tokens; only where they differ are whole responses scored."""
    stops = student.stop_ids, teacher.stop_ids
    ended = [r for r in rollouts if {*r.response_ids[-1:]} & {*stops[0], *stops[1]}][:WHOLE]
    if {*stops[0]} == {*stops[1]} or not ended:
        return ends_of_models(*stops, None, np.empty(0, dtype=np.int64), tokenizer)
    scores = score_with(student, teacher, ended, progress=told)
    return ends_of_models(*stops, Kept.of(scores, ended, "teacher"), _tokens(scores), tokenizer)


def _tokens(scores: Scores) -> Ints:
    ids: Ints = np.asarray(scores.sampled_ids)[~np.asarray(scores.terminal)].astype(np.int64)
    return ids
