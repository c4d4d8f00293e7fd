"""What both models see: two BOS, padding, cut ends, another template."""

from __future__ import annotations

import pytest
from models import CHATML, byte_tokenizer, word_tokenizer

from opd_diag.records.prompt import Prompt
from opd_diag.replay.selftests.template import template_of_pair, template_of_prompts
from opd_diag.tokenization import encode_prompts

TURNS = ({"role": "user", "content": "the cat"},)


@pytest.fixture(scope="module")
def chat():
    return byte_tokenizer(template=CHATML)


@pytest.fixture(scope="module")
def prompts(chat):
    texts = ("the cat", "a dog sat", "on mat")
    made = [Prompt(({"role": "user", "content": text},), f"p{i}") for i, text in enumerate(texts)]
    return [p.ids for p in encode_prompts(made, chat)]


class TestOfPrompts:
    def test_healthy(self, chat, prompts):
        found = template_of_prompts("student", prompts, chat)
        assert (found.name, found.status, found.value, found.advice) == ("template", "pass", 0.0, "")
        assert found.evidence == (
            "All 3 prompts of student end as '<|im_start|>assistant\\n', none begins with two BOS or padding."
        )

    def test_two_bos(self, chat, prompts):
        bos = chat.hf.bos_token_id
        once = [(bos, *ids) for ids in prompts]
        assert template_of_prompts("student", once, chat).status == "pass"
        found = template_of_prompts("student", [(bos, *ids) for ids in once[:2]] + once[2:], chat)
        assert (found.status, found.value) == ("fail", 2.0)
        assert "2 of 3 prompts of student begin with two BOS ('<s><s>" in found.evidence
        assert "no special tokens added" in found.advice

    def test_a_bos_from_the_template_and_one_from_the_tokenizer(self):
        """As a trainer gets it that renders to text and tokenises that."""
        tokenizer = byte_tokenizer(adds_bos=True, template="{{ bos_token }}" + CHATML)
        text = tokenizer.hf.apply_chat_template(list(TURNS), tokenize=False, add_generation_prompt=True)
        twice, once = (
            tuple(tokenizer.hf(text)["input_ids"]),
            tuple(tokenizer.hf(text, add_special_tokens=False)["input_ids"]),
        )
        assert template_of_prompts("student", [twice], tokenizer).status == "fail"
        assert template_of_prompts("student", [once], tokenizer).status == "pass"

    @pytest.mark.parametrize("cut", [1, 3])
    def test_a_cut_end(self, chat, prompts, cut):
        found = template_of_prompts("student", [ids[:-cut] for ids in prompts], chat)
        assert (found.status, found.value) == ("fail", 3.0)
        assert "do not end as generation prompt" in found.evidence

    def test_a_response_that_is_begun_is_none(self, chat, prompts):
        begun = [(*ids, *chat.hf("the")["input_ids"]) for ids in prompts]
        assert template_of_prompts("student", begun, chat).status == "pass"

    def test_padding(self, prompts):
        padded = byte_tokenizer(template=CHATML)
        padded.hf.pad_token = "<|im_end|>"
        pad = padded.hf.pad_token_id
        found = template_of_prompts("student", [(pad, pad, *ids) for ids in prompts], padded)
        assert found.status == "fail"
        assert "begin with padding" in found.evidence

    def test_text_has_no_generation_prompt(self, chat):
        text = [tuple(chat.hf("the cat")["input_ids"])]
        assert template_of_prompts("student", text, chat).status == "pass"
        assert "are text" in template_of_prompts("student", [(5, 6)], word_tokenizer()).evidence

    def test_arguments_and_another_template_reach_it(self, chat, prompts):
        thinks = CHATML + "{% if on %}<|im_start|>{% endif %}"
        assert template_of_prompts("teacher", prompts, chat, template=thinks).status == "pass"
        found = template_of_prompts("teacher", prompts, chat, template=thinks, kwargs={"on": True})
        assert "(3 in another way than the template's generation prompt)" in found.evidence

    @pytest.mark.parametrize("since", ["<think>\n", "<|think|>", "\n\n", "Answer: "])
    def test_prompts_of_an_older_template_begin_a_turn_all_the_same(self, chat, prompts, since):
        """What the template of today adds is not in them; that their header is whole is seen."""
        today = CHATML.replace("assistant\n", "assistant\n" + since)
        found = template_of_prompts("student", prompts, chat, template=today)
        assert (found.status, found.value) == ("pass", 0.0)
        assert "begin a turn of the model (3 in another way" in found.evidence
        assert template_of_prompts("student", [ids[:-2] for ids in prompts], chat, template=today).status == "fail"

    def test_what_an_older_template_added_is_no_fault(self, chat, prompts):
        added = [(*ids, *chat.hf("<think>\n")["input_ids"]) for ids in prompts]
        assert template_of_prompts("student", added, chat).status == "pass"
        role = CHATML.replace("assistant\n", "model\n")
        assert template_of_prompts("student", prompts, chat, template=role).status == "pass"

    def test_a_switch_that_follows_the_marker_at_once(self, chat):
        header = "<|im_start|>"
        today = "{% for m in messages %}{{ m['content'] }}{% endfor %}<|im_start|><think>\n"
        older = [tuple(chat.hf(f"the cat{header}")["input_ids"])]
        assert template_of_prompts("student", older, chat, template=today).status == "pass"

    def test_a_marker_that_is_missing_altogether(self, chat, prompts):
        n = len(chat.hf("<|im_start|>assistant\n")["input_ids"])
        for broken in ([ids[:-n] for ids in prompts], [ids[: -n - 2] for ids in prompts]):
            assert template_of_prompts("student", broken, chat).status == "fail"


class TestOfThePair:
    def of(self, chat, pairs, at_home=None, expected=False):
        return template_of_pair(pairs, chat, at_home=at_home or [None] * len(pairs), expected=expected)

    def test_the_same(self, chat, prompts):
        pairs = [(ids, ids) for ids in prompts]
        assert self.of(chat, pairs, at_home=prompts).status == "pass"

    def test_a_difference_that_was_asked_for_passes_and_is_said(self, chat, prompts):
        found = self.of(chat, [(ids, (7, *ids)) for ids in prompts], expected=True)
        assert (found.status, found.value) == ("pass", 3.0)
        assert "as was asked for; the first differing id is number 0" in found.evidence

    def test_recorded_differences_are_taken_as_they_are(self, chat, prompts):
        found = self.of(chat, [(ids, ids if i else (7, *ids)) for i, ids in enumerate(prompts)])
        assert (found.status, found.value) == ("pass", 1.0)
        assert "as they were recorded" in found.evidence

    def test_a_teacher_whose_prompts_lost_their_end(self, chat, prompts):
        found = self.of(chat, [(ids, ids[:-1]) for ids in prompts], expected=True)
        assert found.status == "fail"
        assert "lack the end of the student's; the first differing id is number" in found.evidence
        assert "and none." in found.evidence

    def test_a_teacher_with_a_template_of_its_own(self, chat, prompts):
        home = [(*ids[:2], 9, *ids[3:]) for ids in prompts]
        found = self.of(chat, [(ids, ids) for ids in prompts], at_home=home)
        assert (found.status, found.value) == ("warn", 3.0)
        assert f"number 2, {prompts[0][2]} (" in found.evidence
        assert "--teacher-template" in found.advice
        assert self.of(chat, [(ids, ids) for ids in prompts], at_home=home, expected=True).status == "pass"
