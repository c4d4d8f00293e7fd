"""The trainer's own curve behind the replayed ones: its own steps, its own values, and no say over the axis."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots import metric_by_step, metric_with_split
from opd_diag.plots.logged import LOGGED_NAME, MOST_POINTS, trainer_curve
from opd_diag.plots.style import checkpoints_of, new_axes
from opd_diag.tables.logged import LOGGED_COLUMNS


def log(steps, values, metric="reverse_kl", key="loss"):
    rows = [(step, metric, value, key, "trainer_state.json", "") for step, value in zip(steps, values, strict=True)]
    return pd.DataFrame(rows, columns=LOGGED_COLUMNS).astype({"step": "Int64"})


def curves(ax):
    return [line for line in ax.lines if line.get_label().startswith(LOGGED_NAME)]


def drawn(ax) -> None:
    ax.get_figure(root=True).draw_without_rendering()


def test_it_is_drawn_at_its_own_steps(run):
    ax = metric_by_step(run.summary, "reverse_kl", logged=log([5, 15, 25], [0.5, 0.25, 0.125]))
    (line,) = curves(ax)
    assert list(line.get_xdata()) == [5, 15, 25]
    assert list(line.get_ydata()) == [0.5, 0.25, 0.125]
    assert LOGGED_NAME in [text.get_text() for text in ax.get_legend().get_texts()]
    drawn(ax)


def test_it_lies_behind_the_replayed_curves(run):
    ax = metric_by_step(run.summary, "reverse_kl", logged=log([5, 15], [0.5, 0.25]))
    (line,) = curves(ax)
    assert all(line.get_zorder() < other.get_zorder() for other in ax.lines if other.get_label() == "own states")
    assert all(line.get_linewidth() < other.get_linewidth() for other in ax.lines if other is not line)


@pytest.mark.parametrize(
    "logged",
    [
        None,
        log([], []),
        log([5, 10], [0.5, 0.25], metric="student_entropy"),
        log([5, 10], [np.nan, np.nan]),
        log([10_000, 20_000], [0.5, 0.25]),
        pd.DataFrame(columns=LOGGED_COLUMNS),
    ],
    ids=["none", "empty", "another metric", "undefined", "after the last checkpoint", "as made"],
)
def test_where_there_is_nothing_of_it_the_picture_is_as_before(run, logged):
    ax, before = metric_by_step(run.summary, "reverse_kl", logged=logged), metric_by_step(run.summary, "reverse_kl")
    assert curves(ax) == []
    assert ax.get_ylim() == before.get_ylim()
    assert len(ax.get_legend().get_texts()) == len(before.get_legend().get_texts())


def test_checkpoints_without_steps_have_no_place_for_it(unknown_steps):
    ax = metric_by_step(unknown_steps.summary, "reverse_kl", logged=log([1, 2], [0.5, 0.25]))
    assert curves(ax) == []
    assert not trainer_curve(new_axes(), log([1], [0.5]), "reverse_kl", checkpoints_of(unknown_steps.summary))


def test_only_what_lies_between_the_checkpoints_is_drawn(run):
    first, last = min(run.steps), max(run.steps)
    ax = metric_by_step(run.summary, "reverse_kl", logged=log([first, last, last + 5], [0.5, 0.25, 9e9]))
    assert list(curves(ax)[0].get_xdata()) == [first, last]
    assert ax.get_ylim()[1] < 1e3


def test_a_spike_of_one_batch_does_not_set_the_axis():
    checkpoints = pd.DataFrame({"label": ["a", "b"], "step": [0, 199]})
    values = np.tile([0.25, 0.5], 100)
    tops = []
    for spike in (0.5, 1e6):
        values[101], ax = spike, new_axes()
        assert trainer_curve(ax, log(range(200), values), "reverse_kl", checkpoints)
        tops.append(ax.get_ylim()[1])
    assert tops[0] == tops[1] == pytest.approx(0.5, abs=0.02)


def test_but_what_is_high_throughout_does(run):
    high = 10 * run.summary.loc[run.summary["metric"] == "reverse_kl", "value"].max()
    ax = metric_by_step(run.summary, "reverse_kl", logged=log(run.steps, [high] * len(run.steps)))
    assert ax.get_ylim()[1] > high


def test_of_a_long_log_as_many_points_as_can_be_seen():
    checkpoints = pd.DataFrame({"label": ["a", "b"], "step": [0, 5000]})
    ax = new_axes()
    assert trainer_curve(ax, log(range(5001), [0.5] * 5001), "reverse_kl", checkpoints)
    (line,) = curves(ax)
    assert len(line.get_xdata()) == MOST_POINTS
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 5000)
    assert line.get_label() == "as the trainer logged it, 200 of 5,001 points"


def test_a_quantity_that_is_undefined_here_shows_what_was_logged(run):
    nothing = run.summary.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, band_low=np.nan, band_high=np.nan)
    ax = metric_by_step(nothing, "sampled_reverse_kl", logged=log([5, 10], [0.5, 0.25], metric="sampled_reverse_kl"))
    assert len(curves(ax)) == 1
    assert not [text for text in ax.texts if "undefined" in text.get_text()]
    drawn(ax)


def test_it_stands_over_the_split_too(run):
    figure = metric_with_split(run.summary, run.split, "reverse_kl", logged=log([5, 15], [0.5, 0.25]))
    above, below = figure.axes
    assert len(curves(above)) == 1
    assert curves(below) == []
    figure.draw_without_rendering()
