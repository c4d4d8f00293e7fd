"""Prompts in the files that trainers read: TRL's, verl's, and our own, in which every field of the user's is kept."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from opd_diag.records.files import replaced_whole, take_away, unwritable, write_text
from opd_diag.records.prompt import Prompt

TRL, VERL, OWN = "trl.jsonl", "verl.parquet", "prompts.jsonl"


def write_prompt_files(
    folder: Path, prompts: Sequence[Prompt], records: Sequence[Mapping[str, Any]], *, split: str = "train"
) -> list[str]:
    """Write prompts for TRL, for verl and for opd-diag; earlier files of these names are replaced once all are written.

    - ``trl.jsonl``: `prompt` (messages, or text), and `id`, `answer`, `group`, which TRL hands to reward functions;
    - ``verl.parquet``: `data_source` (the group), `prompt` (messages), `ability` (the group), `reward_model` (style
      ``rule`` and the answer as ground truth, null where there is none), `extra_info` (split, index, id). Only where
      every prompt is messages: verl applies a chat template to what it reads, so that text would become another prompt;
    - ``prompts.jsonl``: the records as they were read, with their `id`.

    Parameters
    ----------
    folder
        Made where it is not there.
    prompts
        What is written, at least one.
    records
        What each was read from, in the same order.
    split
        What verl's `extra_info` calls it.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    StoreError
        The folder cannot be written to, or something that is no file has one of the names; nothing is replaced then.

    References
    ----------
    TRL, Dataset formats and types (prompt-only); verl, Prepare data for post-training.
    """
    for path in (folder / name for name in (TRL, VERL, OWN)):
        if os.path.isdir(path):  # a path that may not be looked at is none, and is told of below
            raise unwritable(path, IsADirectoryError(errno.EISDIR, ""))
    is_chat = all(isinstance(prompt.content, tuple) for prompt in prompts)
    names = [TRL, *([VERL] if is_chat else []), OWN]
    own = ({**record, "id": prompt.id} for record, prompt in zip(records, prompts, strict=True))
    with ExitStack() as stack:  # on its way out it moves each to its place, so that none is unless all are written
        parts = {name: stack.enter_context(replaced_whole(folder / name)) for name in names}
        write_text(parts[TRL], _lines(_for_trl(prompt) for prompt in prompts))
        write_text(parts[OWN], _lines(own))
        if is_chat:
            _write_verl(parts[VERL], prompts, split)
    if not is_chat:
        take_away(folder / VERL)
    return names


def _lines(records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)


def _for_trl(prompt: Prompt) -> dict[str, Any]:
    content = prompt.content if isinstance(prompt.content, str) else list(prompt.content)
    return {"prompt": content, "id": prompt.id, "answer": prompt.answer, "group": prompt.group}


def _write_verl(path: Path, prompts: Sequence[Prompt], split: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("split", text), ("index", pa.int64()), ("id", text)])),
        ]
    )
    rows = [
        {
            "data_source": prompt.group or "",
            "prompt": [dict(message) for message in prompt.content if isinstance(message, dict)],
            "ability": prompt.group or "",
            "reward_model": {"style": "rule", "ground_truth": prompt.answer},
            "extra_info": {"split": split, "index": index, "id": prompt.id},
        }
        for index, prompt in enumerate(prompts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
