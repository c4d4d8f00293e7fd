"""The parts of a replay, each found in the store here or made by workers; this process loads no model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

from opd_diag.inference import Cut, in_order, sampling_shards
from opd_diag.records.arrays import Arrays, load_arrays, save_arrays
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.scores import Scores
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.parts import Parts, Progress, Rollouts
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.spread.calls import Call, Known, Tell, Told
from opd_diag.replay.spread.pool import Pool
from opd_diag.replay.store import Store

T = TypeVar("T")
MOST_AT_ONCE = 32
"""Shards of one part that are asked for at once."""


class SpreadParts(Parts):
    """The parts of one replay, made by workers.

    Keys, names and files are those of every replay: each public method finds a part by them or has it made. What is
    otherwise is where: whole parts by the method of the same name in a worker, scores and responses shard by shard.
    Threads of this process wait for workers, each for its own checkpoint.
    """

    def __init__(self, plan: ReplayPlan, store: Store, progress: Progress, pool: Pool) -> None:
        super().__init__(plan, store, _one_at_a_time(progress))
        self.pool = pool
        self._begun: dict[tuple[str, Checkpoint], Future[Any]] = {}
        self._threads: list[ThreadPoolExecutor] = []
        self._reading = threading.Lock()

    def close(self) -> None:
        """Wait until no thread is at work any more; the pool is closed before, or all is done."""
        for threads in self._threads:
            threads.shutdown(wait=True, cancel_futures=True)

    def making(self, made: Callable[[], T], what: str, model: LazyModel, *of: object) -> Callable[[], T]:
        """Give what has a worker make a part."""

        def asked() -> T:
            return self._asked(what, model, of)

        return asked

    def ahead(self, *wanted: LazyModel) -> None:
        """Begin with the responses of these models, and with the scores of checkpoints on their own ones.

        All that needs nothing of the first checkpoint is under way while that one is at its checks. What goes wrong
        here is raised where it is asked for.
        """
        self._begin_rollouts(wanted)
        self._begin_scores(wanted)

    def _begin_rollouts(self, wanted: Sequence[LazyModel]) -> None:
        threads = self._executor(len(wanted) or 1)
        for model in wanted:
            rollouts = threads.submit(self._rollouts_ahead, model)
            self._begun["rollouts", model.checkpoint] = rollouts

    def _begin_scores(self, wanted: Sequence[LazyModel]) -> None:
        if "on-policy" in self.plan.settings.states:
            later = [model for model in wanted if model.checkpoint in self.plan.checkpoints[1:]]
            scoring = self._executor(len(later) or 1)
            for model in later:
                self._begun["scores", model.checkpoint] = scoring.submit(self._scores_ahead, model)

    def rollouts(self, writer: LazyModel) -> Rollouts:
        """Give the responses of a model: recorded ones, or sampled."""
        begun = self._begun.get(("rollouts", writer.checkpoint))
        return super().rollouts(writer) if begun is None else begun.result()

    def scores(
        self, student: LazyModel, listed: Checkpoint, states: str, rollouts: Rollouts, same: Scores | None
    ) -> Scores:
        """Give the scores of one state set."""
        begun = self._begun.pop(("scores", listed), None) if states == "on-policy" and same is None else None
        return super().scores(student, listed, states, rollouts, same) if begun is None else begun.result()

    def in_turn(self, attempt: Callable[[Checkpoint], T]) -> Iterator[T]:
        """Attempt the first checkpoint, then as many of the others at once as there are workers; in order.

        Where the first one fails its place goes to the next: checkpoints are attempted one by one until the responses
        of one are the start's.
        """
        waiting = list(self.plan.checkpoints)
        while waiting and self.start is None:
            yield attempt(waiting.pop(0))

        def at_home(checkpoint: Checkpoint) -> T:
            with self.pool.home(checkpoint.label):
                return attempt(checkpoint)

        threads = self._executor(len(self.pool))
        attempts = [threads.submit(at_home, checkpoint) for checkpoint in waiting]
        for done in as_completed(attempts):
            done.result()  # an error that ends the replay ends it now
            self.store.keep_digests(self.plan.digests)
        yield from (done.result() for done in attempts)

    def _rollouts_ahead(self, model: LazyModel) -> Rollouts:
        with self._reading:  # one after the other, as they will be needed: files are read once, and not all at a time
            _ = model.key
        return super().rollouts(model)

    def _scores_ahead(self, student: LazyModel) -> Scores:
        return super().scores(student, student.checkpoint, "on-policy", self.rollouts(student), None)

    def _sampled(self, writer: LazyModel, key: str) -> Rollouts:
        settings, what = self.plan.settings, f"{writer.checkpoint.label}: sampling responses"
        cut = sampling_shards(self.plan.prompts, settings.sampling, as_teacher=writer is self.teacher)
        keep = self.store.shards(key, ".jsonl", save=save_rollouts, load=load_rollouts)
        told = _ToldOfShards(self.progress, what, [len(shard.rows) for shard in cut])

        def made(number: int) -> Any:
            shard = cut[number]
            return keep(shard, lambda: self._asked("sampled", writer, (shard,), told.of(number)))

        drawn = (rollouts for number, rollouts in self._everywhere(made, len(cut), told.finished))
        return tuple(in_order(rollout for rollouts in drawn for rollout in rollouts))

    def _scored(self, student: LazyModel, states: str, rollouts: Rollouts, key: str) -> Scores:
        what = f"{student.checkpoint.label}: scoring {states} states, tokens"
        outline = self._asked("outline", student, (states, rollouts)).of(rollouts)
        cut = outline.cut
        keep = self.store.shards(key, ".safetensors", save=save_arrays, load=load_arrays)
        told = _ToldOfShards(self.progress, what, [sum(cut.tokens(number)) for number in range(len(cut.parts))])

        def made(number: int) -> Any:
            return keep(cut.shard(number), lambda: self._shard(student, states, cut, number, told.of(number)))

        scores: Scores = outline.together(self._everywhere(made, len(cut.parts), told.finished))
        return scores

    def _shard(self, student: LazyModel, states: str, cut: Cut, number: int, tell: Tell) -> Arrays:
        """Have one shard scored."""
        scored: Arrays = self._asked("shard", student, (states, cut.alone(number)), tell)
        return scored

    def _asked(
        self, what: str, model: LazyModel, of: tuple[object, ...], tell: Tell | None = None, *, urgent: bool = False
    ) -> Any:
        """Have a worker make something, and count what it cost; it is `urgent` where others wait for it."""
        label = self._label(model)
        known = {self._label(one): self._known(one) for one in self.here(model)}
        urgent = urgent or (self.start is None and model.checkpoint in (self.plan.first, self.plan.teacher))
        answer = self.pool.do(Call(what, label, of, known), tell or self._tell, urgent=urgent)
        (tell or self._tell)(answer.told)
        self.store.account.add(answer.work)
        return answer.given()

    def _label(self, model: LazyModel) -> str:
        return TEACHER_LABEL if model is self.teacher else model.checkpoint.label

    def _known(self, model: LazyModel) -> Known:
        return Known(model.content, self.plan.digests.excerpt(model.content.stamps))

    def _tell(self, told: Told) -> None:
        for what, (done, total) in told.items():
            self.progress(what, done, total)

    def _everywhere(
        self, made: Callable[[int], T], count: int, finished: Callable[[int], None]
    ) -> Iterator[tuple[int, T]]:
        """Make shards at the same time; give (number, shard) of each as it comes."""
        with self._while_it_lasts(min(count, MOST_AT_ONCE)) as threads:
            numbers = {threads.submit(made, number): number for number in range(count)}
            for future in as_completed(list(numbers)):
                number = numbers.pop(future)
                finished(number)
                yield number, future.result()

    @contextmanager
    def _while_it_lasts(self, most: int) -> Iterator[ThreadPoolExecutor]:
        threads = self._executor(most)
        try:
            yield threads
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _executor(self, most: int) -> ThreadPoolExecutor:
        threads = ThreadPoolExecutor(most, thread_name_prefix="opd-diag")
        self._threads.append(threads)
        return threads


class _ToldOfShards:
    """Progress of one part over the shards of it that are under way."""

    def __init__(self, progress: Progress, what: str, units: list[int]) -> None:
        self._progress, self._what, self._units = progress, what, units
        self._done = [0] * len(units)
        progress(what, 0, sum(units))

    def of(self, number: int) -> Callable[[Told], None]:
        """Give what hears of a shard; a worker that begins again never takes anything back."""

        def tell(told: Told) -> None:
            self._at_least(number, max((done for done, _ in told.values()), default=0))

        return tell

    def finished(self, number: int) -> None:
        """Hear that a shard is there."""
        self._at_least(number, self._units[number])

    def _at_least(self, number: int, done: int) -> None:
        if done > self._done[number]:
            self._done[number] = done
            self._progress(self._what, sum(self._done), sum(self._units))


def _one_at_a_time(progress: Progress) -> Progress:
    """Let one thread at a time tell of progress."""
    lock = threading.Lock()

    def tell(what: str, done: int, total: int) -> None:
        with lock:
            progress(what, done, total)

    return tell
