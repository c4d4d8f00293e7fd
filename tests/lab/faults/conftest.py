"""A case made from a bundled run, and rollouts recorded beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd_diag.lab.faults import copied_case, record_rollouts
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.records.rollout import Provenance, Rollout, load_rollouts, save_rollouts

DATA = Path(__file__).parents[3] / "data"
WRITERS = {"step 0": 0, "step 20": 20, "teacher": None}


@pytest.fixture
def case(tmp_path):
    lines = (DATA / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return copied_case(DATA / "new", tmp_path / "case", lines[:4])


@pytest.fixture
def recorded(case, tmp_path):
    """The case with two responses of three models to two prompts: one that stopped, one that was cut."""
    tokenizer = load_tokenizer(case.student)
    sampled = tmp_path / "sampled"
    sampled.mkdir()
    for label, step in WRITERS.items():
        source = Provenance("sampled", label, f"key of {label}", step, 1.0, 1.0, 7)
        rollouts = [
            Rollout(p, r, f"p{p}", "add", ids, ids, response, "stop" if stops else "length", source,
                    sampled_logprobs=tuple(-0.1 * (i + 1 + r) for i in range(len(response))), answer="5")
            for p, question in enumerate(questions(case)[:2])
            for ids in [tuple(tokenizer.apply_chat_template(question, add_generation_prompt=True)["input_ids"])]
            for r, stops in enumerate((True, False))
            for response in [tuple(tokenizer("Let me compute: 2 + 3 = 5.")["input_ids"]) + (3,) * stops]
        ]  # fmt: skip
        name = "teacher" if step is None else f"step-{step:06d}"
        save_rollouts(sampled / f"{name}.jsonl", rollouts)
    save_rollouts(sampled / "start.jsonl", load_rollouts(sampled / "step-000000.jsonl"))
    record_rollouts(case, sampled)
    return case


def questions(case):
    return [json.loads(line)["prompt"] for line in case.prompts.read_text(encoding="utf-8").splitlines()]


def everything(case):
    """All recorded rollouts by the file they stand in."""
    return {path.stem: load_rollouts(path) for path in sorted(case.rollouts.glob("*.jsonl"))}


def contents(case):
    """The bytes of every file of a case, by its path."""
    files = [path for path in sorted(case.root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(case.root)): path.read_bytes() for path in files}


def changed(case, before):
    """Paths of the files that are not what they were."""
    now = contents(case)
    return {path for path in {*before, *now} if before.get(path) != now.get(path)}
