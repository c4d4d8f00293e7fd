"""Temperatures that are stated wrongly, where the difference is small: told by what explains it, or by all together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opd_diag.inference import sample_rollouts, score
from opd_diag.records.sampling import Sampling
from opd_diag.replay.logprobs import FLOAT32_LIMIT, SIXTEEN_BIT_LIMIT
from opd_diag.replay.selftests.kept import Kept
from opd_diag.replay.selftests.logprobs import BEFORE_TEMPERATURE, logprobs
from opd_diag.replay.selftests.shift import shift
from opd_diag.replay.selftests.written import tests_of_all as asked_together


def recorded(rollouts, temperature=1.0, change=lambda logprobs: logprobs):
    """As a trainer's record, in which the temperature stands as given."""
    return [
        replace(
            r,
            provenance=replace(r.provenance, origin="recorded", temperature=temperature),
            sampled_logprobs=tuple(change(np.array(r.sampled_logprobs)).tolist()),
        )
        for r in rollouts
    ]


def drawn(model, tokenizer, prompts, temperature, **more):
    sampling = Sampling(rollouts_per_prompt=2, max_new_tokens=48, temperature=temperature)
    return sample_rollouts(model, tokenizer, prompts, sampling=sampling, **more)


@pytest.fixture(scope="module")
def cool(student, tokenizer, prompts):
    return drawn(student, tokenizer, prompts, 0.8)


def asked(scores, rollouts):
    return logprobs("step 0", Kept.of(scores, rollouts, "student"), rollouts, scored_temperature=1.0, dtype="float32")


def test_what_a_temperature_explains_is_no_rounding(student, teacher, cool):
    scores = score(student, teacher, cool)
    found = asked(scores, recorded(cool))
    assert FLOAT32_LIMIT < found.value < SIXTEEN_BIT_LIMIT
    assert found.status == "fail"
    assert "At temperature 0.8 they fit" in found.evidence
    assert asked(scores, recorded(cool, temperature=0.8)).status == "pass"


def before_temperature(scores, rollouts, temperature):
    """The record of an engine that gives what the model gave, before it divides by the temperature."""
    kept = Kept.of(scores, rollouts, "student")
    made = []
    for row, r in enumerate(rollouts):
        raw = kept.sampled[kept.rows == row]
        source = replace(r.provenance, origin="recorded", temperature=temperature)
        made.append(replace(r, provenance=source, sampled_logprobs=tuple(raw.tolist())))
    return made


@pytest.mark.parametrize("temperature", [0.6, 1.3])
def test_what_is_recorded_before_temperature_passes(student, teacher, tokenizer, prompts, temperature):
    drew = drawn(student, tokenizer, prompts, temperature)
    scores = score(student, teacher, drew)
    found = asked(scores, before_temperature(scores, drew, temperature))
    assert found.status in (("pass",) if temperature < 1 else ("pass", "unknown"))
    assert f"drawn at temperature {temperature:.2g} as stated, are those of temperature 1" in found.evidence
    assert found.evidence.endswith(BEFORE_TEMPERATURE) == (found.status == "pass")
    assert "recorded before temperature" in found.evidence
    scores = score(student, teacher, drew, student_temperature=temperature)
    told = before_temperature(score(student, teacher, drew), drew, temperature)
    kept = Kept.of(scores, told, "student")
    found = logprobs("step 0", kept, told, scored_temperature=temperature, dtype="float32")
    assert (found.status, found.advice) == ("pass", "") or temperature < 1


@pytest.mark.parametrize(("temperature", "status"), [(0.6, "fail"), (1.3, "unknown")])
def test_but_not_where_the_tokens_were_drawn_at_1(scores, rollouts, temperature, status):
    """The same record, of tokens that show that the temperature is stated wrongly."""
    found = asked(scores, before_temperature(scores, rollouts, temperature))
    assert found.status == status, "what is not kept leaves doubt about temperatures above 1"
    assert "temperature" in found.advice


def test_rounding_of_the_same_size_passes(scores, rollouts):
    rng = np.random.default_rng(0)
    rough = recorded(rollouts, change=lambda logprobs: logprobs + rng.normal(0, 0.04, len(logprobs)))
    found = asked(scores, rough)
    assert FLOAT32_LIMIT < found.value < SIXTEEN_BIT_LIMIT
    assert found.status == "pass"


def test_writers_are_asked_together(student, teacher, tokenizer, prompts, scores, rollouts):
    ours, theirs = (drawn(student, tokenizer, prompts, 0.5), drawn(teacher, tokenizer, prompts, 0.5, as_teacher=True))
    both = [("student", recorded(ours), score(student, teacher, ours))]
    both.append(("teacher", recorded(theirs), score(student, teacher, theirs)))
    found = asked_together(both)
    assert [(test.name, test.model, test.status) for test in found] == [("logprobs", "all writers, own tokens", "fail")]
    assert "of all 2 writers surprise it" in found[0].evidence
    assert asked_together([("student", rollouts, scores)] * 2)[0].status == "pass"


def test_one_writer_is_not_asked_twice(scores, rollouts):
    assert asked_together([("student", rollouts, scores)]) == []
    stated = [replace(r, provenance=replace(r.provenance, temperature=0.5)) for r in rollouts]
    assert asked_together([("student", rollouts, scores), ("student", stated, scores)]) == []


def test_small_gains_elsewhere_are_no_shift(kept, rollouts):
    """Where nothing is known of the next token, a habit of saying what was just said is no shift by a token."""
    flat = replace(kept, logprobs=np.full_like(kept.logprobs, -5.0), sampled=np.full_like(kept.sampled, -5.0))
    ids = flat.ids.copy()
    before = {(r, p): i for r, of in enumerate(rollouts) for p, i in enumerate(of.response_ids)}
    for row, (r, p) in enumerate(zip(flat.rows.tolist(), flat.positions.tolist(), strict=True)):
        ids[row, 0] = before.get((r, p - 1), ids[row, 0])
    habit = flat.logprobs.copy()
    habit[:, 0] = -4.7
    assert shift("step 0", replace(flat, ids=ids, logprobs=habit), rollouts).status != "fail"
