"""The three pictures under the headline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from opd_diag.report import glance as module
from opd_diag.report.glance import glance

from .made_up_report import made_up_report


@pytest.fixture(scope="module")
def tables():
    return made_up_report(Path("unused"), "collapse").tables


def without(tables, *metrics):
    return dataclasses.replace(tables, summary=tables.summary[~tables.summary["metric"].isin(metrics)])


def test_mass_distance_and_what_it_is_good_for_on_every_state_set(tables):
    mass, distance, outcome = glance(tables, k=16)
    assert [mass.term, distance.term, outcome.term] == ["student_overlap_mass", "reverse_kl", "accuracy"]
    assert [panel.name for panel in (mass, distance, outcome)] == [
        "glance-mass",
        "glance-reverse_kl",
        "glance-accuracy",
    ]
    assert distance.reading == (
        "2.10 → 0.31 on own states; 2.10 → 3.00 at the start's states; 2.10 → 3.00 at the teacher's states (nats, "
        "32 prompts)."
    )
    assert mass.reading == (
        "At k = 16: 0.62 → 0.97 on own states; 0.62 → 0.45 at the start's states; 0.62 → 0.45 at the teacher's states "
        "(32 prompts)."
    )


@pytest.mark.parametrize(
    ("left_out", "shown"),
    [(["accuracy"], "forward_kl"), (["accuracy", "forward_kl"], "unigram_entropy")],
)
def test_without_answers_the_third_is_what_else_is_known(tables, left_out, shown):
    assert [panel.term for panel in glance(without(tables, *left_out), k=16)][2:] == [shown]


def test_nothing_of_the_kind_leaves_two(tables):
    assert len(glance(without(tables, *module.OUTCOMES), k=16)) == 2


def test_what_is_undefined_is_not_chosen(tables):
    summary = tables.summary.copy()
    summary.loc[summary["metric"] == "accuracy", "value"] = float("nan")
    assert glance(dataclasses.replace(tables, summary=summary), k=16)[2].term == "forward_kl"


def test_no_checkpoint_no_picture(tables):
    assert glance(dataclasses.replace(tables, summary=tables.summary.iloc[:0]), k=16) == []


def test_they_stand_before_the_sections_and_in_no_file_twice(html, report):
    start = html.index('id="glance"')
    assert html.index('class="headline') < start < html.index('<nav aria-label="Sections"')
    assert html.count('role="img"', start, html.index('<nav aria-label="Sections"')) == 3
    assert sorted(path.name for path in (report.out_dir / "figures").glob("glance-*")) == []
