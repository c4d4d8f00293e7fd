"""The bundled student and teacher, responses of the student, and their scores: healthy, to be broken by each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_diag.inference import load_model, sample_rollouts, score
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import load_prompts
from opd_diag.records.sampling import Sampling
from opd_diag.replay.selftests.kept import Kept
from opd_diag.tokenization import encode_prompts, load_tokenizer

DATA = Path(__file__).parents[3] / "data"
SAMPLING = Sampling(rollouts_per_prompt=1, max_new_tokens=48)


def loaded(folder, label):
    return load_model(Checkpoint(label=label, step=0 if label == "step 0" else None, path=folder, kind="full"))


@pytest.fixture(scope="package")
def tokenizer():
    return load_tokenizer(str(DATA / "student"))


@pytest.fixture(scope="package")
def student():
    return loaded(DATA / "student", "step 0")


@pytest.fixture(scope="package")
def teacher():
    return loaded(DATA / "teachers" / "new", "teacher")


@pytest.fixture(scope="package")
def prompts(tokenizer):
    return encode_prompts(load_prompts(DATA / "prompts.jsonl")[:24], tokenizer)


@pytest.fixture(scope="package")
def rollouts(student, tokenizer, prompts):
    return tuple(sample_rollouts(student, tokenizer, prompts, sampling=SAMPLING))


@pytest.fixture(scope="package")
def scores(student, teacher, rollouts):
    return score(student, teacher, rollouts)


@pytest.fixture(scope="package")
def kept(scores, rollouts):
    """The student's side of the scores of its own responses."""
    return Kept.of(scores, rollouts, "student")


@pytest.fixture(scope="package")
def read(scores, rollouts):
    """The teacher's side of the same scores."""
    return Kept.of(scores, rollouts, "teacher")
