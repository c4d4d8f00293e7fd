"""The parts of a replay with a teacher behind a server, made by workers that each hold a student and ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from opd_diag.inference import Cut, Keep, Shard
from opd_diag.records.arrays import Arrays
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.parts import Progress, Rollouts
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.served_parts import ServedParts
from opd_diag.replay.spread.calls import Tell
from opd_diag.replay.spread.parts import SpreadParts
from opd_diag.replay.spread.pool import Pool
from opd_diag.replay.store import Store


class SpreadServedParts(SpreadParts, ServedParts):
    """Where parts are made is as in :class:`SpreadParts`, what a server changes of them as in :class:`ServedParts`.

    What is of both: this process asks for the teacher's responses, all requests in flight, before any worker asks
    anything; and of states that several checkpoints share one worker asks, once, and the others are sent the answers,
    which lie in OUT_DIR as they do in a replay in one process.
    """

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress, pool: Pool) -> None:
        super().__init__(plan, store, progress, pool)
        self._under_way: dict[tuple[str, int], threading.Lock] = {}
        """Of whose states which shard is being asked about."""
        self._reading_ids = threading.Lock()

    def refuse_other_teacher(self) -> None:
        """Refuse a server that no longer has the teacher of the first time, and a new report whose workers cannot ask.

        Raises
        ------
        OpdDiagError
            As said.
        """
        if not self.store.parts:  # before anything is written, and before hours of sampling
            self.pool.begun()
        super().refuse_other_teacher()

    def ahead(self, *wanted: LazyModel) -> None:
        """Begin as always with what needs no server, students' responses, and with the rest once the teacher wrote."""
        students = [model for model in wanted if model is not self.teacher]
        self._begin_rollouts(students)
        if self.teacher in wanted:
            written: Future[Rollouts] = Future()
            written.set_result(self.rollouts(self.teacher))  # in no thread: Ctrl-C waits for none that asks
            self._begun["rollouts", self.teacher.checkpoint] = written
        self._begin_scores(students)

    def _sampled(self, writer: LazyModel, key: str) -> Rollouts:
        where = ServedParts if writer is self.teacher else SpreadParts
        return where._sampled(self, writer, key)

    def _shard(self, student: LazyModel, states: str, cut: Cut, number: int, tell: Tell) -> Arrays:
        alone, said = cut.alone(number), None
        if not self.server.asks and self._used_again(states, tuple(cut.rollouts)):
            keep = self._answers(tuple(cut.rollouts))
            said = keep(cut.shard(number), lambda: self._asked("answers", student, (alone,), tell, urgent=True))
        scored: Arrays = self._asked("shard", student, (states, alone, said), tell)
        return scored

    def _answers(self, rollouts: Rollouts) -> Keep[Arrays]:
        """Give what keeps answers; whoever wants those that another thread is waiting for waits too.

        They are mapped, also what was just made: many wait for a worker with theirs, some of gigabytes, at once.
        """
        keep, writer = super()._answers(rollouts), rollouts[0].provenance.weights

        def kept(shard: Shard, make: Callable[[], Arrays]) -> Arrays:
            with self._under_way.setdefault((writer, shard.number), threading.Lock()):
                new: list[Shard] = []

                def made() -> Arrays:
                    new.append(shard)
                    return make()

                said = keep(shard, made)
                if new:  # dropped, before it is mapped
                    del said
                    said = keep(shard, make)
                return said

        return kept

    def _check_ids(self, ids: set[int]) -> None:
        with self._reading_ids:  # so that no id is asked about twice
            super()._check_ids(ids)
