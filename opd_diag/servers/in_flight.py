"""Many questions at once: a server is kept at work, and answers come in the order of the questions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from opd_diag.servers.answers import Answer, Question
from opd_diag.servers.server import Server

AHEAD = 4
"""Questions that are taken before the oldest is answered, in multiples of those asked at once."""


def answered(
    server: Server,
    questions: Iterable[Question],
    *,
    at_once: int,
    progress: Callable[[Question, Answer], None] | None = None,
) -> Iterator[Answer]:
    """Ask questions, many at once, and give the answers in order.

    Parameters
    ----------
    server
        Asked from threads.
    questions
        Taken as they are needed, at most ``AHEAD · at_once`` before the oldest one is answered.
    at_once
        Requests in flight, at least 1.
    progress
        Called with each question and answer, in order, before the answer is given.

    Yields
    ------
    Answer
        One a question, in order. After an error nothing more is asked; answers before it are given first.

    Raises
    ------
    ServerError
        The first question, in order, that could not be answered.

    Notes
    -----
    Whoever stops early cancels what is not sent yet; what is in flight ends by itself and nobody waits for it.
    """
    asking = _Asking(server)
    waiting: deque[tuple[Question, Future[Answer]]] = deque()

    def oldest() -> Answer:
        question, future = waiting.popleft()
        answer = asking.result(future)
        if progress is not None:
            progress(question, answer)
        return answer

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="question")
    try:
        for question in questions:
            waiting.append((question, asking.submitted(pool, question)))
            if len(waiting) >= AHEAD * at_once:
                yield oldest()
        while waiting:
            yield oldest()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Asking:
    """Asks from the threads of a pool; after an error nothing is asked any more."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._failed: list[BaseException] = []

    def submitted(self, pool: ThreadPoolExecutor, question: Question) -> Future[Answer]:
        future = pool.submit(self._ask, question)
        future.add_done_callback(self._note)
        return future

    def result(self, future: Future[Answer]) -> Answer:
        try:
            return future.result()
        except CancelledError:
            raise self._failed[0] from None

    def _ask(self, question: Question) -> Answer:
        if self._failed:
            raise CancelledError
        return self._server.answer(question)

    def _note(self, future: Future[Answer]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed.append(error)
