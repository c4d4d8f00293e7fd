"""Sampled against replayed: rounding alone where all is right, and a note where it is not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from models import tiny_model, word_tokenizer, wrapped

from opd_diag.inference import sample_rollouts, score, wrap_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import Prompt
from opd_diag.records.sampling import Sampling
from opd_diag.records.settings import settings_from
from opd_diag.replay import ScoredSet, make_plan, open_store, replay
from opd_diag.replay.logprobs import FLOAT32_LIMIT, SIXTEEN_BIT_LIMIT, as_json, compared, logprob_checks
from opd_diag.runs import read_manifest
from opd_diag.tokenization import EncodedPrompt

TOKENIZER = word_tokenizer(eos_token=None)
PROMPTS = [
    EncodedPrompt(i, Prompt("text", f"id{i}", answer=None, group=None), (5, 6 + i, 7), (8, 5, 6 + i)) for i in range(4)
]


def sampled_by(model, *, as_teacher=False, **settings):
    sampling = Sampling(**{"rollouts_per_prompt": 2, "max_new_tokens": 12} | settings)
    return sample_rollouts(model, TOKENIZER, PROMPTS, sampling=sampling, as_teacher=as_teacher)


@pytest.fixture(scope="module")
def student():
    return wrapped(name="step 20", label="step 20", step=20, seed=1)


@pytest.fixture(scope="module")
def teacher():
    return wrapped("qwen3", name="wise", seed=2)


def recorded(rollouts, change=lambda values: values):
    """The same responses as a trainer's: recorded, with log-probabilities that may have been changed."""
    return [
        replace(
            r,
            provenance=replace(r.provenance, origin="recorded"),
            sampled_logprobs=None if change(r.sampled_logprobs) is None else tuple(change(r.sampled_logprobs)),
        )
        for r in rollouts
    ]


def n_tokens(rollouts):
    return sum(len(r.response_ids) for r in rollouts)


class TestOfStudents:
    @pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.7}])
    def test_sampled_now_differ_by_rounding(self, student, teacher, settings):
        rollouts = sampled_by(student, **settings)
        check = compared("step 20", rollouts, score(student, teacher, rollouts), who="student")
        assert (check.model, check.origin, check.n_tokens) == ("step 20", "sampled", n_tokens(rollouts))
        assert 0 < check.mean_abs_difference <= check.max_abs_difference < 1e-4
        assert check.share_above == 0.0
        assert check.limit == FLOAT32_LIMIT
        assert check.note is None

    def test_numbers_are_those_of_the_tokens(self, student, teacher):
        rollouts = sampled_by(student)
        scores = score(student, teacher, rollouts)
        moved = [replace(r, sampled_logprobs=tuple(v + 0.02 * (i == 0) for i, v in enumerate(r.sampled_logprobs)))
                 for r in rollouts]  # fmt: skip
        check = compared("m", moved, scores, who="student")
        assert check.max_abs_difference == pytest.approx(0.02, abs=1e-4)
        assert check.share_above == pytest.approx(8 / n_tokens(rollouts))
        assert check.mean_abs_difference == pytest.approx(8 * 0.02 / n_tokens(rollouts), abs=1e-5)

    def test_an_off_by_one_is_told(self, student, teacher):
        rollouts = sampled_by(student)
        shifted = recorded(rollouts, lambda values: (*values[1:], values[0]))
        check = compared("step 20", shifted, score(student, teacher, shifted), who="student")
        assert check.limit == SIXTEEN_BIT_LIMIT
        assert check.mean_abs_difference > 0.5
        assert check.share_above > 0.8
        assert check.note == (
            "The log-probabilities that step 20 gave its own tokens (recorded) differ from the replayed ones by "
            f"{check.mean_abs_difference:.2g} nats on average over {n_tokens(rollouts)} tokens; rounding makes less "
            "than 0.05. Other weights, another prompt template or temperature, or other numerics wrote these responses "
            "than are scored here: find out which before you believe a number."
        )

    def test_wrong_weights_are_told(self, student, teacher):
        """A checkpoint of a few optimiser steps later, under the name of the one that wrote the responses."""
        rollouts = sampled_by(student)
        hf = tiny_model(seed=1)
        for parameter in hf.parameters():
            parameter.data.mul_(1.03)
        later = wrap_model(hf, name="step 20", label="step 20", step=20)
        check = compared("step 20", rollouts, score(later, teacher, rollouts), who="student")
        assert 1e-3 < check.mean_abs_difference < 1
        assert not check.within
        assert check.note.startswith("The log-probabilities that step 20 gave its own tokens (sampled) differ")

    def test_another_prompt_template_is_told(self, student, teacher):
        rollouts = [replace(r, prompt_ids=(9, *r.prompt_ids)) for r in sampled_by(student)]
        assert compared("m", rollouts, score(student, teacher, rollouts), who="student").note

    def test_a_trainer_in_sixteen_bits_is_no_sign_of_trouble(self, student, teacher):
        half = wrap_model(tiny_model(seed=1).bfloat16(), name="step 20", label="step 20", step=20)
        rollouts = recorded(sampled_by(half))
        check = compared("step 20", rollouts, score(student, teacher, rollouts), who="student")
        assert FLOAT32_LIMIT < check.mean_abs_difference < SIXTEEN_BIT_LIMIT
        assert check.note is None


