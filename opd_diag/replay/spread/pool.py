"""Who gets which worker, and what happens when one is lost.

Whoever needs a worker asks in its own thread and waits. Among those that wait, one whose checkpoint a free worker holds
in memory already comes first, then what others wait for, then who came first. A checkpoint may take a worker as its
*home* for a while: it then works for no other one, so that weights are not read again and again; workers that are
nobody's home help wherever there is something to do.

Homes make nobody wait for ever. Who asks for what others wait for may hold what they need, so that it gets its own home
or, where it has none, any worker; so does the teacher, which no worker has to read for it. A worker that is at
something waits for nobody here, and becomes free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from opd_diag.errors import OpdDiagError, WorkerError
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.spread.calls import Answer, Call, Told

TRIES = 3
"""Workers that one call may cost."""


class Lost(Exception):
    """A worker is gone, and with it what it was at; the reason is one sentence."""


class Hired(Protocol):
    """A worker as the pool knows it."""

    @property
    def node(self) -> str:
        """Name of its machine."""

    def do(self, call: Call, tell: Callable[[Told], None]) -> Answer:
        """Make what is asked for and tell of the progress; :class:`Lost` where the worker is."""

    def let_go(self) -> None:
        """End it, and what it kept on its machine."""


@dataclass(eq=False)
class _Seat:
    """The place of a worker, which another one takes when it is lost."""

    worker: Hired | None
    holds: str | None = None
    """Label of the checkpoint that the worker has in memory."""
    home: str | None = None
    """Label of the checkpoint that it works for alone, but for what others wait for."""
    busy: bool = False


@dataclass(eq=False)
class _Waiting:
    """Someone who waits for a worker."""

    label: str
    urgent: bool
    """Whether others wait for it, perhaps at home."""
    seat: _Seat | None = None


class Pool:
    """The workers of one replay, hired when the first one is needed: where everything is stored, never.

    Parameters
    ----------
    count
        How many there shall be.
    begin
        Gives them; fewer where no more came.
    hire
        Gives another one; :class:`Lost` where that fails.
    """

    def __init__(self, count: int, begin: Callable[[], Sequence[Hired]], hire: Callable[[], Hired]) -> None:
        self._seats = [_Seat(None) for _ in range(count)]
        self._begin: Callable[[], Sequence[Hired]] | None = begin
        self._beginning = threading.Lock()
        self._failed: OpdDiagError | None = None
        self._hire = hire
        self._waiting: list[_Waiting] = []
        self._change = threading.Condition()
        self._closed = False
        self.lost = 0
        """Workers that were lost so far."""

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def workers(self) -> list[Hired]:
        """Those that are there."""
        return [seat.worker for seat in self._seats if seat.worker is not None]

    def do(self, call: Call, tell: Callable[[Told], None] = lambda told: None, *, urgent: bool = False) -> Answer:
        """Let a worker do something; where it is lost, another one takes its place and begins again.

        Who holds what others wait for must say that it is `urgent`.

        Raises
        ------
        WorkerError
            As many workers were lost at this as one call may cost, or the replay was stopped.
        """
        self.begun()
        reasons: list[str] = []
        with self._seat(call.label, urgent) as seat:
            while len(reasons) < TRIES:
                try:
                    seat.worker = worker = seat.worker or self._hire()
                    return worker.do(call, tell)
                except Lost as lost:
                    self._refuse_if_closed()
                    seat.worker = seat.holds = None
                    self.lost += 1
                    reasons.append(str(lost))
        raise WorkerError(
            f"{TRIES} workers were lost one after the other at {call.name}. The last one: {reasons[-1]} If memory ran "
            "out, ask for fewer --workers, or more of a machine for each; then run the same command again: what was "
            "finished is kept."
        )

    @contextmanager
    def home(self, label: str) -> Iterator[None]:
        """Keep a worker for one checkpoint inside, if one is nobody's home: the one that holds it, if it can be."""
        with self._change:
            free = [seat for seat in self._seats if seat.home is None]
            taken = min(free, key=lambda seat: (seat.holds != label, seat.busy), default=None)
            if taken is not None:
                taken.home = label
        try:
            yield
        finally:
            with self._change:
                if taken is not None:
                    taken.home = None
                self._match()

    def close(self) -> None:
        """End all workers; who waits for one is sent away."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for seat in self._seats:
            if seat.worker is not None:
                seat.worker.let_go()

    def begun(self) -> None:
        """Have the workers come, if they are not there yet.

        Raises
        ------
        OpdDiagError
            None comes, or one cannot work where it is.
        """
        with self._beginning:
            if self._failed is not None:
                raise self._failed
            if self._begin is None or self._closed:
                return
            try:
                workers = self._begin()
            except OpdDiagError as error:  # everyone who waits hears it; nobody hires once more
                self._failed = error
                raise
            with self._change:
                self._seats = self._seats[: len(workers)]  # no one waits for workers that did not come
                for seat, worker in zip(self._seats, workers, strict=True):
                    seat.worker = worker
            self._begin = None

    @contextmanager
    def _seat(self, label: str, urgent: bool) -> Iterator[_Seat]:
        waiting = _Waiting(label, urgent)
        with self._change:
            self._waiting.append(waiting)
            self._match()
            self._change.wait_for(lambda: waiting.seat is not None or self._closed)
            if waiting.seat is None:
                self._waiting.remove(waiting)
            self._refuse_if_closed()
            seat = waiting.seat
            assert seat is not None
        try:
            yield seat
        finally:
            with self._change:
                seat.busy = False
                self._match()

    def _match(self) -> None:
        """Give free workers to those who wait."""
        while pairs := [(w, s) for w in self._waiting for s in self._seats if self._serves(s, w)]:
            waiting, seat = min(pairs, key=lambda pair: _rank(*pair))  # the first of equals: who came first
            self._waiting.remove(waiting)
            waiting.seat, seat.busy = seat, True
            if waiting.label != TEACHER_LABEL:
                seat.holds = waiting.label
        self._change.notify_all()

    def _serves(self, seat: _Seat, waiting: _Waiting) -> bool:
        if seat.busy:
            return False
        if seat.home in (None, waiting.label) or waiting.label == TEACHER_LABEL:
            return True
        return waiting.urgent and all(one.home != waiting.label for one in self._seats)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise WorkerError("The replay was stopped. Run the same command again: what was finished is kept.")


def _rank(waiting: _Waiting, seat: _Seat) -> tuple[bool, bool, bool, bool]:
    """Give the order of a choice.

    A worker that holds the checkpoint, what others wait for, one that is not another's home, one that holds nothing.
    """
    held = waiting.label in (TEACHER_LABEL, seat.holds)
    return not held, not waiting.urgent, seat.home not in (None, waiting.label), seat.holds is not None
