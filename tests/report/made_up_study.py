"""A made-up study, with texts that want to break a page."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from opd_diag.plots.style import new_axes
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.verdict import Verdict
from opd_diag.studies import Picture, Shown, Study

NAN = math.nan


def verdict(name: str, status: str) -> Verdict:
    return Verdict(
        name, f"Is {name} so?", status, 0.5, 0.4, NAN, 0.1, f"{name} <b>is</b>.", "Do it.", "arXiv 2604.13016"
    )


def response(label: str, text: str, right: bool | None) -> Rollout:
    source = Provenance("sampled", label, "", 0, 1.0, 1.0, 0)
    return Rollout(
        0, 0, "<id>", None, (1,), (1,), (2,), "stop", source, is_correct=right, prompt_text="2<3", response_text=text
    )


def made_up_study() -> Study:
    return Study(
        name="outcome",
        question="What came of it?",
        headline="Something & <more>",
        subject="<run>",
        verdicts=[verdict("first", "pass"), verdict("second", "warn")],
        tables={"rows": pd.DataFrame({"a": [1, 2], "b": [0.5, NAN]})},
        pictures=[Picture("one", "One", "It is <one>.", new_axes)],
        measured=["Twice <measured>."],
        cannot_tell=["Nothing <else>."],
    )


def study_with_all() -> Study:
    """Give the study with tables to read, responses to read, and a verdict of every status."""
    columns = ["", *(f"teacher {i}" for i in range(9))]
    rows = [[f"metric {i}", *(f"0.{i}{j} [0.{i}0, 0.{i}9]" for j in range(9))] for i in range(4)]
    before, after = response("step 0", "<yes>\n" * 60, True), response("step <9>", "n" * 3000, False)
    return replace(
        made_up_study(),
        verdicts=[verdict(f"rule {status}", status) for status in ("pass", "warn", "fail", "unknown")],
        shown=[Shown(title, "See it.", columns, rows) for title in ("At the end", "On the way")],
        excerpts=[{"step 0": before, "step <9>": after}] * 2,
        excerpts_intro="These fell.",
    )
