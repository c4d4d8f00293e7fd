"""Many questions at once: order, how many are in flight, and what an error leaves."""

import threading
import time

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import Answer, Question, answered, connect
from opd_diag.servers.in_flight import AHEAD

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(16)


def questions(count):
    return [Question((i % 16, 1, 2, (i * 5) % 16), 2, 3) for i in range(count)]


def test_answers_come_in_order_and_the_server_is_kept_at_work():
    asked, seen = questions(24), []
    with stand_in("sglang", MODEL, delay=0.02) as url:
        server = connect(f"sglang={url}", top=3)
        answers = list(answered(server, asked, at_once=6, progress=lambda q, a: seen.append((q, a))))
    assert url.most_at_work == 6
    assert [question for question, _ in seen] == asked
    assert [answer for _, answer in seen] == answers
    for question, answer in zip(asked, answers, strict=True):
        wanted = MODEL(question.ids)[1:3][np.arange(2), question.ids[2:]]
        np.testing.assert_allclose(answer.sampled_logprobs, wanted, rtol=1e-9)


class Slow:
    """Answers with its own number, and fails at some; notes what it was asked."""

    def __init__(self, bad=()):
        self.bad, self.asked, self.lock = bad, [], threading.Lock()

    def answer(self, question):
        with self.lock:
            self.asked.append(question.ids[0])
        time.sleep(0.01)
        if question.ids[0] in self.bad:
            raise ServerError(f"no answer to {question.ids[0]}")
        return Answer(np.empty(0), np.empty((0, 1), np.int64), np.empty((0, 1)), None, question.ids[0])


def test_the_first_error_in_order_ends_it_and_what_came_before_is_given():
    server, given = Slow(bad=(5, 6)), []
    with pytest.raises(ServerError, match=r"^no answer to 5$"):  # noqa: PT012
        for answer in answered(server, (Question((i,), 1, 1) for i in range(1000)), at_once=2):
            given.append(answer.received_bytes)
    assert given == [0, 1, 2, 3, 4]
    time.sleep(0.05)
    assert len(server.asked) <= 8


def test_no_more_is_taken_than_is_needed():
    taken = []

    def endless():
        for i in range(10**9):
            taken.append(i)
            yield Question((i,), 1, 1)

    server = Slow()
    asking = answered(server, endless(), at_once=2)
    assert next(asking).received_bytes == 0
    assert len(taken) == 2 * AHEAD
    asking.close()
    before = len(server.asked)
    time.sleep(0.05)
    assert len(server.asked) <= before + 2


def test_no_question_no_answer():
    assert list(answered(Slow(), [], at_once=3)) == []
