"""Recorded responses as ids: what is exact stays so, what cannot be told is refused with its reason."""

from __future__ import annotations

import math

import pytest
from models import CHATML, byte_tokenizer, sentencepiece_tokenizer

from opd_diag.records.prompt import Prompt
from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import Provenance, Rollout, in_training
from opd_diag.replay import retokenized as reasons
from opd_diag.replay.known_prompts import KnownPrompts
from opd_diag.replay.retokenized import Room, completed, retokenized
from opd_diag.tokenization import TeacherView

ASKED = ({"role": "user", "content": "1+1"},)
RENDERED = "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
STRIPPED = "user\n1+1\nassistant\n"
TOKENIZER = byte_tokenizer(template=CHATML)
PROMPT_IDS = TOKENIZER.ids(RENDERED)
FILE = KnownPrompts(TOKENIZER, [Prompt("other", "a"), Prompt(ASKED, "b", answer="2", group="sums")])
ROOM = Room(TOKENIZER.size)


def made(known=FILE, room=ROOM, **changes):
    about = {"place": "x, row 1", "step": 8, "updates": 7, "exactness": "text-stripped", "prompt": STRIPPED,
             "response": "It is 2"}  # fmt: skip
    return retokenized(Recorded(**about | changes), 7, known, room)


def as_ids(**changes):
    about = {"exactness": "ids", "prompt": None, "response": None, "prompt_ids": PROMPT_IDS, "response_ids": (52, 257)}
    return made(**about | changes)


def test_stripped_text_gets_the_prompt_of_the_file_and_no_end():
    rollout = made(stop_reason="stop", reward=0.5)
    assert (rollout.prompt_index, rollout.prompt_id, rollout.group, rollout.answer) == (1, "b", "sums", "2")
    assert rollout.prompt_ids == rollout.teacher_prompt_ids == PROMPT_IDS
    assert rollout.response_ids == TOKENIZER.ids("It is 2")
    assert (rollout.exactness, rollout.stop_reason, rollout.truncated) == ("text-stripped", "unknown", False)
    assert (rollout.is_correct, rollout.reward, rollout.generated, rollout.sampled_logprobs) == (True, 0.5, None, None)
    source = rollout.provenance
    assert (source.origin, source.weights, source.weights_key, source.step) == ("recorded", "training at step 7", "", 7)
    assert math.isnan(source.temperature)
    assert not source.plain
    assert (rollout.prompt_text, rollout.response_text) == (RENDERED, "It is 2")


def test_messages_go_through_the_template_and_the_response_ends_where_it_does():
    said = ({"role": "assistant", "content": "It is 2"},)
    rollout = made(known=KnownPrompts(TOKENIZER), prompt=ASKED, response=said)
    assert (rollout.prompt_index, rollout.prompt_ids) == (-1, PROMPT_IDS)
    assert rollout.response_ids == TOKENIZER.ids("It is 2"), "what the template puts behind it is not the student's"
    assert made(prompt=ASKED, response=said).prompt_id == "b"


def test_ids_are_taken_as_they_are():
    rollout = as_ids(generated=(True, False), sampled_logprobs=(-0.5, 0.0), stop_reason="stop", temperature=1.0)
    assert (rollout.prompt_id, rollout.response_ids, rollout.stop_reason) == ("b", (52, 257), "stop")
    assert (rollout.generated, rollout.sampled_logprobs) == ((True, False), (-0.5, 0.0))
    assert (rollout.exactness, rollout.provenance.temperature) == ("ids", 1.0)
    assert as_ids(known=KnownPrompts(TOKENIZER)).prompt_index == -1


def test_text_with_specials_is_tokenised_as_it_is():
    about = {"exactness": "text-with-specials", "prompt": RENDERED, "stop_reason": "stop"}
    rollout = made(response="It is 2<|im_end|>", **about)
    assert rollout.prompt_ids == PROMPT_IDS
    assert rollout.response_ids == (*TOKENIZER.ids("It is 2"), TOKENIZER.hf.convert_tokens_to_ids("<|im_end|>"))
    assert (rollout.exactness, rollout.stop_reason) == ("text-with-specials", "stop")


