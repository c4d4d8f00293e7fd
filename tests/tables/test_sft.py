"""Which responses are kept to be taught, and what a trainer makes of them; by a tokenizer of one token a byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_run as tiny

from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sft_files import Lesson
from opd_diag.tables.sft import REASONS, SFT_COLUMNS, lesson_of, sft_table
from opd_diag.tokenization import Tokenizer, encode_prompts

END = tiny.BYTES + 1
CLOSED = tiny.TEMPLATE.replace("{{ m.content }}", "{{ m.content }}<end>")


def tokenizer(template=CLOSED):
    return Tokenizer(tiny.byte_tokenizer(template=template), "here")


def prompts_of(*contents, of=None):
    asked = [
        Prompt(content if isinstance(content, str) else tuple(content), str(i)) for i, content in enumerate(contents)
    ]
    return {p.index: p for p in encode_prompts(asked, of or tokenizer())}


CHAT = ({"role": "user", "content": "2 + 2?"},)


def rollout(text, prompts, *, prompt=0, index=0, reads=None, **options):
    """A response of the teacher, ended by its stop token unless told."""
    reads = reads or tokenizer()
    ids = tuple(reads.ids(text)) if isinstance(text, str) else tuple(text)
    stopped = options.pop("stop_reason", "stop") == "stop"
    return Rollout(
        prompt_index=prompt,
        rollout_index=index,
        prompt_id=prompts[prompt].prompt.id,
        group=None,
        prompt_ids=prompts[prompt].ids,
        teacher_prompt_ids=prompts[prompt].teacher_ids,
        response_ids=(*ids, END) if stopped else ids,
        stop_reason="stop" if stopped else "length",
        provenance=Provenance("sampled", "teacher", "", None, 1.0, 1.0, 0),
        response_text=text if isinstance(text, str) else "",
        **options,
    )


def one(text, *, only_correct=False, template=CLOSED, content=CHAT, **options):
    reads = tokenizer(template)
    prompts = prompts_of(content, of=reads)
    table = sft_table([rollout(text, prompts, **options)], prompts, reads, only_correct=only_correct)
    assert list(table.columns) == SFT_COLUMNS
    return table.iloc[0]


CASES = [
    ("It is 4.", {}, ""),
    ("It is", {"stop_reason": "length"}, "truncated"),
    ("", {}, "empty"),
    (" \n", {}, "empty"),
    ("So <user>4", {}, "special token inside"),
    (tuple(i for letter in "<user>" for i in tokenizer().ids(letter)), {}, "special token inside"),
    ((0x80, 0x80), {}, "broken character"),
    ("wait, " * 60, {}, "degenerate"),
    ("It is 5.", {"only_correct": True, "is_correct": False}, "not correct"),
    ("It is 4.", {"only_correct": True, "is_correct": None}, "not correct"),
    ("It is 4.", {"only_correct": True, "is_correct": True}, ""),
    ("It is 5.", {"is_correct": False}, ""),
    ("wait, " * 60, {"stop_reason": "length"}, "truncated"),
]


@pytest.mark.parametrize(("text", "options", "reason"), CASES)
def test_why_a_response_is_left_out(text, options, reason):
    row = one(text, **options)
    assert row["reason"] == reason
    assert row["kept"] == (reason == "")
    assert reason == "" or reason in REASONS


def test_every_reason_is_met():
    assert {reason for _, _, reason in CASES} == {"", *REASONS} - {"repeated"}


def test_the_same_response_is_taught_once_to_each_prompt():
    prompts = prompts_of(CHAT, ({"role": "user", "content": "3 + 1?"},))
    given = [("4", 0, 0), ("4", 0, 1), ("four", 0, 2), ("4", 1, 0)]
    table = sft_table([rollout(t, prompts, prompt=p, index=i) for t, p, i in given], prompts, tokenizer())
    assert table["reason"].tolist() == ["", "repeated", "", ""]
    assert table["rollout_index"].tolist() == [0, 1, 2, 0]


def test_what_was_left_out_is_no_first_of_its_kind():
    prompts = prompts_of(CHAT)
    cut, whole = (rollout("4", prompts, index=i, stop_reason=why) for i, why in enumerate(("length", "stop")))
    assert sft_table([cut, whole], prompts, tokenizer())["reason"].tolist() == ["truncated", ""]


DROPS_THINKING = CLOSED.replace("{{ m.content }}", "{{ m.content.split('|')[-1] }}")


@pytest.mark.parametrize(
    ("template", "text", "taught", "stops"),
    [
        (CLOSED, "It is 4.", "as sampled", True),
        (tiny.TEMPLATE, "It is 4.", "as sampled", False),
        (DROPS_THINKING, "2 and 2|It is 4.", "other text", True),
        (DROPS_THINKING, "It is 4.", "as sampled", True),
        (CLOSED.replace("m.content }}", "m.content.strip() }}"), " It is 4.", "other text", True),
    ],
)
def test_what_a_trainer_makes_of_it(template, text, taught, stops):
    row = one(text, template=template)
    assert (row["kept"], row["taught"], row["stop_taught"]) == (True, taught, stops)


def test_a_template_that_fails_teaches_nothing():
    prompts = prompts_of(CHAT)
    fails = tokenizer("{{ raise_exception('no') }}")
    row = sft_table([rollout("4", prompts)], prompts, fails).iloc[0]
    assert (row["taught"], row["stop_taught"]) == ("other text", False)


def test_text_prompts_are_read_as_text_with_an_end():
    row = one(" 4", content="2 + 2 =")
    assert (row["kept"], row["taught"], row["stop_taught"]) == (True, "as sampled", True)


def test_ids_that_the_text_does_not_give_back():
    """A tokenizer with a token for two letters, of a response that was sampled letter by letter."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Raw(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "?": 3}, merges=[("a", "b")]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    reads = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>"), "here")
    prompts = prompts_of("?", of=reads)
    asked = [
        replace(rollout(ids, prompts), response_ids=(*ids, 4), rollout_index=i)
        for i, ids in enumerate([(2,), (0, 1, 0)])
    ]
    table = sft_table(asked, prompts, reads)
    assert table["taught"].tolist() == ["as sampled", "other tokens"]
    assert table["stop_taught"].tolist() == [True, True]