class TestWhatCannotBeCompared:
    def test_other_temperatures(self, student, teacher):
        warm = sampled_by(student, temperature=0.7)
        assert compared("m", warm, score(student, teacher, warm), who="student") is None
        alike = score(student, teacher, warm, student_temperature=0.7)
        assert compared("m", warm, alike, who="student").mean_abs_difference < 1e-4
        plain = sampled_by(student)
        assert compared("m", plain, score(student, teacher, plain, student_temperature=0.7), who="student") is None
        mixed = [*plain[:4], *warm[4:]]
        check = compared("m", mixed, score(student, teacher, mixed), who="student")
        assert check.n_tokens == n_tokens(plain[:4])
        assert check.within

    def test_unknown_values(self, student, teacher):
        rollouts = sampled_by(student)
        scores = score(student, teacher, rollouts)
        assert compared("m", recorded(rollouts, lambda values: None), scores, who="student") is None
        unknown = [replace(r, provenance=replace(r.provenance, temperature=math.nan)) for r in rollouts]
        assert compared("m", unknown, scores, who="student") is None
        gaps = recorded(rollouts, lambda values: (math.nan, *values[1:]))
        check = compared("m", gaps, scores, who="student")
        assert check.n_tokens == n_tokens(rollouts) - len(rollouts)
        assert check.within

    def test_only_tokens_that_the_student_generated(self, student, teacher):
        rollouts = [
            replace(r, generated=tuple(i != 1 for i in range(len(r.response_ids)))) for r in sampled_by(student)
        ]
        wrong = recorded(rollouts, lambda values: (values[0], 5.0, *values[2:]))
        check = compared("m", wrong, score(student, teacher, wrong), who="student")
        assert check.n_tokens == n_tokens(rollouts) - sum(len(r.response_ids) > 1 for r in rollouts)
        assert check.max_abs_difference < 1e-4

    def test_a_token_that_has_become_impossible(self, student, teacher):
        rollouts = sampled_by(student)
        scores = score(student, teacher, rollouts)
        impossible = replace(scores, student_sampled_logprobs=np.full(len(scores), -np.inf))
        check = compared("m", rollouts, impossible, who="student")
        assert check.note
        assert json.loads(json.dumps(as_json(check), allow_nan=False)) == {
            "model": "m", "origin": "sampled", "n_tokens": n_tokens(rollouts), "mean_abs_difference": None,
            "max_abs_difference": None, "share_above": 1.0, "limit": FLOAT32_LIMIT,
        }  # fmt: skip


class TestOfAReplay:
    def scored(self, student, teacher, states, rollouts, label="step 20"):
        scores = score(student, teacher, rollouts, states=states)
        return ScoredSet(Checkpoint(label=label, step=20, path=None, kind="full"), states, scores, tuple(rollouts))

    def test_each_writer_on_its_own_responses_once(self, student, teacher):
        """The teacher read its own prompts; the other checkpoints' responses are not held against anybody."""
        own, theirs = sampled_by(student), sampled_by(teacher, as_teacher=True)
        other = wrapped(name="step 40", label="step 40", step=40, seed=4)
        others = sampled_by(other)
        sets = [
            self.scored(student, teacher, "on-policy", own),
            self.scored(student, teacher, "teacher", theirs),
            self.scored(other, teacher, "on-policy", others, "step 40"),
            self.scored(other, teacher, "start", own, "step 40"),
            self.scored(other, teacher, "teacher", theirs, "step 40"),
            self.scored(student, teacher, "back", others, "step 40"),
        ]
        checks = logprob_checks(sets)
        assert [(c.model, c.n_tokens) for c in checks] == [
            ("step 20", n_tokens(own)), ("step 40", n_tokens(others)), ("wise", n_tokens(theirs))
        ]  # fmt: skip
        assert all(c.within for c in checks)
        assert not compared("m", own, sets[3].scores, who="student").within, "the test could fail"


def test_what_a_replay_leaves(tiny_run, tmp_path):
    manifest = read_manifest(tiny_run.run_dir)
    plan = make_plan(tiny_run.run_dir, settings_from({"checkpoints": "10"}, manifest.settings, manifest.path), manifest)
    with open_store(tmp_path / "out", tiny_run.run_dir) as store:
        done = replay(plan, store)
    assert [c.model for c in done.logprobs] == ["step 0", "step 10", "teacher"]
    assert [c.n_tokens for c in done.logprobs] == [n_tokens(s.rollouts) for s in (done.scored[i] for i in (0, 3, 2))]
    assert all(c.within and c.max_abs_difference < 1e-4 for c in done.logprobs)
    stored = json.loads((tmp_path / "out" / "selftest.json").read_text())
    assert [c["model"] for c in stored["head"]] == ["step 0", "step 10", "teacher"]
    assert stored["logprobs"] == [as_json(check) for check in done.logprobs]
