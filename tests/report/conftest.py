from __future__ import annotations

from dataclasses import replace

import pytest
from models import random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.records.vocabulary import Token
from opd_diag.report import Report
from report.made_up_report import made_up_report


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Report:
    """Give a report that is written once."""
    made = made_up_report(tmp_path_factory.mktemp("out"), "collapse")
    made.write()
    return made


@pytest.fixture(scope="session")
def html(report) -> str:
    return (report.out_dir / "report.html").read_text(encoding="utf-8")


LENGTHS = tuple((4, n) for n in (3, 9, 5, 12, 7))
SPECIALS = {5: "<|end|>", 6: "\n", 7: "", 8: "\t"}


@pytest.fixture(scope="session")
def scored():
    """Two checkpoints on their own states, the second on the start's and the teacher's too."""
    student, later, teacher = (wrapped("qwen3", name=name, seed=i) for i, name in enumerate(("s", "l", "t"), start=1))
    rollouts = random_rollouts(LENGTHS)

    def of(model, states, label, step):
        scores = score(model, teacher, rollouts, states=states)
        return replace(scores, provenance=scores.provenance | {"checkpoint": {"label": label, "step": step}}), rollouts

    return [
        of(student, "on-policy", "step 0", 0),
        of(student, "start", "step 0", 0),
        of(later, "on-policy", "step 9", 9),
        of(later, "start", "step 9", 9),
        of(later, "teacher", "step 9", 9),
    ]


@pytest.fixture(scope="session")
def tokens():
    return {i: Token(SPECIALS.get(i, f"w{i}"), i == 5) for i in range(200)}
