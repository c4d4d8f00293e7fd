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


class TestHomes:
    """They keep nobody waiting who holds what the others at home wait for, however many workers there are."""

    @pytest.fixture
    def pool(self):
        """Three workers are asked for and two come."""
        pool = Pool(3, lambda: [Hand("a"), Hand("b")], never)
        yield pool
        pool.close()  # whoever waits in a test that fails is sent away

    def done_by_one_that_holds_a_lock(self, pool, label, homes):
        """Whoever is at home waits for a lock; the one that has it asks a worker for something."""
        shared, held = threading.Lock(), threading.Event()

        def holds():
            with shared:
                held.set()
                return pool.do(call(label, "answers"), urgent=True).made

        def at_home(label):
            assert held.wait(SECONDS)
            with shared:
                return pool.do(call(label)).made

        with ThreadPoolExecutor(4) as threads:
            holding = threads.submit(holds)
            others = [threads.submit(at_home, other) for other in homes if other != label]
            try:
                return holding.result(2), {other.result(2) for other in others}
            finally:
                pool.close()  # so that no thread is waited for

    def test_one_whose_home_never_came_has_any_worker(self, pool):
        with pool.home("step 1"), pool.home("step 2"), pool.home("step 3"):
            done, others = self.done_by_one_that_holds_a_lock(pool, "step 3", ("step 1", "step 2"))
            assert len(pool) == 2
        assert done in (b"a", b"b")
        assert others == {b"a", b"b"}

    def test_nor_does_one_wait_that_comes_to_no_home_later(self, pool):
        with pool.home("step 1"), pool.home("step 2"), pool.home("step 3"):
            pool.begun()
        with pool.home("step 4"), pool.home("step 5"), pool.home("step 3"):
            assert self.done_by_one_that_holds_a_lock(pool, "step 3", ("step 4", "step 5"))[0] in (b"a", b"b")

    def test_the_teacher_which_all_hold_is_nobody_to_be_kept_out(self, pool):
        with pool.home("step 1"), pool.home("step 2"):
            pool.begun()
            with ThreadPoolExecutor(1) as threads:
                asked = threads.submit(pool.do, call("teacher"))
                try:
                    assert asked.result(2).made == b"a"
                finally:
                    pool.close()

    def test_who_has_a_home_waits_for_it_though_another_is_free(self):
        gate = Gate()
        pool = Pool(2, lambda: [Hand("a", gate), Hand("b")], never)
        with pool.home("step 1"), pool.home("step 2"), ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(pool.do, call("step 1"), urgent=True) for _ in range(2)]
            assert gate.there.acquire(timeout=SECONDS)
            assert pool.do(call("step 2"), urgent=True).made == b"b"
            assert not any(one.done() for one in asked)
            gate.open.set()
            assert [one.result(SECONDS).made for one in asked] == [b"a", b"a"]

    def test_a_worker_that_is_nobodys_home_comes_first(self):
        pool = Pool(3, lambda: [Hand("a"), Hand("b"), Hand("c")], never)
        with pool.home("step 1"), pool.home("step 2"):
            pool.do(call("step 9"))
            assert pool.do(call("step 3"), urgent=True).made == b"c"
            assert pool.do(call("teacher")).made == b"c"


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
