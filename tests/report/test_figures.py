"""Which pictures a page has, and what they are called."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from opd_diag.report import figures, panel
from opd_diag.report.figures import draw_figures
from opd_diag.report.maps import map_name
from opd_diag.report.tails import tail_name

from .made_up_report import made_up_report


@pytest.fixture(scope="module")
def drawn():
    report = made_up_report(Path("unused"))
    return draw_figures(report.tables, k=16)


def test_panels_have_names_of_their_own_and_a_sentence_each(drawn):
    panels = list(drawn.panels())
    assert len({panel.name for panel in panels}) == len(panels) > 30
    assert all(panel.reading.endswith(".") and panel.svg.startswith("<?xml") for panel in panels)


def test_reverse_kl_by_depth_is_a_map_and_its_tail_a_picture_on_each_set(drawn):
    """Their names are those that the token view has links for."""
    sets = ("on-policy", "start", "teacher")
    maps = [panel for panels in drawn.depth.values() for panel in panels if panel.name in map(map_name, sets)]
    assert [panel.reading.split(",")[0] for panel in maps] == ["Highest at step 0"] * 3
    assert [panel.name for panel in drawn.tails] == [tail_name(states) for states in sets]
    assert {panel.term for panel in drawn.tails} == {"farthest"}
    assert all(panel.reading.startswith("At step 100 half of the states lie at") for panel in drawn.tails)


def test_the_gradient_has_a_picture_on_each_state_set(drawn):
    row = drawn.alignment["Where the gradient is"]
    assert [panel.name for panel in row] == ["gradient-on-policy", "gradient-start", "gradient-teacher"]
    assert {panel.term for panel in row} == {"shared_gradient_ratio"}
    assert all(panel.reading.startswith("Of the gradient's squared length, shared tokens get") for panel in row)
    assert len({panel.svg for panel in row}) == 3


def test_what_only_the_trainer_has_a_panel_for_gets_one(drawn, monkeypatch):
    assert drawn.alignment[figures.LOGGED] == []
    tables = made_up_report(Path("unused")).tables
    monkeypatch.setattr(panel, "svg_of", lambda _: "")
    logged = tables.logged.assign(metric=tables.logged["metric"].replace("response_length", "teacher_topk_mass"))
    row = draw_figures(dataclasses.replace(tables, logged=logged), k=16).alignment[figures.LOGGED]
    assert [panel.name for panel in row] == ["alignment-teacher_topk_mass"]
    assert figures.LOGGED in figures.INTRODUCTIONS


def test_positions_that_few_responses_reach_do_not_set_the_scale(monkeypatch):
    """Unless there are no others: then they are all there is to see."""
    drawn = []
    monkeypatch.setattr(figures.plots, "metric_by_depth", lambda depth, *_, **__: drawn.append(depth))
    monkeypatch.setattr(panel, "svg_of", lambda _: "")
    depth = made_up_report(Path("unused")).tables.depth
    few = depth.assign(n_rollouts=figures.FEWEST_ROLLOUTS - 1)
    late = depth["depth_low"] == depth["depth_low"].max()
    list(figures._depth(depth.assign(n_rollouts=depth["n_rollouts"].mask(late, 1)), "start", {}, False))
    assert drawn[0]["n_rollouts"].min() >= figures.FEWEST_ROLLOUTS
    assert len(drawn[0]) < len(depth)
    list(figures._depth(few, "start", {}, False))
    assert len(drawn[-1]) == len(depth)
