"""Held-out prompts are balanced, unique and never trained on."""

import json
from collections import Counter

from opd_diag.lab.prompts import draw_held_out, draw_training_questions, write_prompts


def test_held_out_prompts_are_balanced_unique_and_shuffled():
    problems = draw_held_out(12, seed=0)
    assert Counter(problem.operation for problem in problems) == {"add": 12, "subtract": 12, "multiply": 12}
    assert len({problem.question for problem in problems}) == 36
    assert len({problem.operation for problem in problems[:12]}) == 3
    assert problems == draw_held_out(12, seed=0) != draw_held_out(12, seed=1)


def test_training_questions_skip_what_is_held_out():
    everything = draw_training_questions(300, 0, frozenset())
    held_out = frozenset(everything[::10])
    questions = draw_training_questions(300, 0, held_out)
    assert len(questions) == 300
    assert not held_out & set(questions)
    assert questions[:9] == everything[1:10]


def test_prompts_file(tmp_path):
    problems = draw_held_out(3, seed=0)
    write_prompts(problems, tmp_path / "prompts.jsonl")
    records = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [record["prompt"] for record in records] == [[{"role": "user", "content": p.question}] for p in problems]
    assert [record["answer"] for record in records] == [str(p.answer) for p in problems]
    assert sorted(record["id"] for record in records) == sorted(
        f"{o}-00{i}" for o in ("add", "mul", "sub") for i in range(3)
    )
