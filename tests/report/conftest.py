from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from models import random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.records.vocabulary import Token
from opd_diag.report import Report
from opd_diag.report.figures import Figures
from opd_diag.report.maps import map_panel
from opd_diag.report.page import report_page
from opd_diag.report.tokens import token_view
from opd_diag.tables import depth_table, measure
from report.made_up_report import made_up_report


@pytest.fixture(scope="session")
def report(shared_once) -> Report:
    """Give a report that is written once, with all its pictures, for all processes that test."""
    with shared_once("made-up-report") as (folder, is_there):
        made = made_up_report(folder, "collapse")
        if not is_there:
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


@pytest.fixture
def open_page(open_file, report):
    """Open a page at a width and scheme, by default the report's."""

    def at(width: int, scheme: str = "light", path: Path | None = None):
        return open_file(path or report.out_dir / "report.html", width, scheme)

    return at


HOSTILE_TOKENS = ("<script>alert(1)</script>", "word ", "\n", "<img src=x onerror=alert(1)>", "مرحبا", "\u202eabc")


@pytest.fixture(scope="session")
def page_with_tokens(report, scored, tmp_path_factory) -> Path:
    """Give a page of the report with token view and without pictures, which take seconds."""
    texts = HOSTILE_TOKENS
    vocabulary = {i: Token(texts[i % len(texts)], i % 7 == 0) for i in range(200)}
    path = tmp_path_factory.mktemp("tokens") / "page.html"
    page = report_page(replace(report, tokens=token_view(scored, vocabulary, k=8)), Figures({}, {}, {}, []))
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def page_with_a_map(report, scored, tmp_path_factory) -> Path:
    """Give a page with one map, links from it to tokens, and responses that are written from right to left."""
    depth = depth_table(pd.concat([measure(*of, k=8) for of in scored], ignore_index=True))
    vocabulary = {i: Token("مرحبا ", False) for i in range(200)}
    written = [(scores, [replace(r, response_text="مرحبا") for r in rollouts]) for scores, rollouts in scored]
    view = token_view(written, vocabulary, k=8, depth=depth)
    figures = Figures({}, {}, {"own states": [map_panel(depth, "on-policy", {}, None)]}, [])
    path = tmp_path_factory.mktemp("map") / "page.html"
    path.write_text(report_page(replace(report, tokens=view), figures), encoding="utf-8")
    return path
