"""Rollouts → scores, with a teacher behind a server: ids are sent, log-probabilities come back.

The student runs here and is known in full. Of the teacher a server returns the most probable ids, perhaps the
log-probabilities at ids it is asked for, or the whole vocabulary. Whole distributions give the very fields that
:func:`~opd_diag.inference.scoring.score` gives. Otherwise overlaps, and masses on what both top-k share, are exact, and
what hangs on the rest of the vocabulary is NaN and has bounds (:mod:`opd_diag.metrics.bounds`); nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from opd_diag.inference.asking import Asking
from opd_diag.inference.cut import Cut
from opd_diag.inference.model import Model
from opd_diag.inference.outline import Outline
from opd_diag.inference.partial import PartialPlan
from opd_diag.inference.scoring import of_model, score, validate
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.shards import Keep, Progress, Told, keep_nothing
from opd_diag.records.arrays import Arrays
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT


def score_with(
    student: Model, teacher: Model | ServedTeacher, rollouts: Sequence[Rollout], *, progress: Progress | None = None
) -> Scores:
    """Score at temperature 1 with a teacher that is loaded, or served; nothing is kept."""
    if isinstance(teacher, ServedTeacher):
        return score_served(student, teacher, rollouts, progress=progress)
    return score(student, teacher, rollouts, progress=progress)


@torch.inference_mode()
def score_served(
    student: Model,
    teacher: ServedTeacher,
    rollouts: Sequence[Rollout],
    *,
    states: str = "on-policy",
    student_temperature: float = 1.0,
    progress: Progress | None = None,
    keep: Keep[Arrays] = keep_nothing,
    keep_answers: Keep[Arrays] = keep_nothing,
) -> Scores:
    """Score a student here and a teacher behind a server on every state of `rollouts`.

    Parameters
    ----------
    student
        The model.
    teacher
        The teacher; its distributions are those at temperature 1.
    rollouts, states, student_temperature, progress, keep
        As :func:`~opd_diag.inference.scoring.score`.
    keep_answers
        The same for what the server says of each shard, which other students at the same states can use again.

    Returns
    -------
    Scores
        With `bounds` unless whole distributions came back. K, and the grid of the curve, end where the server's top K
        does. Both distributions are taken over the common ids: the student's, or as many as the server says it has.

    Raises
    ------
    RolloutsError
        No rollout has a state, an id lies outside the common vocabulary, or a sequence exceeds a context.
    ModelError
        The student gives NaN or infinite logits.
    ServerError
        The server cannot be reached, or answers what it must not.
    """
    scoring = ServedScoring(student, teacher, student_temperature)
    outline = scoring.outline(rollouts, states)
    cut = outline.cut
    told = Told(progress, sum(cut.lengths))
    asking = scoring.asking(cut, keep_answers)

    def shards() -> Iterator[tuple[int, Arrays]]:
        for number in range(len(cut.parts)):
            yield number, keep(cut.shard(number), partial(asking.shard, number, told.within))
            told.shard(sum(cut.tokens(number)))

    return outline.together(shards())


class ServedScoring:
    """A student here and a teacher behind a server, ready to score: as :class:`~opd_diag.inference.scoring.Scoring`.

    Whoever scores one shard at a time has in flight no more than the questions of that one.
    """

    def __init__(self, student: Model, teacher: ServedTeacher, student_temperature: float) -> None:
        self.student, self.teacher = student, teacher
        self.plan = _plan(student, teacher, student_temperature)

    def outline(self, rollouts: Sequence[Rollout], states: str) -> Outline:
        """Cut a state set; parameters and errors as :func:`score_served`."""
        validate(rollouts, self.student, self.teacher, self.plan.vocabulary)
        about = _provenance(self.student, self.teacher, states, self.plan)
        return Outline(Cut.of(self.student, self.student, rollouts), self.plan.grid, about, self.plan.ks)

    def asking(self, cut: Cut, keep_answers: Keep[Arrays] = keep_nothing) -> Asking:
        """Give what scores a state set shard by shard, in order; nothing is asked yet."""
        return Asking(self.student, self.teacher, cut, self.plan, keep_answers)

    @torch.inference_mode()
    def shard(self, cut: Cut, number: int, said: Arrays | None, tell: Callable[[int], None]) -> Arrays:
        """Give the fields of one shard, its rows in the order of its batches.

        Parameters
        ----------
        cut, number
            Of which set which shard.
        said
            What :meth:`answers` gave for it; None: the server is asked.
        tell
            Called with the tokens that are done after each answer.

        Raises
        ------
        ModelError
            The student gives NaN or infinite logits.
        ServerError
            The server cannot be reached, or answers what it must not.
        """
        return self.asking(cut, keep_nothing if said is None else lambda shard, make: said).shard(number, tell)

    def answers(self, cut: Cut, number: int, tell: Callable[[int], None]) -> Arrays:
        """Give what the server says of the states of one shard, whichever the student; as :meth:`shard`."""
        return self.asking(cut).said(number, tell)


def _plan(student: Model, teacher: ServedTeacher, student_temperature: float) -> PartialPlan:
    vocabulary = min(student.vocabulary, teacher.server.about.vocab_size or student.vocabulary)
    top = vocabulary if teacher.whole else min(teacher.top, vocabulary)
    return PartialPlan(
        vocabulary=vocabulary,
        student_temperature=student_temperature,
        teacher_temperature=1.0,
        stop_ids=tuple(sorted(i for i in {*student.stop_ids, *teacher.stop_ids} if i < vocabulary)),
        grid=tuple(k for k in CURVE_GRID if k <= top),
        k_kept=min(K_KEPT, top),
        ks=() if teacher.whole else tuple(sorted({top, *(k for k in CURVE_GRID if k < top)})),
        slack=teacher.slack,
    )


def _provenance(student: Model, teacher: ServedTeacher, states: str, plan: PartialPlan) -> dict[str, object]:
    about = teacher.server.about
    served = {
        "engine": " ".join(filter(None, (about.engine, about.version))),
        "model": about.model,
        "exact_ids": about.exact_ids,
    }
    return {
        "states": states,
        "student": of_model(student) | {"label": student.label, "step": student.step},
        "teacher": {"name": teacher.name, "key": teacher.key, "vocabulary": None, "parameters": None}
        | {"served": served | {"top": None if teacher.whole else teacher.top}},
        "student_temperature": plan.student_temperature,
        "teacher_temperature": plan.teacher_temperature,
        "common_vocabulary": plan.vocabulary,
        "stop_ids": list(plan.stop_ids),
        "dtype": str(student.dtype).removeprefix("torch."),
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sizes": {},
    }
