"""Which responses are fit to be taught, and what a trainer would teach of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
import pandas as pd

from opd_diag.records.rollout import Rollout
from opd_diag.records.sft_files import Lesson
from opd_diag.tables.repetition import repetition_of
from opd_diag.tokenization import REPLACEMENT, EncodedPrompt, Tokenizer

SFT_COLUMNS = [
    "prompt_index", "prompt_id", "group", "rollout_index", "n_tokens", "is_correct", "kept", "reason", "taught",
    "stop_taught",
]  # fmt: skip

REASONS = (
    "truncated", "empty", "special token inside", "broken character", "degenerate", "repeated", "not correct",
)  # fmt: skip
"""Why a response is left out, in the order in which it is asked."""

AS_SAMPLED, OTHER_TOKENS, OTHER_TEXT = "as sampled", "other tokens", "other text"


def sft_table(
    rollouts: Sequence[Rollout],
    prompts: Mapping[int, EncodedPrompt],
    tokenizer: Tokenizer,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    only_correct: bool = False,
) -> pd.DataFrame:
    """Say of each response whether it is kept, why not, and what a trainer that reads its text would teach.

    Parameters
    ----------
    rollouts
        The teacher's responses.
    prompts
        By index, as the student sees them.
    tokenizer
        The student's.
    template_kwargs
        Passed to the chat template.
    only_correct
        Leave out what is not graded as correct, or not graded at all.

    Returns
    -------
    DataFrame
        One row a response; columns as in :mod:`opd_diag.tables`.

    Notes
    -----
    Caution: responses that were cut are long ones, so what is kept is shorter than what the teacher writes.

    References
    ----------
    arXiv 2604.13016, section 5.1 (incomplete and degenerate responses are left out).
    """
    rows, seen = [], set[tuple[tuple[int, ...], str]]()
    special = cache(lambda i: tokenizer.token(i).special)
    for rollout in rollouts:
        lesson = lesson_of(rollout, prompts[rollout.prompt_index], tokenizer)
        key = (rollout.prompt_ids, lesson.response)
        ids = _body(rollout), tokenizer.ids(lesson.response)  # a text may spell a special token out
        found = {
            "truncated": rollout.stop_reason != "stop",
            "empty": not lesson.response.strip(),
            "special token inside": any(map(special, {*ids[0], *ids[1]})),
            "broken character": REPLACEMENT in lesson.response and ids[0] != ids[1],
            "degenerate": repetition_of(rollout)["is_repeating"] is True,
            "repeated": key in seen,
            "not correct": only_correct and rollout.is_correct is not True,
        }
        reason = next((reason for reason in REASONS if found[reason]), "")
        taught: tuple[str, Any] = "", pd.NA
        if not reason:
            seen.add(key)
            taught = _taught(rollout, lesson, tokenizer, dict(template_kwargs or {}))
        about = {name: getattr(rollout, name) for name in (*SFT_COLUMNS[:4], "is_correct")}
        told = {"kept": not reason, "reason": reason, "taught": taught[0], "stop_taught": taught[1]}
        rows.append(about | {"n_tokens": len(rollout.response_ids)} | told)
    table = pd.DataFrame(rows, columns=SFT_COLUMNS)
    return table.astype({"is_correct": "boolean", "kept": bool, "stop_taught": "boolean"})


def lesson_of(rollout: Rollout, prompt: EncodedPrompt, tokenizer: Tokenizer) -> Lesson:
    """Give what the student would be asked and taught, without special tokens."""
    return Lesson(prompt.prompt.content, tokenizer.plain_text(_body(rollout)))


def _body(rollout: Rollout) -> tuple[int, ...]:
    """Give the ids of the response without its stop token."""
    return rollout.response_ids[:-1] if rollout.stop_reason == "stop" else rollout.response_ids


def _taught(rollout: Rollout, lesson: Lesson, tokenizer: Tokenizer, kwargs: dict[str, Any]) -> tuple[str, bool]:
    """Say what a trainer makes of the lesson with the student's template: the sampled ids, and whether it stops there.

    A template may leave out what stands before an end of thinking, or never close the last message.
    """
    ids = _as_trained(lesson, tokenizer, kwargs)
    sampled, stops = (*rollout.prompt_ids, *_body(rollout)), {*tokenizer.stop_ids, *rollout.response_ids[-1:]}
    if ids is None:
        return OTHER_TEXT, False
    if ids[: len(sampled)] == sampled:
        return AS_SAMPLED, bool({*ids[len(sampled) : len(sampled) + 1]} & stops)
    begins = tokenizer.text(ids).startswith(tokenizer.text(rollout.prompt_ids) + lesson.response)
    return OTHER_TOKENS if begins else OTHER_TEXT, bool({*ids[len(rollout.prompt_ids) :]} & stops)


def _as_trained(lesson: Lesson, tokenizer: Tokenizer, kwargs: dict[str, Any]) -> tuple[int, ...] | None:
    """Give the ids of the whole lesson as TRL makes them; None where the template fails."""
    hf = tokenizer.hf
    if isinstance(lesson.prompt, str):
        return tuple(hf(lesson.prompt + lesson.response + (hf.eos_token or ""))["input_ids"])
    try:
        return tuple(hf.apply_chat_template(lesson.messages, tokenize=True, return_dict=False, **kwargs))
    except (jinja2.TemplateError, ValueError, TypeError):
        return None