TWO = ({"role": "assistant", "content": "a"}, {"role": "tool", "content": "4"})
CALL = ({"role": "assistant", "content": "a", "tool_calls": [{"name": "calc"}]},)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (reasons.OTHER_PROMPT, {"prompt": STRIPPED.strip()}),
        (reasons.NO_PROMPTS, {"known": KnownPrompts(TOKENIZER)}),
        (reasons.NO_ROUND_TRIP, {"response": "half a character \N{REPLACEMENT CHARACTER}"}),
        (reasons.NO_ROUND_TRIP, {"response": "It is <|im_end|>"}),  # a special token that someone typed
        (reasons.NO_TOKEN, {"response": ""}),
        (reasons.NO_TOKEN, {"response": None}),
        (reasons.SEVERAL_MESSAGES, {"response": TWO}),
        (reasons.SEVERAL_MESSAGES, {"response": CALL}),
        (reasons.SEVERAL_MESSAGES, {"response": ({"role": "assistant", "content": None},)}),
        (reasons.NO_TEMPLATE, {"prompt": ASKED, "known": KnownPrompts(byte_tokenizer())}),
        (reasons.TOO_LONG, {"room": Room(TOKENIZER.size, len(PROMPT_IDS) + 6)}),
        (reasons.TOO_LONG, {"room": Room(TOKENIZER.size, None, len(PROMPT_IDS) + 6)}),
        (reasons.BEYOND, {"room": Room(40)}),
    ],
)
def test_text_that_cannot_be_used(reason, changes):
    assert made(**changes) == reason


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (reasons.BEYOND, {"response_ids": (TOKENIZER.size,)}),
        (reasons.BEYOND, {"prompt_ids": (TOKENIZER.size,)}),
        (reasons.NO_TOKEN, {"prompt_ids": ()}),
        (reasons.NO_TOKEN, {"response_ids": ()}),
        (reasons.NO_TOKEN, {"generated": (False, False)}),
        (reasons.OTHER_VIEW, {"known": KnownPrompts(TOKENIZER, view=TeacherView(system_prompt="Be brief."))}),
    ],
)
def test_ids_that_cannot_be_used(reason, changes):
    assert as_ids(**changes) == reason


def ours(response=None, group=None, **known):
    """Give a response as a recorder writes it, without texts."""
    source = Provenance("recorded", in_training(7), "", 7, 1.0, 1.0, None)
    response = TOKENIZER.ids("It is 2") if response is None else response
    return Rollout(0, 0, "key", group, PROMPT_IDS, PROMPT_IDS, response, "stop", source, **known)


def test_a_rollout_of_ours_gets_what_the_prompts_file_tells():
    rollout = completed(ours(), FILE, ROOM)
    assert (rollout.prompt_id, rollout.group, rollout.answer, rollout.is_correct) == ("b", "sums", "2", True)
    assert (rollout.prompt_text, rollout.response_text) == (RENDERED, "It is 2")
    assert completed(ours(response=TOKENIZER.ids("It is 3")), FILE, ROOM).is_correct is False
    assert completed(ours(is_correct=False, group="mine"), FILE, ROOM).is_correct is False
    assert completed(ours(group="mine"), FILE, ROOM).group == "mine"


def test_a_rollout_of_ours_whose_prompt_is_not_in_the_file_keeps_its_own():
    rollout = completed(ours(answer="2"), KnownPrompts(TOKENIZER), ROOM)
    assert (rollout.prompt_id, rollout.answer, rollout.is_correct) == ("key", "2", True)
    assert completed(ours(), KnownPrompts(TOKENIZER), ROOM).is_correct is None


@pytest.mark.parametrize(
    ("reason", "rollout", "room"),
    [
        (reasons.NO_TOKEN, ours(response=(52, 257), generated=(False, False)), ROOM),
        (reasons.BEYOND, ours(response=(TOKENIZER.size,)), ROOM),
        (reasons.TOO_LONG, ours(), Room(TOKENIZER.size, len(PROMPT_IDS) + 6)),
    ],
)
def test_a_rollout_of_ours_that_cannot_be_used(reason, rollout, room):
    assert completed(rollout, FILE, room) == reason


def test_a_prompt_beside_hinted_ones_is_not_guessed():
    hinted = KnownPrompts(TOKENIZER, [Prompt("other", "a", teacher_content="other, hint: 2")])
    assert as_ids(known=hinted) == made(known=hinted, prompt=ASKED) == reasons.OTHER_VIEW


def test_text_that_the_tokenizer_changes_does_not_come_back():
    pieces = sentencepiece_tokenizer()
    known = KnownPrompts(pieces, [Prompt("the", "a")])
    kept = retokenized(Recorded("x", 8, 7, "text-stripped", "the", "the cat"), 7, known, Room(pieces.size))
    assert kept.response_ids == pieces.ids("the cat")
    lost = Recorded("x", 8, 7, "text-stripped", "the", " the cat")  # the space that marks a first word is its own
    assert retokenized(lost, 7, known, Room(pieces.size)) == reasons.NO_ROUND_TRIP
