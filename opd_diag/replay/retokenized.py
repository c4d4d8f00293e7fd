"""Recorded responses made into ids: as recorded, or from text, where the tokens can be told from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opd_diag.records.answer import is_correct
from opd_diag.records.prompt import Prompt
from opd_diag.records.recorded import Message, Recorded
from opd_diag.records.rollout import Provenance, Rollout, in_training
from opd_diag.replay.known_prompts import KnownPrompts
from opd_diag.tokenization import REPLACEMENT, EncodedPrompt, Tokenizer

NO_PROMPTS = "whose prompts can only be rebuilt from a prompts file, and there is none"
OTHER_PROMPT = "whose prompt is none of --prompts under the chat template"
OTHER_VIEW = "whose prompt is none of --prompts, so that what the teacher sees is not known"
NO_TEMPLATE = "whose messages the chat template does not take"
SEVERAL_MESSAGES = "of several messages or tool calls, in which the student's own tokens are not told"
NO_ROUND_TRIP = "whose text is not what its tokens give back"
NO_TOKEN = "without a token of the student's"
BEYOND = "with ids beyond the vocabulary"
TOO_LONG = "longer than the models take"


@dataclass(frozen=True)
class Room:
    """What a sequence of ids must keep to."""

    vocabulary: int
    """Ids are lower."""
    student: int | None = None
    """Most tokens of prompt and response; None: any number."""
    teacher: int | None = None
    """The same for what the teacher sees."""

    def refusal(self, prompt: Sequence[int], teacher_prompt: Sequence[int], response: Sequence[int]) -> str | None:
        """Say why ids cannot be scored; None where they can."""
        if max(*prompt, *teacher_prompt, *response) >= self.vocabulary:
            return BEYOND
        for seen, most in ((prompt, self.student), (teacher_prompt, self.teacher)):
            if most is not None and len(seen) + len(response) > most:
                return TOO_LONG
        return None


def retokenized(recorded: Recorded, updates: int, known: KnownPrompts, room: Room) -> Rollout | str:
    """Make a recorded response into a rollout, or say why that cannot be done.

    Ids are taken as they are. Text with special tokens is tokenised as it is, and must come back from its ids. Of text
    without special tokens the prompt is that of the one prompt in the file which reads the same, the response must
    come back, and how it ended stays unknown; so does that of a response that is a chat message, as what the template
    puts behind it is not the student's. Messages of a prompt go through the template.

    Parameters
    ----------
    recorded
        The response.
    updates
        Optimiser steps behind the weights that wrote it.
    known
        Prompts of the file, the tokenizer and the chat template.
    room
        What ids must keep to.

    Returns
    -------
    Rollout or str
        Its prompt's index is that of the file, -1 for a prompt that is none of it; rollouts are not numbered yet.
        Else one of the reasons of this module, to be read after a number of responses.
    """
    prompt = _prompt(recorded, known)
    if isinstance(prompt, str):
        return prompt
    response = _response(recorded, known.tokenizer)
    if isinstance(response, str):
        return response
    own = recorded.generated if recorded.exactness == "ids" else None
    if not (any(own) if own is not None else response):
        return NO_TOKEN
    refusal = room.refusal(prompt.ids, prompt.teacher_ids, response)
    return refusal or _rollout(recorded, updates, prompt, response, known.tokenizer)


def _prompt(recorded: Recorded, known: KnownPrompts) -> EncodedPrompt | str:
    tokenizer, found = known.tokenizer, recorded.prompt
    if recorded.exactness == "ids":
        ids = recorded.prompt_ids
    elif found is None:
        return NO_TOKEN
    elif not isinstance(found, str):
        return _of_messages(found, known)
    elif recorded.exactness == "text-with-specials":
        ids = tokenizer.ids(found)
        if REPLACEMENT in found or tokenizer.text(ids) != found:
            return NO_ROUND_TRIP
    else:
        return known.with_text(found) or (OTHER_PROMPT if known.any else NO_PROMPTS)
    if not ids:
        return NO_TOKEN
    if max(ids) >= tokenizer.size:
        return BEYOND
    other = EncodedPrompt(-1, Prompt(tokenizer.text(ids), ""), ids, ids)
    return known.with_ids(ids) or _unless_seen_otherwise(other, known)


def _of_messages(messages: Sequence[Message], known: KnownPrompts) -> EncodedPrompt | str:
    made = known.of_messages(messages)
    if made is None:
        return NO_TEMPLATE
    return known.with_ids(made.ids) or (OTHER_VIEW if known.some_hinted else made)


def _unless_seen_otherwise(prompt: EncodedPrompt, known: KnownPrompts) -> EncodedPrompt | str:
    asked = known.view.template is not None or known.view.system_prompt is not None
    return OTHER_VIEW if asked or known.some_hinted else prompt


def _response(recorded: Recorded, tokenizer: Tokenizer) -> tuple[int, ...] | str:
    if recorded.exactness == "ids":
        return recorded.response_ids or NO_TOKEN
    text = recorded.response
    if text is not None and not isinstance(text, str):
        text = _only_content(text)
        if text is None:
            return SEVERAL_MESSAGES
    if not text:
        return NO_TOKEN
    ids = tokenizer.ids(text)
    with_specials = recorded.exactness == "text-with-specials" and isinstance(recorded.response, str)
    read = {tokenizer.text(ids)} if with_specials else tokenizer.stripped(ids)
    return NO_ROUND_TRIP if REPLACEMENT in text or text not in read else ids


def _only_content(messages: Sequence[Message]) -> str | None:
    """Give what the assistant wrote, where that is one message of text and nothing else."""
    if len(messages) != 1 or messages[0].get("role") != "assistant":
        return None
    more = [value for name, value in messages[0].items() if name not in ("role", "content") and value]
    content = messages[0].get("content")
    return content if isinstance(content, str) and not more else None


def _rollout(
    recorded: Recorded, updates: int, prompt: EncodedPrompt, response: tuple[int, ...], tokenizer: Tokenizer
) -> Rollout:
    answer = prompt.prompt.answer or recorded.answer
    as_ids = recorded.exactness == "ids"
    return Rollout(
        prompt_index=prompt.index,
        rollout_index=0,
        prompt_id=prompt.prompt.id or recorded.prompt_name or "",
        group=prompt.prompt.group or recorded.group,
        prompt_ids=prompt.ids,
        teacher_prompt_ids=prompt.teacher_ids,
        response_ids=response,
        stop_reason="unknown" if recorded.exactness == "text-stripped" else recorded.stop_reason,
        provenance=Provenance(
            origin="recorded",
            weights=in_training(updates),
            weights_key="",
            step=updates,
            temperature=math.nan if recorded.temperature is None else recorded.temperature,
            top_p=math.nan,
            seed=None,
        ),
        generated=recorded.generated if as_ids else None,
        sampled_logprobs=recorded.sampled_logprobs if as_ids else None,
        answer=answer,
        is_correct=is_correct(tokenizer.plain_text(response), answer),
        reward=recorded.reward,
        exactness=recorded.exactness,
        prompt_text=tokenizer.text(prompt.ids),
        response_text=tokenizer.text(response),
    )


def completed(rollout: Rollout, known: KnownPrompts, room: Room) -> Rollout | str:
    """Give a rollout of ours what only tokenizer and prompts file tell: texts, answer, correctness. Or refuse it."""
    if not rollout.state_positions:
        return NO_TOKEN
    refusal = room.refusal(rollout.prompt_ids, rollout.teacher_prompt_ids, rollout.response_ids)
    if refusal:
        return refusal
    same, tokenizer = known.with_ids(rollout.prompt_ids), known.tokenizer
    answer = rollout.answer or (same.prompt.answer if same else None)
    graded = rollout.is_correct is None and answer is not None
    return replace(
        rollout,
        prompt_id=same.prompt.id if same else rollout.prompt_id,
        group=rollout.group or (same.prompt.group if same else None),
        answer=answer,
        is_correct=is_correct(tokenizer.plain_text(rollout.response_ids), answer) if graded else rollout.is_correct,
        prompt_text=rollout.prompt_text or tokenizer.text(rollout.prompt_ids),
        response_text=rollout.response_text or tokenizer.text(rollout.response_ids),
    )


def numbered(rollout: Rollout, prompt_index: int, rollout_index: int) -> Rollout:
    """Give a rollout its place among those that one checkpoint scores."""
    name = rollout.prompt_id or f"recorded {prompt_index}"
    return replace(rollout, prompt_index=prompt_index, rollout_index=rollout_index, prompt_id=name)
