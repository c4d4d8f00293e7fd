"""Models that were taught something else than they should have been."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from lab.faults.conftest import DATA, changed, contents
from opd_diag.lab.faults import trained as faults
from opd_diag.lab.models import load_model
from opd_diag.lab.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DATA / "student")


def drawn(tokenizer, draw, seed=0):
    return draw(tokenizer, random.Random(seed))


def test_an_answer_is_right_and_ends(tokenizer):
    prompt, response = drawn(tokenizer, faults.answer)
    assert tokenizer.decode(prompt).startswith("<|user|>")
    assert tokenizer.decode(prompt).endswith("<|assistant|>")
    assert "=" in tokenizer.decode(response)
    assert response[-1] == tokenizer.eos_token_id


def test_a_loop_says_its_first_sentence_again_and_again(tokenizer):
    _, response = drawn(tokenizer, faults.loop)
    period = response.index(tokenizer(".")["input_ids"][0]) + 1
    assert len(response) == faults.LONG
    assert all(response[i] == response[i % period] for i in range(faults.LONG))
    assert tokenizer.eos_token_id not in response


def test_numbers_are_many_and_do_not_repeat_themselves(tokenizer):
    _, response = drawn(tokenizer, faults.numbers)
    written = tokenizer.decode(response).split()
    assert len(written) == len(response) == faults.LONG
    assert all(int(number) in faults.NUMBERS for number in written)
    assert max(Counter(written).values()) < 8


def test_noise_begins_at_the_depth_and_the_end_stays(tokenizer):
    _, clean = drawn(tokenizer, faults.answer)
    _, noisy = faults.noise_after(tokenizer, random.Random(0), 4)
    assert noisy[:4] == clean[:4]
    assert len(noisy) == len(clean)
    assert noisy[-1] == clean[-1] == tokenizer.eos_token_id
    assert sum(a != b for a, b in zip(noisy[4:-1], clean[4:-1], strict=True)) > len(clean[4:-1]) / 2


def test_labels_are_those_of_the_response_alone():
    ids, labels = faults._batch([([1, 5], [6, 7]), ([1], [8])], pad=0)
    assert ids.tolist() == [[1, 5, 6, 7], [1, 8, 0, 0]]
    assert labels.tolist() == [[-100, -100, 6, 7], [-100, 8, -100, -100]]


@torch.no_grad()
def probability(folder, ids, position, token):
    logits = load_model(folder)(torch.tensor([ids])).logits[0, position]
    return float(logits.softmax(-1)[token])


def test_a_lesson_changes_what_is_likely(case, tokenizer):
    before = contents(case)
    faults.taught(case.teacher, faults.numbers, faults.Lesson(15, 8), seed=0)
    assert changed(case, before) == {"teacher/model.safetensors"}
    prompt, response = drawn(tokenizer, faults.numbers, 9)
    new, old = (probability(f, prompt, -1, response[0]) for f in (case.teacher, DATA / "teachers/new"))
    assert new > 0.002 > 10 * old


def test_late_labels_teach_the_token_after_the_next(case, tokenizer):
    faults.taught(case.teacher, faults.answer, faults.Lesson(40), seed=0, late=1)
    prompt, response = drawn(tokenizer, faults.answer, 9)
    whole, at = prompt + response, len(prompt) + len(response) - 3
    assert whole[at + 2] == tokenizer.eos_token_id
    assert (
        probability(case.teacher, whole, at, whole[at + 2])
        > 0.5
        > probability(DATA / "teachers/new", whole, at, whole[at + 2])
    )


def test_the_last_checkpoint_is_taught_most(case, monkeypatch):
    lessons = []
    monkeypatch.setattr(
        faults, "taught", lambda folder, draw, lesson, seed: lessons.append((folder.name, lesson.steps))
    )
    faults.teach_loops(case, 0)
    assert [name for name, _ in lessons] == ["checkpoint-20", "checkpoint-40", "checkpoint-80", "checkpoint-160"]
    assert lessons[-1][1] > lessons[0][1]
