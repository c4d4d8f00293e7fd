"""Prompts, and the three file formats they come in: JSON lines, parquet, plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_diag.errors import PromptsError

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
    if not path.is_file():
        raise PromptsError(f"Prompts file {path} does not exist or is no file. Name one with --prompts.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        records = _parquet_records(path)
    elif suffix in {".jsonl", ".json", ".ndjson"}:
        records = json_lines(path, PromptsError)
    else:
        records = [(n, {"prompt": line}) for n, line in _lines(path, PromptsError) if line.strip()]
    prompts = [_prompt(record, f"{path}, line {number}", number) for number, record in records]
    if not prompts:
        raise PromptsError(f"{path} holds no prompt. Expected one a line (text), or JSON lines with 'prompt'.")
    repeated = {p.id for p in prompts if sum(q.id == p.id for q in prompts) > 1} if len(prompts) < 2000 else set()
    if repeated or len({p.id for p in prompts}) < len(prompts):
        raise PromptsError(f"{path}: prompt ids must be unique; repeated: {', '.join(sorted(repeated)[:5]) or 'some'}.")
    return prompts


def json_lines(path: Path, error: type[PromptsError] | type[Any]) -> list[tuple[int, dict[str, Any]]]:
    """Read one JSON object a line; give (line number from 1, object) and raise `error` naming a broken line."""
    records = []
    for number, line in _lines(path, error):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as problem:
            raise error(
                f"{path}, line {number}: not JSON ({problem.msg} at column {problem.colno}). Mend or delete the line."
            ) from problem
        if not isinstance(record, dict):
            raise error(f"{path}, line {number}: expected a JSON object, found {type(record).__name__}.")
        records.append((number, record))
    return records


def _lines(path: Path, error: type[Any]) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}). Save it as UTF-8.") from problem
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.") from problem
    return list(enumerate(text.split("\n"), start=1))


def _parquet_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as problem:
        raise PromptsError(f"{path} is no readable parquet file: {problem}.") from problem
    return list(enumerate(rows, start=1))


def _prompt(record: dict[str, Any], where: str, number: int) -> Prompt:
    if record.get("prompt") is None:
        raise PromptsError(f"{where}: expected a field 'prompt', found {', '.join(sorted(record)) or 'none'}.")
    teacher = record.get("teacher_prompt")
    return Prompt(
        content=_content(record["prompt"], where),
        id=str(number if record.get("id") is None else record["id"]),
        answer=None if record.get("answer") is None else str(record["answer"]),
        group=None if record.get("group") is None else str(record["group"]),
        teacher_content=None if teacher is None else _content(teacher, where),
    )


def _content(value: Any, where: str) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        if not value:
            raise PromptsError(f"{where}: the prompt is empty text.")
        return value
    if isinstance(value, list) and value and all(_is_message(m) for m in value):
        return tuple({"role": m["role"], "content": m["content"]} for m in value)
    raise PromptsError(
        f"{where}: expected 'prompt' as text or as a list of messages with 'role' and 'content' (both text), "
        f"found {type(value).__name__}."
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
