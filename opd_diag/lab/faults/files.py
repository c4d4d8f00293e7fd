"""Faults of small files: tokenizer, chat template, prompts."""

from __future__ import annotations

import json

from opd_diag.lab.faults.case import Case
from opd_diag.lab.faults.weights import change_config
from opd_diag.lab.prompts import ask
from opd_diag.lab.tokenizer import ASSISTANT, USER, load_tokenizer

OTHER_TEMPLATE = (
    "{%- for message in messages -%}{{- 'Question: ' + message['content'] + '\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Answer:' -}}{%- endif -%}"
)
"""A template of another family of models: no mark of ours, and an answer that begins after a colon."""


def name_bos(case: Case) -> None:
    """Name the first token of every prompt as BOS, which changes no id."""
    for folder in case.models:
        change_config(folder / "tokenizer_config.json", bos_token=USER)


def double_bos(case: Case, seed: int) -> None:
    """Let the chat template put a BOS in front of the one that it has already."""
    name_bos(case)
    for folder in case.models:
        path = folder / "chat_template.jinja"
        path.write_text("{{- bos_token -}}" + path.read_text(encoding="utf-8"), encoding="utf-8")


def replace_template(case: Case, seed: int, *, of_teacher: bool = False) -> None:
    """Give the students' tokenizers the chat template of another family; the teacher keeps its own.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    of_teacher
        Whether the teacher's is replaced instead, and the students keep theirs.
    """
    for folder in [case.teacher] if of_teacher else case.students:
        (folder / "chat_template.jinja").write_text(OTHER_TEMPLATE, encoding="utf-8")


def drop_generation_prompt(case: Case, seed: int) -> None:
    """Give the prompts as text that was rendered without the mark after which a response begins."""
    tokenizer = load_tokenizer(case.student)
    records = [json.loads(line) for line in case.prompts.read_text(encoding="utf-8").splitlines()]
    for record in records:
        text = ask(tokenizer, record["prompt"][0]["content"])
        record["prompt"] = text.removesuffix(ASSISTANT)
    case.prompts.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
