"""The small tables beside the pictures: which cells they have, and where they come from."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from opd_diag.report.grids import DASH, ENDINGS, MOST_LEVELS, baseline_grid, ending_grid, stratum_grids
from opd_diag.tables.baselines import OVERLAPS
from report.made_up_report import made_up_report


def having(report, **tables):
    return dataclasses.replace(report, tables=dataclasses.replace(report.tables, **tables))


def test_overlaps_stand_between_chance_and_agreement(report):
    grid = baseline_grid(report)
    assert grid.title == "Between chance and agreement, own states, k = 16"
    assert grid.head == ("chance", "shuffled teacher", "step 0", "step 100", "other precision")
    assert [line.metric for line in grid.lines] == list(OVERLAPS)
    assert grid.lines[0].cells == ("0.030", "0.25 [0.23, 0.27]", "0.34 [0.30, 0.38]", "0.74 [0.69, 0.79]", "1.00")


def test_baselines_that_were_not_made_have_no_column(report):
    table = report.tables.baselines
    assert (
        "other precision"
        not in baseline_grid(having(report, baselines=table[table["baseline"] != "other precision"])).head
    )
    assert baseline_grid(having(report, baselines=pd.DataFrame())) is None
    elsewhere = baseline_grid(having(report, baselines=table[table["states"] != "on-policy"]))
    assert "the start's states" in elsewhere.title


def test_one_checkpoint_stands_once(tmp_path):
    assert baseline_grid(made_up_report(tmp_path, steps=[40])).head[2:-1] == ("step 40",)


def test_strata_are_of_the_primary_metrics_and_the_largest_groups(report):
    correct, group = stratum_grids(report)
    assert correct.title == "By correctness of the response, own states of step 100"
    assert correct.head == ("wrong (21 responses)", "correct (20 responses)")
    assert [line.metric for line in correct.lines] == ["overlap_ratio", "reverse_kl"]
    assert correct.lines[0].cells == ("0.11 [0.05, 0.30]", "0.10 [0.05, 0.30]")
    assert len(group.head) == MOST_LEVELS
    assert group.head[0] == "g7 (29 responses)"
    assert group.title.endswith(f", the largest {MOST_LEVELS} of 8")


def test_unknown_strata_have_no_table(report):
    assert stratum_grids(having(report, strata=pd.DataFrame())) == []
    only = report.tables.strata[report.tables.strata["by"] == "group"]
    assert [g.title.split(",")[0] for g in stratum_grids(having(report, strata=only))] == ["By group of the prompt"]


def test_responses_end_and_repeat(report):
    grid = ending_grid(report)
    assert [line.metric for line in grid.lines] == list(ENDINGS)
    assert grid.head == ("step 0", "step 100", "teacher's responses")
    lines = {line.metric: line.cells for line in grid.lines}
    assert lines["teacher_stop_probability_at_stops"][:2] == ("0.33 [0.29, 0.37]", "0.91 [0.85, 0.97]")
    assert lines["compression_ratio"][2] == "2.20 [2.10, 2.30]"


def test_what_nobody_knows_of_responses_is_left_out(report):
    summary = report.tables.summary
    known = ending_grid(having(report, summary=summary[summary["metric"] != "cycle_ratio"]))
    assert "cycle_ratio" not in [line.metric for line in known.lines]
    assert all({*line.cells} != {DASH} for line in known.lines)
    assert ending_grid(having(report, summary=summary[~summary["metric"].isin(ENDINGS)])) is None


@pytest.mark.parametrize("prompts", [12, 32])
def test_rough_intervals_are_marked(tmp_path, prompts):
    cells = [cell for line in ending_grid(made_up_report(tmp_path, prompts=prompts)).lines for cell in line.cells]
    marked = [cell for cell in cells if "~[" in cell]
    assert len(marked) == (sum("[" in cell for cell in cells) if prompts < 20 else 0)
