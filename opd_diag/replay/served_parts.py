"""The parts of a replay whose teacher stands behind a server: its responses and scores come from there."""

from __future__ import annotations

from opd_diag.inference.served import score_served
from opd_diag.inference.served_sampling import sample_served
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.shards import Keep, keep_nothing
from opd_diag.records.arrays import Arrays, load_arrays, save_arrays
from opd_diag.records.files import content_key
from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.replay.hidden import seen
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.parts import Parts, Progress, Rollouts
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.same_server import refuse_other_teacher
from opd_diag.replay.served import Served, check_ids_of_server
from opd_diag.replay.store import Store


class ServedParts(Parts):
    """The parts of one replay with a teacher behind a server.

    Students run here. Second pass, coverage and a floor of the teacher are no parts of it: they take more than comes
    over the wire.
    """

    teacher_is_here = False

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress) -> None:
        super().__init__(plan, store, progress)
        self.server: ServedTeacher = self._plan_of_server.teacher(self.teacher.tokenizer)
        self._read_by_server: set[int] = set()
        """Ids that mean to the server what they mean here."""

    @property
    def _plan_of_server(self) -> Served:
        served = self.plan.served
        assert served is not None
        return served

    def _teacher(self) -> LazyModel:
        plan, served = self.plan, self._plan_of_server
        teacher = LazyModel(plan.teacher, plan.settings, served.name, plan.teacher_tokenizer or plan.tokenizer)
        teacher.key, teacher.checked = served.key, True
        return teacher

    def here(self, student: LazyModel) -> tuple[LazyModel, ...]:
        """Give the student alone."""
        return (student,)

    def refuse_other_teacher(self) -> None:
        """Refuse a server that no longer has the teacher of the first time; before anything else is asked.

        Raises
        ------
        ServerError
            It has another one.
        """
        refuse_other_teacher(self.server, self.plan.prompts, self.store)

    @property
    def decides_answers(self) -> list[object]:
        """What the server is asked for."""
        return [self._plan_of_server.decides]

    def usable_teacher(self) -> ServedTeacher:
        """Give the teacher behind its server."""
        return self.server

    def _sampled(self, writer: LazyModel, key: str) -> Rollouts:
        if writer is not self.teacher:
            return super()._sampled(writer, key)
        what = f"{writer.checkpoint.label}: sampling responses"
        keep = self.store.shards(key, ".jsonl", save=save_rollouts, load=load_rollouts)
        with self._runs(writer):
            return tuple(
                sample_served(
                    self.server,
                    writer.tokenizer,
                    self.plan.prompts,
                    label=writer.checkpoint.label,
                    sampling=self.plan.settings.sampling,
                    progress=lambda done, total: self.progress(what, done, total),
                    keep=self.store.account.sampling(keep, as_teacher=True),
                )
            )

    def _scored(self, student: LazyModel, states: str, rollouts: Rollouts, key: str) -> Scores:
        what = f"{student.checkpoint.label}: scoring {states} states, tokens"
        self._check_here(student, rollouts)
        keep = self.store.shards(key, ".safetensors", save=save_arrays, load=load_arrays)
        again = not self.server.asks and self._used_again(states, rollouts)
        with self._runs(student), self._runs(self.teacher):
            return score_served(
                student.model,
                self.server,
                rollouts,
                states=states,
                student_temperature=self.plan.settings.student_temperature,
                progress=lambda done, total: self.progress(what, done, total),
                keep=self.store.account.scoring(keep),
                keep_answers=self._answers(rollouts) if again else keep_nothing,
            )

    def _answers(self, rollouts: Rollouts) -> Keep[Arrays]:
        """Give what keeps the answers of the server at states that another checkpoint is scored at too."""
        key = content_key(["answers", SCORES_VERSION, self.server.key, self.server.top, seen(rollouts)])
        return self.store.shards(key, ".safetensors", save=save_arrays, load=load_arrays, part_of_nothing=True)

    def _check_ids(self, ids: set[int]) -> None:
        super()._check_ids(ids)
        if self.plan.teacher_tokenizer is None:
            check_ids_of_server(self._plan_of_server, self.plan.tokenizer, ids - self._read_by_server)
            self._read_by_server |= ids
