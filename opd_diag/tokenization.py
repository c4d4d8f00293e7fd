"""Tokenizers, chat templates, stop tokens; text to ids and back, and whether two tokenizers mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from opd_diag.errors import InputError, PromptsError, TokenizerMismatchError
from opd_diag.records.prompt import Message, Prompt
from opd_diag.records.vocabulary import Token

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and where it came from."""

    hf: Any
    """The transformers tokenizer."""
    source: str

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end-of-sequence id, if it has one."""
        return () if self.hf.eos_token_id is None else (int(self.hf.eos_token_id),)

    @cached_property
    def size(self) -> int:
        """One more than its highest id; heads often have more rows."""
        return max(self.hf.get_vocab().values(), default=-1) + 1

    def text(self, ids: Sequence[int]) -> str:
        """Give ids as text, special tokens included, spaces as they are."""
        decoded: str = self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return decoded

    def plain_text(self, ids: Sequence[int]) -> str:
        """Give ids as text without special tokens, as answers are graded on."""
        decoded: str = self.hf.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded

    def stripped(self, ids: Sequence[int]) -> frozenset[str]:
        """Give ids as trainers print them, without special tokens: spaces as they are, or as the tokenizer has them."""
        return frozenset((self.plain_text(ids), self.hf.decode(list(ids), skip_special_tokens=True)))

    def ids(self, text: str) -> tuple[int, ...]:
        """Give text as ids; special tokens that it spells out are those tokens, and none is added."""
        return tuple(self.hf(text, add_special_tokens=False, verbose=False)["input_ids"])

    def token(self, token_id: int) -> Token:
        """Give one vocabulary entry as people read it."""
        raw = self._raw(token_id)
        special = token_id in self._special_ids
        text = self.text([token_id])
        return Token(text=text if special else _readable(raw, text), special=special)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        # Those with a role (BOS, EOS, …), and those that are special without one, such as <|im_start|>.
        added = (i for i, token in self.hf.added_tokens_decoder.items() if token.special)
        return frozenset((*self.hf.all_special_ids, *added))

    def _raw(self, token_id: int) -> str | None:
        raw: str | None = self.hf.convert_ids_to_tokens(token_id) if token_id < self.size else None
        return raw


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt as the ids that student and teacher see."""

    index: int
    """Its place among the prompts of a run, from 0: the cluster of its rollouts."""
    prompt: Prompt
    ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]


@dataclass(frozen=True)
class TeacherView:
    """What the teacher sees in place of what the student sees; all empty: the same ids."""

    template: str | None = None
    """Chat template (jinja)."""
    system_prompt: str | None = None
    """System message in place of the prompt's own."""


