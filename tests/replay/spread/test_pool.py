"""Who gets which worker, and how a lost one is replaced; workers here are threads' own, and no cluster is there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from opd_diag.errors import InputError, WorkerError
from opd_diag.replay.account import Work
from opd_diag.replay.spread.calls import Answer, Call
from opd_diag.replay.spread.pool import TRIES, Lost, Pool

SECONDS = 20
"""After which a test that hangs fails."""


class Hand:
    """A worker that does what the test says."""

    def __init__(self, name, do=lambda call: None):
        self.node, self._do, self.asked, self.gone = name, do, [], 0

    def do(self, call, tell):
        self.asked.append(call.label)
        self._do(call)
        return Answer(self.node.encode(), Work(), {})

    def let_go(self):
        self.gone += 1


def call(label, what="fits"):
    return Call(what, label, (), {})


def never():
    raise AssertionError("nobody was to be hired")


def lost(reason):
    def die(call):
        raise Lost(reason)

    return die


class Gate:
    """Work that stands still until it is told to go on."""

    def __init__(self):
        self.there, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, call):
        self.there.release()
        assert self.open.wait(SECONDS)


def test_workers_are_hired_when_the_first_call_comes():
    begun = []
    pool = Pool(2, lambda: begun.append(1) or [Hand("a"), Hand("b")], never)
    assert (len(pool), pool.workers, begun) == (2, [], [])
    assert pool.do(call("step 1")).made == b"a"
    assert pool.do(call("step 2")).made == b"b", "one that holds nothing is taken before one that holds another model"
    assert begun == [1]


def test_where_none_can_work_everyone_hears_it_and_nobody_hires_again():
    """Who waited while it failed would otherwise hire once more, and wait for room that the first ones still hold."""
    gate, begun = Gate(), []

    def begin():
        begun.append(1)
        gate(None)
        raise InputError("No folder.")

    pool = Pool(1, begin, never)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(pool.do, call("step 10")) for _ in range(3)]
        assert gate.there.acquire(timeout=SECONDS)
        gate.open.set()
        errors = [str(of.exception(SECONDS)) for of in calls]
    assert errors == ["No folder."] * 3
    assert begun == [1]


def test_where_fewer_came_nobody_waits_for_the_others():
    pool = Pool(5, lambda: [Hand("a")], never)
    assert [pool.do(call(label)).made for label in ("step 1", "step 2")] == [b"a", b"a"]
    assert len(pool) == 1


def test_a_worker_that_holds_the_checkpoint_is_taken():
    pool = Pool(3, lambda: [Hand("a"), Hand("b"), Hand("c")], never)
    labels = ["step 1", "step 2", "step 3", "step 2", "step 3", "step 1", "teacher"]
    assert [pool.do(call(label)).made for label in labels] == [b"a", b"b", b"c", b"b", b"c", b"a", b"a"]


def test_who_waits_longest_comes_first_but_for_what_is_held_and_what_is_urgent():
    gate = Gate()
    hand = Hand("a", gate)
    pool = Pool(1, lambda: [hand], never)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(pool.do, call("step 1"))]
        assert gate.there.acquire(timeout=SECONDS)
        for label, urgent in (("step 2", False), ("step 3", False), ("step 4", True), ("step 1", False)):
            waiting = len(pool._waiting)
            asked.append(threads.submit(pool.do, call(label), urgent=urgent))
            for _ in range(SECONDS * 100):
                if len(pool._waiting) > waiting:
                    break
                threading.Event().wait(0.01)
        gate.open.set()
        for future in asked:
            future.result(SECONDS)
    assert hand.asked == ["step 1", "step 1", "step 4", "step 2", "step 3"]


def test_a_home_serves_its_checkpoint_alone():
    a, b = Hand("a"), Hand("b")
    pool = Pool(2, lambda: [a, b], never)
    pool.do(call("step 1"))
    pool.do(call("step 2"))
    with pool.home("step 2"):
        assert [pool.do(call(label)).made for label in ("step 1", "step 2", "step 3")] == [b"a", b"b", b"a"]
        with pool.home("step 9"), pool.home("no room for it"):
            assert pool.do(call("step 9")).made == b"a"
    assert pool.do(call("step 4")).made in (b"a", b"b")


def test_a_lost_worker_is_replaced_and_its_call_begun_again():
    hands = [Hand("new")]
    pool = Pool(2, lambda: [Hand("a", lost("It was killed.")), Hand("b")], lambda: hands.pop())
    assert pool.do(call("step 1")).made == b"new"
    assert pool.do(call("step 1")).made == b"new"
    assert (pool.lost, len(pool)) == (1, 2)


def test_after_some_tries_it_is_one_error():
    pool = Pool(1, lambda: [Hand("a", lost("First."))], lambda: Hand("b", lost("node b: it was killed (signal 9).")))
    with pytest.raises(WorkerError) as raised:
        pool.do(call("step 20", "shard"))
    assert str(raised.value) == (
        "3 workers were lost one after the other at step 20: scoring. The last one: node b: it was killed (signal 9). "
        "If memory ran out, ask for fewer --workers, or more of a machine for each; then run the same command again: "
        "what was finished is kept."
    )
    assert pool.lost == TRIES == 3


def test_a_replacement_that_does_not_come_is_a_try_like_others():
    def hire():
        raise Lost("It did not come in time.")

    pool = Pool(1, lambda: [Hand("a", lost("Gone."))], hire)
    with pytest.raises(WorkerError, match=r"^3 workers were lost .* The last one: It did not come in time\. If memory"):
        pool.do(call("step 20"))


def test_an_error_of_the_work_is_no_loss():
    def refuse(call):
        raise InputError("Wrong.")

    pool = Pool(1, lambda: [Hand("a", refuse)], never)
    with pytest.raises(InputError, match=r"^Wrong\.$"):
        pool.do(call("step 20"))
    assert pool.lost == 0
    assert pool.workers[0].asked == ["step 20"]


def test_who_waits_when_it_closes_is_sent_away():
    gate = Gate()
    hand = Hand("a", gate)
    pool = Pool(1, lambda: [hand], never)
    with ThreadPoolExecutor(2) as threads:
        at_work = threads.submit(pool.do, call("step 1"))
        assert gate.there.acquire(timeout=SECONDS)
        waits = threads.submit(pool.do, call("step 2"))
        pool.close()
        with pytest.raises(WorkerError, match=r"^The replay was stopped\. Run the same command again: what was finish"):
            waits.result(SECONDS)
        gate.open.set()
        assert at_work.result(SECONDS).made == b"a"
    assert hand.gone == 1


def test_after_it_closed_nobody_is_hired():
    pool = Pool(1, never, never)
    pool.close()
    with pytest.raises(WorkerError, match="The replay was stopped"):
        pool.do(call("step 1"))
