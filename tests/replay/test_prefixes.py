"""Prefixes: who gives one, and what filler is made of."""

from __future__ import annotations

import math

from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.replay.prefixes import even_depths, prefixes_of, reached

SOURCE = Provenance("sampled", "step 9", "", 9, math.nan, math.nan, 0)
STOP = 99


def response(prompt, ids, rollout=0):
    """A response to a prompt whose teacher sees one token more."""
    return Rollout(
        prompt, rollout, f"p{prompt}", "sums", (1, 2), (1, 2, 3), tuple(ids), "stop", SOURCE, answer="7",
        prompt_text="3 + 4",
    )  # fmt: skip


OWN = [response(0, [10, 11, 12, 13, STOP]), response(1, [20, 21, STOP]), response(2, [30, 31, 32, 33, STOP])]
THEIRS = [response(0, [40, 41, 42, 43, 44]), response(1, [50] * 9), response(2, [60, STOP])]


def test_depths_are_spread():
    assert even_depths(60) == [10, 20, 30, 40, 50]
    assert even_depths(2) == [1]


def test_depths_that_enough_prompts_reach():
    """A response of three tokens goes beyond two."""
    depths, counts = reached(OWN, [2, 3, 5], 2)
    assert depths == [2, 3]
    assert counts == {2: 3, 3: 2, 5: 0}


def test_only_responses_that_go_beyond_the_deepest_give_prefixes():
    found = prefixes_of(OWN, THEIRS, 3, most_prompts=9, stops={STOP})
    assert [p.ids for p in found["student"]] == [(10, 11, 12), (30, 31, 32)]
    assert [p.ids for p in found["teacher"]] == [(40, 41, 42)]  # prompt 1 has none of the student's


def test_filler_is_of_other_prompts_and_never_ends_a_response():
    found = prefixes_of(OWN, THEIRS, 3, most_prompts=9, stops={STOP})["filler"]
    assert [len(p.ids) for p in found] == [3, 3]
    assert set(found[0].ids) <= {30, 31, 32, 33}
    assert set(found[1].ids) <= {10, 11, 12, 13}
    assert found == prefixes_of(OWN, THEIRS, 3, most_prompts=9, stops={STOP})["filler"]
    seeds = {prefixes_of(OWN, THEIRS, 3, most_prompts=9, stops={STOP}, seed=of)["filler"][0].ids for of in range(9)}
    assert len(seeds) > 1


def test_of_one_prompt_there_is_no_filler():
    assert prefixes_of(OWN, THEIRS, 3, most_prompts=1)["filler"] == []


def test_both_models_see_their_own_prompt_before_it():
    prefix = prefixes_of(OWN, THEIRS, 3, most_prompts=9)["student"][0]
    prompt = prefix.prompt(5, 2)
    assert (prompt.index, prompt.ids, prompt.teacher_ids) == (5, (1, 2, 10, 11), (1, 2, 3, 10, 11))
    assert (prompt.prompt.id, prompt.prompt.answer, prompt.prompt.group) == ("p0", "7", "sums")