def test_the_student_is_taught_its_own_prompt_and_no_special_token():
    prompts = prompts_of(CHAT)
    told = rollout("It is 4.", prompts)
    assert told.response_ids[-1] == END
    assert lesson_of(told, prompts[0], tokenizer()) == Lesson(CHAT, "It is 4.")


def test_arguments_of_the_template_are_passed_on():
    template = CLOSED.replace("{% if add", "{% if loud %}!{% endif %}{% if add")
    reads, prompts = tokenizer(template), prompts_of(CHAT)
    told = [rollout("4", prompts)]
    assert sft_table(told, prompts, reads)["taught"].tolist() == ["as sampled"]
    changed = sft_table(told, prompts, reads, template_kwargs={"loud": True})
    assert changed["taught"].tolist() == ["as sampled"]  # what comes after the stop token is not taught
    begins = tokenizer(CLOSED.replace("{% for", "{% if loud %}!{% endif %}{% for"))
    assert sft_table(told, prompts, begins, template_kwargs={"loud": True})["taught"].tolist() == ["other text"]


def test_a_message_that_was_begun_goes_on():
    begun = (*CHAT, {"role": "assistant", "content": "So "})
    row = one("4.", content=begun)
    assert (row["kept"], row["taught"], row["stop_taught"]) == (True, "as sampled", True)
    prompts = prompts_of(begun)
    assert lesson_of(rollout("4.", prompts), prompts[0], tokenizer()).taught == "So 4."
