"""What the page says of the trainer's log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from opd_diag.report.logged import LoggedLine, drawn_only_here, logged_lines
from opd_diag.runs.logged.reading import OVERRIDDEN
from opd_diag.tables.logged import LOGGED_COLUMNS

from .made_up_report import made_up_report


@pytest.fixture(scope="module")
def made():
    return made_up_report(Path("unused"))


def with_log(report, *rows):
    logged = pd.DataFrame(rows, columns=LOGGED_COLUMNS).astype({"step": "Int64"})
    return replace(report, tables=replace(report.tables, logged=logged))


def test_without_a_log_nothing_is_said(made):
    assert logged_lines(with_log(made)) is None


def test_what_is_drawn_comes_first_then_what_looks_as_if_it_were_the_same(made):
    table = logged_lines(made)
    assert [line.metric for line in table.lines] == ["reverse_kl", "response_length", ""]
    assert table.others == 1
    assert table.drawn


def test_a_line_says_where_it_stands_and_what_differs(made):
    report = with_log(
        made,
        (5, "reverse_kl", 0.5, "loss", "checkpoint-20/trainer_state.json", "At another temperature."),
        (10, "reverse_kl", float("nan"), "loss", "checkpoint-20/trainer_state.json", "At another temperature."),
        (15, "reverse_kl", 0.25, "loss", "trainer_state.json", f"At another temperature. {OVERRIDDEN}"),
    )
    assert logged_lines(report).lines == (
        LoggedLine(
            "reverse_kl",
            "loss",
            "2 points, steps 5 to 15: 0.500 → 0.250; 1 undefined",
            "checkpoint-20/trainer_state.json and 1 more file",
            "At another temperature.",
        ),
    )


@pytest.mark.parametrize(
    ("values", "points"),
    [([0.5], "1 point, step 5: 0.500"), ([float("nan")] * 2, "2 undefined")],
)
def test_few_points(made, values, points):
    report = with_log(made, *((5 * (i + 1), "reverse_kl", v, "loss", "s", "") for i, v in enumerate(values)))
    assert logged_lines(report).lines[0].points == points


def test_checkpoints_without_steps_draw_nothing(made):
    summary = made.tables.summary.assign(step=pd.NA)
    assert not logged_lines(replace(made, tables=replace(made.tables, summary=summary))).drawn


def test_metrics_that_no_group_of_pictures_has(made):
    logged = made.tables.logged
    assert drawn_only_here(logged, {"a": ("reverse_kl",)}) == ("response_length",)
    assert drawn_only_here(logged, {"a": ("reverse_kl",), "b": ("response_length",)}) == ()
    assert drawn_only_here(logged.assign(value=float("nan")), {}) == ()


def test_the_page_shows_it_escaped(html):
    assert '<h3 id="logged">What the trainer logged</h3>' in html
    assert "The thin grey lines above are these numbers" in html
    assert "1 more name of its log means none of our quantities" in html
    assert "not drawn" in html
    assert "<script>alert(1)</script>" not in html
    assert html.count("Not one of ours.") == 1
    assert 'Thin grey lines are <a href="#logged">' in html
