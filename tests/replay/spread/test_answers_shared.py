"""Answers at states that several checkpoints share: who asks waits for no home, and answers wait on the disk."""

from __future__ import annotations

import mmap
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from model_server import ModelServer

from opd_diag.diagnosis import plan_report
from opd_diag.inference import Shard
from opd_diag.replay import open_store
from opd_diag.replay import served as served_module
from opd_diag.replay.account import Work
from opd_diag.replay.spread.calls import Answer
from opd_diag.replay.spread.pool import Pool
from opd_diag.replay.spread.served_parts import SpreadServedParts

SECONDS = 20
SAID = np.arange(6.0).reshape(2, 3)


class Hand:
    """A worker that says what a server would have said, and keeps what it was sent."""

    def __init__(self, node):
        self.node, self.sent = node, []

    def do(self, call, tell):
        self.sent.append((call.what, call.label, call.of[2] if call.what == "shard" else None))
        made = {"said": SAID} if call.what == "answers" else {"scored": SAID}
        return Answer(pickle.dumps(made, protocol=5), Work(), {})

    def let_go(self):
        pass


class OneShard:
    """A state set of one shard of two."""

    rollouts = ()

    def alone(self, number):
        return self

    def shard(self, number):
        return Shard(number, 2, [number])


@pytest.fixture
def spread(tiny_run, teacher, tmp_path, monkeypatch):
    """Parts of a replay that asked for three workers, of whom two came; and these two."""
    server = ModelServer(teacher.model, tokenizer=teacher.tokenizer)
    monkeypatch.setattr(served_module, "connect", lambda address, **how: server)
    plan = plan_report(tiny_run.run_dir, out=tmp_path / "out", teacher="vllm=http://127.0.0.1:8000", teacher_top=20)
    hands = [Hand("a"), Hand("b")]
    pool = Pool(3, lambda: hands, lambda: pytest.fail("nobody was to be hired"))
    cut = OneShard()
    cut.rollouts = (SimpleNamespace(provenance=SimpleNamespace(weights="step 0"), prompt_ids=(1,), response_ids=(2,),
                                    teacher_prompt_ids=(1,), stop_reason="eos", generated=None),)  # fmt: skip
    with open_store(tmp_path / "out", tiny_run.run_dir) as store:
        parts = SpreadServedParts(plan, store, lambda what, done, total: None, pool)
        parts.start = cut.rollouts
        try:
            yield SimpleNamespace(parts=parts, pool=pool, hands=hands, cut=cut)
        finally:
            pool.close()


def shard(spread, checkpoint, number=0):
    return spread.parts._shard(spread.parts.student(checkpoint), "start", spread.cut, number, lambda told: None)


def test_who_asks_for_others_waits_for_none_of_their_homes(spread):
    """The checkpoint whose home did not come has the lock, and those at home wait for it."""
    *others, last = spread.parts.plan.checkpoints[:3]
    asks, kept = threading.Event(), spread.pool.do

    def told(call, *how, **options):
        asks.set()
        return kept(call, *how, **options)

    spread.pool.do = told
    with ThreadPoolExecutor(3) as threads:
        with ExitStack() as homes:
            for checkpoint in (*others, last):
                homes.enter_context(spread.pool.home(checkpoint.label))
            first = threads.submit(shard, spread, last)
            assert asks.wait(SECONDS)
            try:
                for one in [threads.submit(shard, spread, checkpoint) for checkpoint in others]:
                    np.testing.assert_array_equal(one.result(5)["scored"], SAID)
            except TimeoutError:
                spread.pool.close()
                raise
        np.testing.assert_array_equal(first.result(SECONDS)["scored"], SAID)
    asked = [label for hand in spread.hands for what, label, _ in hand.sent if what == "answers"]
    assert asked == [last.label]


def test_answers_that_were_just_made_are_mapped_as_those_that_are_found(spread):
    for checkpoint in spread.parts.plan.checkpoints[:2]:
        shard(spread, checkpoint)
    sent = [said["said"] for hand in spread.hands for what, _, said in hand.sent if what == "shard"]
    assert len(sent) == 2
    for said in sent:
        np.testing.assert_array_equal(said, SAID)
        while isinstance(said, np.ndarray):
            said = said.base
        assert isinstance(said, mmap.mmap)
