"""Counts what a report costs while it is made: what models did, and which parts were there already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from opd_diag.inference import Keep, Shard
from opd_diag.inference.model import Forwarded
from opd_diag.records.rollout import Rollout

T = TypeVar("T")


@dataclass
class Work:
    """What student and teacher do. Tokens may be fractions where lengths are assumed."""

    student_sampled: float = 0
    """Tokens that students sample."""
    teacher_sampled: float = 0
    student_tokens: float = 0
    """Tokens through the bodies of students, sampled ones included."""
    teacher_tokens: float = 0
    states: float = 0
    """States scored, each by a student and the teacher."""
    requests: float = 0
    """Requests that a teacher behind a server answered, and bytes of its answers."""
    received: float = 0
    beside: float = 0
    """Tokens that vLLM samples in processes of its own, of either."""

    @property
    def sampled(self) -> float:
        """Tokens sampled by either."""
        return self.student_sampled + self.teacher_sampled + self.beside

    @property
    def tokens(self) -> float:
        """Tokens through bodies of either."""
        return self.student_tokens + self.teacher_tokens


@dataclass
class Account:
    """Counts what is done, and which parts were there already."""

    work: Work = field(default_factory=Work)
    made: int = 0
    """Parts that were made."""
    found: int = 0
    """Parts that were stored before, and cost nothing."""
    begun: float = field(default_factory=time.perf_counter)
    """When it was opened, in seconds of the clock."""

    responses: int = 0
    """Responses that were replayed, and their tokens, wherever they came from."""
    response_tokens: int = 0

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    """Parts may be made at the same time."""

    @property
    def mean_response(self) -> float:
        """Tokens of a response."""
        return self.response_tokens / max(1, self.responses)

    @property
    def seconds(self) -> float:
        """Time since it was opened."""
        return time.perf_counter() - self.begun

    def seen(self, rollouts: Sequence[Rollout]) -> None:
        """Count responses that are replayed."""
        tokens = sum(len(r.response_ids) for r in rollouts)
        with self._lock:
            self.responses += len(rollouts)
            self.response_tokens += tokens

    def part(self, *, found: bool) -> None:
        """Count a part that was found, or made."""
        with self._lock:
            self.found += found
            self.made += not found

    def add(self, work: Work) -> None:
        """Count what was done elsewhere."""
        with self._lock:
            for f in fields(Work):
                setattr(self.work, f.name, getattr(self.work, f.name) + getattr(work, f.name))

    @contextmanager
    def running(self, forwarded: Forwarded, *, as_teacher: bool) -> Iterator[None]:
        """Count the tokens that go through the body of a model inside, and what a server answers."""
        before = replace(forwarded)
        try:
            yield
        finally:
            self.measured(forwarded.tokens - before.tokens, 0, as_teacher=as_teacher)
            requests, received = forwarded.requests - before.requests, forwarded.received - before.received
            self.add(Work(requests=requests, received=received))

    def measured(self, tokens: int, states: int, *, as_teacher: bool) -> None:
        """Count tokens that went through a body, and states that were scored."""
        to = "teacher_tokens" if as_teacher else "student_tokens"
        self.add(Work(**{to: tokens}, states=states))

    def sampling(self, keep: Keep[list[Rollout]], *, as_teacher: bool, beside: bool = False) -> Keep[list[Rollout]]:
        """Count the tokens of responses that are sampled, here or beside, not those of shards that are found."""

        def drawn(rollouts: list[Rollout]) -> None:
            tokens = sum(len(r.response_ids) for r in rollouts)
            by = "beside" if beside else "teacher_sampled" if as_teacher else "student_sampled"
            self.add(Work(**{by: tokens}))

        return _counted(keep, drawn)

    def scoring(self, keep: Keep[dict[str, Any]]) -> Keep[dict[str, Any]]:
        """Count the states that are scored, not those of shards that are found."""

        def scored(arrays: dict[str, Any]) -> None:
            self.add(Work(states=n_states(arrays)))

        return _counted(keep, scored)


def n_states(arrays: dict[str, Any]) -> int:
    """Count the states of a shard of scores; one of empty responses has no field."""
    return len(arrays.get("student_entropy", ()))


def _counted(keep: Keep[T], count: Callable[[T], None]) -> Keep[T]:
    def kept(shard: Shard, make: Callable[[], T]) -> T:
        def made() -> T:
            part = make()
            count(part)
            return part

        return keep(shard, made)

    return kept
