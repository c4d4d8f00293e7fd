"""Prompts, and the three file formats they come in: JSON lines, parquet, plain text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_diag.errors import PromptsError
from opd_diag.records.json_lines import json_lines, text_lines

Message = dict[str, str]
"""One chat message: ``{"role": ..., "content": ...}``."""


@dataclass(frozen=True)
class Prompt:
    """One prompt: text, or chat messages to which a chat template is applied."""

    content: str | tuple[Message, ...]
    """The text as it is, or the chat messages."""
    id: str
    """The user's id, else the line number, counted from 1."""
    answer: str | None = None
    """Reference answer, as text; None when unknown."""
    group: str | None = None
    """Data source or kind of task; None when not given."""
    teacher_content: str | tuple[Message, ...] | None = None
    """What the teacher sees instead (a hint, another system prompt); None: the same as the student."""


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts from JSON lines (``.jsonl``, ``.json``), parquet, or plain text with one prompt a line.

    A record has ``prompt`` (text, or a list of chat messages) and optionally ``id``, ``answer``, ``group`` and
    ``teacher_prompt`` (what the teacher sees instead).

    Raises
    ------
    PromptsError
        The file is missing, empty, or a line in it is no prompt; the message names the line.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name, "prompts.jsonl")
    >>> _ = file.write_text('{"prompt": "2 + 2 =", "answer": 4}')
    >>> load_prompts(file)
    [Prompt(content='2 + 2 =', id='1', answer='4', group=None, teacher_content=None)]
    >>> folder.cleanup()
    """
    path = Path(path)
    prompts = [prompt_of(record, f"{path}, line {number}", number) for number, record in prompt_records(path)]
    if not prompts:
        raise PromptsError(f"{path} holds no prompt. Expected one a line (text), or JSON lines with 'prompt'.")
    repeated = [i for i, count in Counter(p.id for p in prompts).items() if count > 1]
    if repeated:
        shown = ", ".join(repeated[:5]) + (f" and {len(repeated) - 5} more" if len(repeated) > 5 else "")
        raise PromptsError(f"{path}: prompt ids must be unique; repeated: {shown}. Change or leave out 'id'.")
    return prompts


def prompt_records(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """Give the records of a prompts file as they are, each with its line number from 1; a line of text is a prompt.

    Raises
    ------
    PromptsError
        The file is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise PromptsError(f"Prompts file {path} does not exist or is no file. Name one with --prompts.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_records(path)
    if suffix in {".jsonl", ".json", ".ndjson"}:
        return json_lines(path, PromptsError)
    return [(n, {"prompt": line}) for n, line in text_lines(path, PromptsError) if line.strip()]


def _parquet_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as problem:
        raise PromptsError(
            f"{path} is no readable parquet file: {problem}. Write it again, or use JSON lines."
        ) from problem
    return list(enumerate(rows, start=1))


def prompt_of(record: dict[str, Any], where: str, number: int) -> Prompt:
    """Make a prompt of a record; `where` it stands is for messages, `number` is its id where it has none.

    Raises
    ------
    PromptsError
        It is no prompt.
    """
    if record.get("prompt") is None:
        raise PromptsError(f"{where}: expected a field 'prompt', found {', '.join(sorted(record)) or 'none'}.")
    teacher = record.get("teacher_prompt")
    return Prompt(
        content=_content(record["prompt"], where),
        id=_text(record, "id", where) or str(number),
        answer=_text(record, "answer", where),
        group=_text(record, "group", where),
        teacher_content=None if teacher is None else _content(teacher, where),
    )


def _text(record: dict[str, Any], name: str, where: str) -> str | None:
    value = record.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise PromptsError(f"{where}: expected '{name}' as text or a number, found {type(value).__name__} ({value!r:.80}).")


def _content(value: Any, where: str) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        if not value:
            raise PromptsError(f"{where}: the prompt is empty text. Write a prompt or delete the line.")
        return value
    if isinstance(value, list) and value and all(_is_message(m) for m in value):
        return tuple({"role": m["role"], "content": m["content"]} for m in value)
    raise PromptsError(
        f"{where}: expected 'prompt' as text or as a list of messages with 'role' and 'content' (both text), "
        f"found {type(value).__name__}."
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