def split_revision(source: str) -> tuple[str, str | None]:
    """Split ``org/name@revision``; a path that exists is never split.

    Examples
    --------
    >>> split_revision("org/name@v1.0"), split_revision("org/name")
    (('org/name', 'v1.0'), ('org/name', None))
    """
    if Path(source).exists() or "@" not in source:
        return source, None
    name, revision = source.rsplit("@", 1)
    return name, revision


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer of a folder or hub id, with a revision after ``@`` if any.

    Raises
    ------
    InputError
        There is none, or it cannot be read.
    """
    name, revision = split_revision(source)
    try:
        hf = transformers.AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"No tokenizer can be loaded from {source}: {reason} Name one with --tokenizer.") from error
    return Tokenizer(hf, source)


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    *,
    template_kwargs: dict[str, Any] | None = None,
    teacher: TeacherView | None = None,
) -> list[EncodedPrompt]:
    """Turn prompts into the ids that both models see.

    Text gets the tokenizer's own special tokens (a BOS, where it adds one) unless it starts with the BOS already; an
    end-of-sequence token that the tokenizer would add is left out, as the response goes on from there. Chat messages
    go through the chat template, which brings its own; a last message of the assistant's is continued, else the
    template's generation prompt is added.

    Raises
    ------
    PromptsError
        Messages without a chat template, a template that fails, or a prompt without a token.
    """
    kwargs = template_kwargs or {}
    view = teacher or TeacherView()
    encoded = []
    for index, prompt in enumerate(prompts):
        ids = _encode(prompt.content, prompt, tokenizer, kwargs, None)
        content = prompt.content if prompt.teacher_content is None else prompt.teacher_content
        if view.system_prompt is not None:
            content = _with_system(content, view.system_prompt, prompt)
        same = content == prompt.content and view.template is None
        teacher_ids = ids if same else _encode(content, prompt, tokenizer, kwargs, view.template)
        encoded.append(EncodedPrompt(index, prompt, ids, teacher_ids))
    return encoded


def _encode(
    content: str | tuple[Message, ...],
    prompt: Prompt,
    tokenizer: Tokenizer,
    kwargs: dict[str, Any],
    template: str | None,
) -> tuple[int, ...]:
    hf = tokenizer.hf
    if isinstance(content, str):
        has_bos = hf.bos_token is not None and content.startswith(hf.bos_token)
        ids = hf(content, add_special_tokens=not has_bos)["input_ids"]
        bare = hf(content, add_special_tokens=False)["input_ids"]
        if ids[-1:] == [hf.eos_token_id] != bare[-1:]:  # of a tokenizer made for training, which closes every text
            ids = ids[:-1]
    else:
        ids = _from_messages(content, prompt, tokenizer, kwargs, template)
    if not ids:
        raise PromptsError(f"Prompt {prompt.id} has no token under the tokenizer of {tokenizer.source}.")
    return tuple(ids)


def _from_messages(
    messages: tuple[Message, ...],
    prompt: Prompt,
    tokenizer: Tokenizer,
    kwargs: dict[str, Any],
    template: str | None,
) -> list[int]:
    if template is None and not tokenizer.hf.chat_template:
        raise PromptsError(
            f"Prompt {prompt.id} is chat messages, but the tokenizer of {tokenizer.source} has no chat template. "
            "Give the prompts as text, or name a tokenizer that has one with --tokenizer."
        )
    goes_on = messages[-1]["role"] == "assistant"
    try:
        ids: list[int] = tokenizer.hf.apply_chat_template(
            [dict(m) for m in messages],
            chat_template=template,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            tokenize=True,
            return_dict=False,
            **kwargs,
        )
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise PromptsError(f"Prompt {prompt.id}: the chat template fails: {error}.") from error
    return ids


def _with_system(content: str | tuple[Message, ...], system: str, prompt: Prompt) -> tuple[Message, ...]:
    if isinstance(content, str):
        raise PromptsError(
            f"Prompt {prompt.id} is text, so the teacher cannot be given a system prompt. Give the prompts as chat "
            "messages, or what the teacher sees as 'teacher_prompt'."
        )
    return ({"role": "system", "content": system}, *(m for m in content if m["role"] != "system"))


def tokenizer_differences(student: Tokenizer, teacher: Tokenizer) -> list[str]:
    """List how two tokenizers differ, one sentence each; an empty list when nothing was seen.

    Differences here do not make scores wrong by themselves; ids that *occur* are checked by :func:`check_same_ids`.
    """
    found = []
    if len(student.hf) != len(teacher.hf):
        found.append(f"The student's tokenizer has {len(student.hf)} entries, the teacher's {len(teacher.hf)}.")
    for name in ("bos_token", "eos_token", "pad_token"):
        ours, theirs = getattr(student.hf, name), getattr(teacher.hf, name)
        if ours != theirs:
            found.append(f"{name} is {ours!r} for the student and {theirs!r} for the teacher.")
    if (student.hf.chat_template or None) != (teacher.hf.chat_template or None):
        found.append(
            "The chat templates differ; unless --teacher-template says otherwise, the student's was used for both."
        )
    size = min(len(student.hf), len(teacher.hf))
    ids = [i for i in range(size) if student._raw(i) != teacher._raw(i)]
    if ids:
        shown = ", ".join(str(i) for i in ids[:5])
        found.append(f"{len(ids)} of {size} ids stand for other tokens ({shown}{', …' if len(ids) > 5 else ''}).")
    return found


def check_same_ids(
    ids: Iterable[int],
    student: Tokenizer,
    teacher: Tokenizer,
    *,
    roles: tuple[str, str] = ("student", "teacher"),
    way_out: str = "Use a teacher with the student's tokenizer.",
) -> None:
    """Refuse two tokenizers under which an id that occurs means different text.

    Parameters
    ----------
    ids
        Ids that occur in rollouts or among kept tokens. Ids that neither tokenizer knows are padding rows and pass.
    student, teacher
        The two tokenizers.
    roles, way_out
        What the message calls them, and what it says to do.

    Raises
    ------
    TokenizerMismatchError
        With the first such ids and both readings.
    """
    different = [i for i in sorted(set(ids)) if not _same_token(i, student, teacher)]
    if different:
        shown = "; ".join(
            f"{i} is {student.token(i).text!r} for the {roles[0]}, {teacher.token(i).text!r} for the {roles[1]}"
            for i in different[:3]
        )
        raise TokenizerMismatchError(
            f"{roles[0].capitalize()} and {roles[1]} read {len(different)} of the ids that occur differently: {shown}. "
            f"Scores of such a pair would compare different tokens. {way_out}"
        )


def _same_token(token_id: int, student: Tokenizer, teacher: Tokenizer) -> bool:
    ours, theirs = student._raw(token_id), teacher._raw(token_id)
    if ours == theirs:
        return True
    if ours is None or theirs is None:
        return False
    # As people read it, not as it decodes alone: sentencepiece drops the space of a first token.
    return REPLACEMENT not in student.text([token_id]) and student.token(token_id).text == teacher.token(token_id).text


def _readable(raw: str | None, decoded: str) -> str:
    if raw is None:
        return "<no token>"
    if _BYTE_TOKEN.fullmatch(raw):  # sentencepiece's token for one byte
        byte = int(raw[3:5], 16)
        return chr(byte) if byte < 0x80 else raw
    if "▁" in raw:  # sentencepiece: the mark stands for a space, which decoding drops
        return raw.replace("▁", " ")
    if REPLACEMENT in decoded and all(c in _BYTES for c in raw):  # part of a character
        return "".join(f"<0x{_BYTES[c]:02X}>" for c in raw)
    return decoded


def read_template(path: str | Path, option: str = "--teacher-template") -> str:
    """Read a chat template file, which `option` named.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Chat template {path} cannot be read: {error}. Name a file with {option}.") from error
