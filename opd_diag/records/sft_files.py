"""Data sets for supervised fine-tuning, in the files that trainers read: TRL's and LLaMA-Factory's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_diag.errors import StoreError
from opd_diag.records.files import ELSEWHERE, take_away, write_json, write_text
from opd_diag.records.prompt import Message

DATASET = "cold_start"
"""What ``dataset_info.json`` calls the data set; LLaMA-Factory's ``dataset``."""

TRL, LLAMA_FACTORY, INFO = "trl.jsonl", "llama_factory.json", "dataset_info.json"
OF_TEXT = "text"
"""Ends the names of what was made of text prompts, where a prompts file has both forms: no trainer reads both in one
file."""

_CHAT_DESCRIPTION = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
_TEXT_DESCRIPTION = {"formatting": "alpaca", "columns": {"prompt": "instruction", "response": "output"}}


@dataclass(frozen=True)
class Lesson:
    """One prompt and the response that is taught."""

    prompt: str | tuple[Message, ...]
    """Text, or chat messages; a last message of the assistant's is one that the response goes on from."""
    response: str
    """Without special tokens: those are the template's."""

    @property
    def asked(self) -> str | tuple[Message, ...]:
        """The prompt without an unfinished message of the assistant's."""
        return self.prompt if self._begun is None else self.prompt[:-1]

    @property
    def taught(self) -> str:
        """The whole message of the assistant's; of a text prompt, the response."""
        return (self._begun or "") + self.response

    @property
    def messages(self) -> list[Message]:
        """Prompt and response as one chat."""
        if isinstance(self.prompt, str):
            raise TypeError("A text prompt is no chat.")
        return [*(dict(message) for message in self.asked if isinstance(message, dict)), _answer(self.taught)]

    @property
    def _begun(self) -> str | None:
        last = None if isinstance(self.prompt, str) else self.prompt[-1]
        return last["content"] if last is not None and last["role"] == "assistant" else None


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def refuse_other_data(folder: Path, *, is_ours: bool) -> None:
    """Refuse a folder for the lessons that holds data of others; writes nothing.

    Parameters
    ----------
    folder
        Where the lessons are to go.
    is_ours
        Whether an earlier call of ours may have made it.

    Raises
    ------
    StoreError
        It was there before, or its ``dataset_info.json`` describes data sets that are not ours.
    """
    if not is_ours and os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise StoreError(f"{folder} was not made by opd-diag, and the data would go there. {ELSEWHERE}")
    others = sorted(_described(folder / INFO) - {DATASET, _named(DATASET, OF_TEXT)})
    if others:
        raise StoreError(f"{folder / INFO} also describes {', '.join(others)}, and would be overwritten. {ELSEWHERE}")


def _described(info: Path) -> set[str]:
    """Give the names of the data sets in ``dataset_info.json``; none where it cannot be read."""
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {*content} if isinstance(content, dict) else set()


def write_sft_files(
    folder: Path, lessons: Sequence[Lesson], *, template_kwargs: Mapping[str, Any] | None = None
) -> list[str]:
    """Write the lessons for TRL and for LLaMA-Factory; earlier files of these names go.

    - ``trl.jsonl``: prompt and completion, as messages or as text (``SFTTrainer`` then teaches the completion alone);
    - ``llama_factory.json`` and ``dataset_info.json``, which describes it: messages, or instruction and output.

    Parameters
    ----------
    folder
        Made where it is not there.
    lessons
        What is taught; of none, nothing is written.
    template_kwargs
        What the chat template was given when the responses were sampled; TRL reads it from each row.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    StoreError
        The folder cannot be written to.

    Notes
    -----
    Caution: of a prompt with earlier messages of the assistant's LLaMA-Factory teaches those too, unless it is told to
    mask the history; TRL teaches the completion alone.

    References
    ----------
    TRL, Dataset formats and types (prompt-completion); LLaMA-Factory, data/README (openai and alpaca formats).
    """
    forms = {of: [lesson for lesson in lessons if isinstance(lesson.prompt, str) == of] for of in (False, True)}
    written, info = [], {}
    for is_text, of_form in forms.items():
        if not of_form:
            continue
        end = OF_TEXT if is_text and forms[False] else ""
        kwargs = {} if is_text or not template_kwargs else {"chat_template_kwargs": dict(template_kwargs)}
        lines = [json.dumps(_for_trl(lesson) | kwargs, ensure_ascii=False) + "\n" for lesson in of_form]
        write_text(folder / _named(TRL, end), "".join(lines))
        written.append(_named(TRL, end))
        rows = [_for_llama_factory(lesson) for lesson in of_form if fits_llama_factory(lesson)]
        if rows:
            write_json(folder / _named(LLAMA_FACTORY, end), rows)
            described = _TEXT_DESCRIPTION if is_text else _CHAT_DESCRIPTION
            info[_named(DATASET, end)] = {"file_name": _named(LLAMA_FACTORY, end)} | described
            written.append(_named(LLAMA_FACTORY, end))
    if info:
        write_json(folder / INFO, info)
        written.append(INFO)
    _take_away(folder, written)
    return written


def _take_away(folder: Path, written: Sequence[str]) -> None:
    """Take away earlier files of ours that were not written anew."""
    names = (TRL, _named(TRL, OF_TEXT), LLAMA_FACTORY, _named(LLAMA_FACTORY, OF_TEXT), INFO)
    for name in names:
        if name not in written:
            take_away(folder / name)


def fits_llama_factory(lesson: Lesson) -> bool:
    """Whether LLaMA-Factory takes the chat: at most one system message, first; then user and assistant in turns.

    It skips others with a warning.

    Examples
    --------
    >>> user, system = {"role": "user", "content": "?"}, {"role": "system", "content": "Be brief."}
    >>> fits_llama_factory(Lesson((system, user), "!")), fits_llama_factory(Lesson((user, user), "!"))
    (True, False)
    """
    if isinstance(lesson.prompt, str):
        return True
    roles = [message["role"] for message in lesson.messages]
    turns = roles[1:] if roles[0] == "system" else roles
    return len(turns) % 2 == 0 and all(
        role == ("assistant" if place % 2 else "user") for place, role in enumerate(turns)
    )


def _for_trl(lesson: Lesson) -> dict[str, Any]:
    if isinstance(lesson.prompt, str):
        return {"prompt": lesson.prompt, "completion": lesson.response}
    return {"prompt": lesson.messages[:-1], "completion": lesson.messages[-1:]}


def _for_llama_factory(lesson: Lesson) -> dict[str, Any]:
    if isinstance(lesson.prompt, str):
        return {"instruction": lesson.prompt, "output": lesson.response}
    return {"messages": lesson.messages}


def _named(name: str, end: str) -> str:
    if not end:
        return name
    stem, dot, suffix = name.partition(".")
    return f"{stem}_{end}{dot}{suffix}"
