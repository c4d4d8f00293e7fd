"""Small files that are broken in one way, and in no other."""

from __future__ import annotations

import json
from functools import partial

from lab.faults.conftest import changed, contents, questions
from opd_diag.lab.faults import files as faults
from opd_diag.lab.prompts import ask
from opd_diag.lab.tokenizer import load_tokenizer


def rendered(folder, case):
    tokenizer = load_tokenizer(folder)
    return [tokenizer.apply_chat_template(q, add_generation_prompt=True)["input_ids"] for q in questions(case)]


def test_a_second_bos_stands_before_the_first(case):
    before, ids = contents(case), rendered(case.teacher, case)
    faults.double_bos(case, 0)
    assert {path.split("/")[-1] for path in changed(case, before)} == {"chat_template.jinja", "tokenizer_config.json"}
    for folder in case.models:
        assert rendered(folder, case) == [[one[0], *one] for one in ids]
    assert load_tokenizer(case.teacher).bos_token_id == ids[0][0]


def test_the_students_get_another_template(case):
    before, ids = contents(case), rendered(case.teacher, case)
    faults.replace_template(case, 0)
    assert changed(case, before) == {
        "student/chat_template.jinja",
        *(f"run/checkpoint-{step}/chat_template.jinja" for step in (20, 40, 80, 160)),
    }
    assert rendered(case.teacher, case) == ids
    assert load_tokenizer(case.student).decode(rendered(case.student, case)[0]).startswith("Question: After lunch")


def test_or_the_teacher_gets_it(case):
    before = contents(case)
    partial(faults.replace_template, of_teacher=True)(case, 0)
    assert changed(case, before) == {"teacher/chat_template.jinja"}


def test_prompts_lack_the_mark_of_the_response(case):
    before, asked = contents(case), questions(case)
    faults.drop_generation_prompt(case, 0)
    assert changed(case, before) == {"prompts.jsonl"}
    tokenizer = load_tokenizer(case.student)
    for old, line in zip(asked, case.prompts.read_text().splitlines(), strict=True):
        record = json.loads(line)
        assert record["prompt"] + "<|assistant|>" == ask(tokenizer, old[0]["content"])
        assert {"id", "answer", "group"} < {*record}
