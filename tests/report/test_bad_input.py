"""Thin, large, undefined and hostile runs: their page stays one strict document, safe, small and readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import IN_A_BROWSER, accessibility_problems, figures_out_of_sight, sideways, unfold
from models import random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.records.verdict import Verdict
from opd_diag.records.vocabulary import Token
from opd_diag.report import Report
from opd_diag.report.figures import Figures
from opd_diag.report.page import report_page
from opd_diag.report.tokens import MOST_BYTES as MOST_OF_TOKENS
from opd_diag.report.tokens import token_view

from .made_up_report import HOSTILE, excerpts_of, made_up_report, rollout
from .strict_html import StrictReader

MOST_BYTES = 5_000_000

UNSEEN = "\u200b\u2060\x07\x1b"
NAMES = (HOSTILE.replace("\ud83d", ""), "a/\"'b", "$x$ --> ]]>")
"""Of checkpoints, as tables can hold them: not with lone surrogates."""


def undefined(out_dir: Path) -> Report:
    made = made_up_report(out_dir)
    tables = made.tables
    for name in ("states", "summary", "concentration", "depth", "differences"):
        table = getattr(tables, name).copy()
        table[table.select_dtypes("float").columns] = float("nan")
        tables = replace(tables, **{name: table})
    return replace(made, tables=tables, provenance={}, excerpts={}, notes=[], verdicts=[], checkpoints=[])


def hostile(out_dir: Path, tokens) -> Report:
    verdict = Verdict(HOSTILE, HOSTILE, "warn", 1.0, 0.5, 1.5, 1.0, HOSTILE, HOSTILE, HOSTILE)
    unseen = {label: [rollout(9, label, UNSEEN)] for label in (HOSTILE, "b", "teacher")}
    return replace(
        made_up_report(out_dir, steps=[None] * 3, labels=NAMES),
        run=HOSTILE,
        verdicts=[verdict],
        notes=[HOSTILE],
        provenance={"command": HOSTILE, "settings": {HOSTILE: HOSTILE}, "models": [{"label": HOSTILE, "path": HOSTILE}],
                    "prompts": {"path": HOSTILE, "n": "many"}, "tokenizer": {"differences": [HOSTILE]}},
        excerpts={label: [*them, *unseen[label]] for label, them in excerpts_of(HOSTILE, "b").items()},
        tokens=tokens,
    )  # fmt: skip


def long_scored():
    """Give every state set of two checkpoints, with responses longer than a page shows."""
    models = [wrapped("qwen3", name=name, seed=i, max_position_embeddings=512) for i, name in enumerate("slt")]
    rollouts = random_rollouts([(4, 200)] * 8)
    for step, model in enumerate(models[:2]):
        for states in ("on-policy", "start", "teacher"):
            scores = score(model, models[2], rollouts, states=states)
            under = {"checkpoint": {"label": f"step {step}", "step": step}}
            yield replace(scores, provenance=scores.provenance | under), rollouts


@pytest.fixture(scope="module")
def long_run():
    return list(long_scored())


@pytest.fixture(scope="module")
def page_of(scored, long_run, tmp_path_factory) -> Callable[[str], Path]:
    """Write the page of a case, once."""
    hostile_tokens = {i: Token((HOSTILE, "x" * 100_000, UNSEEN, "", "\u202e")[i % 5], i % 3 == 0) for i in range(200)}
    wide_tokens = {i: Token(f" {'<&>'[i % 3] * 3}word{i}", i % 9 == 0) for i in range(200)}
    cases: dict[str, Callable[[Path], Report]] = {
        "one checkpoint": lambda out: made_up_report(out, steps=[40]),
        "one prompt": lambda out: made_up_report(out, prompts=1),
        "own states only": lambda out: made_up_report(out, state_sets=["on-policy"]),
        "nothing defined": undefined,
        "hostile texts": lambda out: hostile(out, token_view(scored, hostile_tokens, k=8)),
        "20 checkpoints": lambda out: replace(
            made_up_report(out, steps=range(0, 2000, 100)), tokens=token_view(long_run, wide_tokens, k=8)
        ),
        "200 checkpoints": lambda out: made_up_report(out, steps=range(0, 4000, 20)),
    }
    assert list(cases) == CASES
    written: dict[str, Path] = {}

    def page(case: str) -> Path:
        if case not in written:
            written[case] = cases[case](tmp_path_factory.mktemp("bad")).write()
        return written[case]

    return page


CASES = [
    "one checkpoint", "one prompt", "own states only", "nothing defined", "hostile texts", "20 checkpoints",
    "200 checkpoints",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
class TestEvery:
    def test_is_one_strict_and_small_document(self, page_of, case):
        html = page_of(case).read_text(encoding="utf-8")
        page = StrictReader(html)
        assert len(page.ids) == len(set(page.ids))
        assert [tag for tag, _ in page.tags].count("svg") >= 20
        assert not re.findall(r"\bnan\b", page.text.lower())
        assert "script" not in {tag for tag, _ in page.tags}
        assert len(html.encode()) < MOST_BYTES
        assert {a[1:] for a in page.attributes("href") if a.startswith("#")} <= set(page.ids)


@pytest.mark.parametrize("case", CASES)
class TestEveryInABrowser:
    """No console error, dialog or request: `open_file` sees to it."""

    pytestmark = IN_A_BROWSER

    def test_all_is_in_sight(self, page_of, open_file, case):
        page = open_file(page_of(case), 375)
        unfold(page)
        for width in (375, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert sideways(page) <= 0
            assert figures_out_of_sight(page) == []


class TestNothingDefined:
    def test_it_says_so(self, page_of):
        page = StrictReader(page_of("nothing defined").read_text(encoding="utf-8"))
        assert "Overlap ratio is undefined here: no state defines it." in page.text
        assert "Nothing to compare." in page.text


class TestHostileTexts:
    def test_they_are_shown_and_run_nothing(self, page_of):
        html = page_of("hostile texts").read_text(encoding="utf-8")
        page = StrictReader(html)
        assert "<script" not in html
        assert page.text.count("alert(1)") > 20
        assert "\\u200b\\u2060\\x07\\x1b" in page.text
        assert not set("\x00\x1b\u202e") & set(html)

    @pytest.mark.slow
    @IN_A_BROWSER[1]
    def test_the_page_stays_accessible(self, page_of, open_file):
        page = open_file(page_of("hostile texts"), 375)
        unfold(page)
        assert accessibility_problems(page) == []


class TestLongTokens:
    """Whatever a vocabulary holds, its tokens take a bounded part of the page."""

    @pytest.mark.parametrize("text", ["\u202e" * 48, "'" * 99, "🎉" * 99, "\U000e0001" * 99, "'\u202e\U000e0001" * 30])
    def test_they_take_no_more_of_the_page_than_they_may(self, long_run, tmp_path, text):
        view = token_view(long_run, {i: Token(f"{text}{i}", True) for i in range(200)}, k=8)
        states = [state for group in view.groups for of in group.rollouts for state in of.states]
        page = report_page(replace(made_up_report(tmp_path, steps=[40]), tokens=view), Figures({}, {}, {}, []))
        taken = len(page[page.index('<div class="tokens">') :].encode())
        assert taken < sum(state.n_bytes for state in states) + 20_000 < MOST_OF_TOKENS + 20_000
        assert len(states) > 900
        anchors = {state.anchor for state in states}
        assert {far.anchor for far in view.farthest} <= anchors


class TestTwentyCheckpointsWithTokens:
    def test_the_view_is_as_long_as_it_gets(self, page_of):
        page = StrictReader(page_of("20 checkpoints").read_text(encoding="utf-8"))
        assert [attrs.get("class", "").split()[0:1] for _, attrs in page.tags].count(["t"]) > 1500

    def test_beside_the_longest_view_there_can_be_there_is_room_for_all_else(self, page_of):
        html = page_of("20 checkpoints").read_text(encoding="utf-8")
        start = html.index('<div class="tokens">')
        view = html[start : html.index("</section>", start)]
        assert len(html.encode()) - len(view.encode()) + MOST_OF_TOKENS < MOST_BYTES
