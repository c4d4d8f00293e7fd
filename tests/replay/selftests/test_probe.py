"""Which responses are looked at, and how much of them."""

from __future__ import annotations

from models import rollout

from opd_diag.replay.selftests.limits import PROBE_ROLLOUTS, PROBE_TOKENS
from opd_diag.replay.selftests.probe import own_view, probe_of


def test_the_beginning_of_one_response_a_prompt():
    long = [rollout([1, 2], range(100), prompt_index=i // 2, rollout_index=i % 2) for i in range(60)]
    probe = probe_of(long)
    assert [r.prompt_index for r in probe] == list(range(PROBE_ROLLOUTS))
    assert {len(r.response_ids) for r in probe} == {PROBE_TOKENS}
    assert {(r.rollout_index, r.stop_reason) for r in probe} == {(0, "unknown")}, "no terminal states"


def test_what_has_no_state_is_passed_over():
    empty = rollout([1], [], prompt_index=0)
    tool = rollout([1], [5, 6], prompt_index=0, rollout_index=1, generated=(False, False))
    own = rollout([1], [7, 8], prompt_index=0, rollout_index=2, generated=(False, True))
    assert [r.response_ids for r in probe_of([empty, tool, own])] == [(7, 8)]


def test_the_students_view_for_both():
    assert own_view([rollout([1, 2], [3], teacher_prompt_ids=[9])])[0].teacher_prompt_ids == (1, 2)
