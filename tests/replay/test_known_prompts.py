"""Prompts are found again by the text and ids that trainers record of them, or not at all."""

from __future__ import annotations

import pytest
from models import CHATML, byte_tokenizer

from opd_diag.records.prompt import Prompt
from opd_diag.replay.known_prompts import KnownPrompts
from opd_diag.tokenization import TeacherView

ASKED = [{"role": "user", "content": "a cat?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(template=CHATML)


def known(tokenizer, *contents, **options):
    prompts = [Prompt(content if isinstance(content, str) else tuple(content), str(i)) for i, content in
               enumerate(contents)]  # fmt: skip
    return KnownPrompts(tokenizer, prompts, **options)


def test_by_stripped_text_by_whole_text_and_by_ids(tokenizer):
    found = known(tokenizer, "another", ASKED)
    prompt = found.with_text("user\na cat?\nassistant\n")
    assert (prompt.index, prompt.prompt.id) == (1, "1")
    whole = "<|im_start|>user\na cat?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.text(prompt.ids) == whole
    assert found.with_text(whole) is found.with_ids(prompt.ids) is prompt
    assert found.with_text("user\na cat?\nassistant") is None, "the match is exact"
    assert found.with_ids(prompt.ids[:-1]) is None


def test_a_text_that_two_prompts_have_finds_neither(tokenizer):
    assert known(tokenizer, ASKED, "user\na cat?\nassistant\n").with_text("user\na cat?\nassistant\n") is None
    assert known(tokenizer, ASKED, ASKED).with_text("user\na cat?\nassistant\n").index == 0, "a repeated one is one"


def test_prompts_that_the_template_does_not_take_are_passed_over():
    plain = byte_tokenizer()
    found = known(plain, ASKED, "b")
    assert (found.with_text("b").index, found.end, found.of_messages(ASKED)) == (1, 2, None)


def test_what_the_teacher_sees_comes_with_it(tokenizer):
    found = known(tokenizer, ASKED, view=TeacherView(system_prompt="Be brief."))
    prompt = found.with_text("user\na cat?\nassistant\n")
    assert tokenizer.text(prompt.teacher_ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert found.of_messages(ASKED).teacher_ids == prompt.teacher_ids


def test_without_prompts_there_is_none(tokenizer):
    found = KnownPrompts(tokenizer)
    assert (found.any, found.end, found.some_hinted, found.with_text("a")) == (False, 0, False, None)
