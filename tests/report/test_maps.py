"""What is said of reverse KL by depth and step, and where a map is drawn."""

from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.report.maps import has_map, map_panel, map_reading


@pytest.fixture
def depth():
    """Two checkpoints on the start's states, two bins of eight positions."""
    cells = ((0, 0, 2.0), (0, 8, 3.0), (9, 0, 0.5), (9, 8, 1.0))
    rows = [(f"step {n}", n, low, low + 8, kl, kl - 0.1, kl + 0.1, 9, 20) for n, low, kl in cells]
    columns = ["label", "step", "depth_low", "depth_high", "value", "ci_low", "ci_high", "n_prompts", "n_rollouts"]
    return pd.DataFrame(rows, columns=columns).assign(metric="reverse_kl", states="start")


def test_where_it_is_highest_and_how_beginning_and_depth_differ(depth):
    """The highest of many has no interval: that of its cell would not be one of a chosen cell."""
    assert map_reading(depth, "start", {}) == (
        "Highest at step 0, positions 8–15: 3.00 nats (9 prompts). At step 9: 0.50 [0.40, 0.60] at "
        "positions 0–7 (20 rollouts), 1.00 [0.90, 1.10] at positions 8–15 (20 rollouts)."
    )


def test_what_rounding_may_have_made_is_marked(depth):
    assert map_reading(depth, "start", {"reverse_kl": 9.0}).startswith("Highest at step 0, positions 8–15: ≈3.00 ")


def test_where_few_prompts_reach_no_place_is_the_highest(depth):
    assert map_reading(depth.assign(n_prompts=4), "start", {}).startswith("At step 9: ")


def test_of_one_checkpoint_or_of_few_prompts_lines_say_more(depth):
    assert has_map(depth, "start")
    assert not has_map(depth, "teacher")
    assert not has_map(depth[depth["label"] == "step 9"], "start")
    assert not has_map(depth.assign(n_prompts=4), "start")


def test_maps_of_one_page_have_one_scale_by_the_square_root(depth, monkeypatch):
    drawn = []
    monkeypatch.setattr("opd_diag.report.maps.plots.metric_heat_map", lambda *_, **how: drawn.append(how))
    monkeypatch.setattr("opd_diag.report.panel.svg_of", lambda _: "")
    panel = map_panel(depth, "start", {}, 7.0)
    assert drawn == [{"states": "start", "limit": 7.0, "root": True}]
    assert (panel.name, panel.term) == ("depth-reverse_kl-start", "reverse_kl")
