"""Counting: what is made is counted, what is found is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from models import rollout

from opd_diag.inference import Shard
from opd_diag.inference.model import Forwarded
from opd_diag.replay.account import Account, Work

SHARD = Shard(0, 1, [])


def made_anew(shard, make):
    return make()


def test_tokens_through_a_body():
    account, forwarded = Account(), Forwarded(100)
    with account.running(forwarded, as_teacher=False):
        forwarded.tokens += 7
    with account.running(forwarded, as_teacher=True):
        forwarded.tokens += 5
    assert (account.work.student_tokens, account.work.teacher_tokens, account.work.tokens) == (7, 5, 12)


def test_what_a_server_answers():
    account, forwarded = Account(), Forwarded(100, requests=3, received=50)
    with account.running(forwarded, as_teacher=True):
        forwarded.tokens, forwarded.requests, forwarded.received = 108, 5, 1050
    assert account.work == Work(teacher_tokens=8, requests=2, received=1000)


def test_an_interrupted_block_counts_too():
    account, forwarded = Account(), Forwarded()
    try:
        with account.running(forwarded, as_teacher=False):
            forwarded.tokens += 3
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert account.work.tokens == 3


def test_sampled_tokens_by_who_samples():
    account, rollouts = Account(), [rollout([1], [1, 2, 3]), rollout([1], [4])]
    for as_teacher in (False, True, True):
        keep = account.sampling(made_anew, as_teacher=as_teacher)
        assert keep(SHARD, lambda: rollouts) is rollouts
    assert (account.work.student_sampled, account.work.teacher_sampled, account.work.sampled) == (4, 8, 12)


def test_scored_states():
    account = Account()
    account.scoring(made_anew)(SHARD, lambda: {"student_entropy": np.zeros(9)})
    assert account.work.states == 9


def test_what_was_done_elsewhere_and_by_many_at_once():
    account = Account()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(account.add, [Work(1, 2, 3, 4, 5, 6, 7)] * 1000))
        list(threads.map(lambda found: account.part(found=found), [True, False, False] * 300))
    assert account.work == Work(1000, 2000, 3000, 4000, 5000, 6000, 7000)
    assert (account.found, account.made) == (300, 600)


def test_a_shard_without_a_state_counts_none():
    account = Account()
    assert account.scoring(made_anew)(SHARD, dict) == {}
    assert account.work.states == 0


def test_what_is_found_is_not_counted():
    account = Account()
    found = {"student_entropy": np.zeros(9)}
    assert account.scoring(lambda shard, make: found)(SHARD, lambda: found) is found
    keep = account.sampling(lambda shard, make: [rollout([1], [2])], as_teacher=False)
    assert len(keep(SHARD, list)) == 1
    assert (account.work.states, account.work.sampled) == (0, 0)


def test_the_mean_response():
    account = Account()
    assert account.mean_response == 0
    account.seen([rollout([1], [1, 2, 3]), rollout([1], [4])])
    account.seen([rollout([1], [1, 2, 3, 4, 5])])
    assert account.mean_response == 3


def test_time_goes_on():
    account = Account()
    first = account.seconds
    assert 0 <= first <= account.seconds
