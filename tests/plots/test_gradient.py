"""Stacked shares of the gradient: heights, whiskers, and what is written where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from opd_diag.plots import gradient_by_step
from opd_diag.plots.gradient import SHARES
from opd_diag.tables.catalogue import METRIC_NAMES

from .synthetic_run import SyntheticRun


def stacks(ax):
    """(shares, checkpoints) bottoms and heights of the bars."""
    bars = [[(bar.get_y(), bar.get_height()) for bar in container] for container in ax.containers]
    return np.array(bars).transpose(2, 0, 1)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_share_of_the_catalogue_is_drawn():
    assert list(SHARES) == [name for name in METRIC_NAMES if name.endswith("gradient_ratio")]


@pytest.mark.parametrize("states", ["on-policy", "start"])
def test_bars_are_the_values_of_the_table_and_make_a_whole(run, states):
    ax = gradient_by_step(run.summary, states=states)
    bottoms, heights = stacks(ax)
    rows = run.summary[run.summary["states"] == states]
    for i, metric in enumerate(SHARES):
        np.testing.assert_allclose(heights[i], rows.loc[rows["metric"] == metric, "value"])
    np.testing.assert_allclose(bottoms[1:], heights.cumsum(0)[:-1])
    np.testing.assert_allclose(heights.sum(0), 1.0)
    assert ax.get_ylim() == (0.0, 1.0)
    ax.get_figure(root=True).draw_without_rendering()


def test_whiskers_are_the_interval_of_the_shared_part(run):
    ax = gradient_by_step(run.summary)
    rows = run.summary[(run.summary["states"] == "on-policy") & (run.summary["metric"] == "shared_gradient_ratio")]
    ends = np.array([path.vertices[:, 1] for path in ax.collections[0].get_paths()])
    np.testing.assert_allclose(ends, rows[["ci_low", "ci_high"]].clip(upper=1.0))


def test_title_axis_and_legend_say_what_it_is(run):
    ax = gradient_by_step(run.summary)
    assert ax.get_title(loc="left") == "Tokens the gradient pushes at k = 16"
    assert ax.get_ylabel() == "share of ‖g‖², own states  (ratio)"
    assert ax.get_xlabel() == "optimiser step"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "25", "50", "75", "100"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["shared", "student-only", "teacher-only", "all other"]
    looks = [(handle.get_facecolor(), handle.get_hatch()) for handle in ax.get_legend().get_patches()]
    assert len({colour for colour, _ in looks}) == len({hatch for _, hatch in looks}) == 4
    assert {"0.78", "0.92", "0.15"} <= set(texts(ax))


def test_many_checkpoints_have_no_numbers_and_few_names():
    ax = gradient_by_step(SyntheticRun(steps=tuple(range(0, 400, 20)), labels=None).summary)
    assert texts(ax) == []
    assert len(ax.get_xticks()) == 6
    assert stacks(ax)[1].shape == (4, 20)


def test_one_checkpoint_and_unknown_steps_are_drawn():
    ax = gradient_by_step(SyntheticRun(steps=(10,)).summary)
    assert stacks(ax)[1].sum() == pytest.approx(1.0)
    ax = gradient_by_step(SyntheticRun(steps=(None, None), labels=["zeta", "alpha"]).summary)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["zeta", "alpha"]
    ax.get_figure(root=True).draw_without_rendering()


def test_a_checkpoint_without_shares_leaves_a_gap(run):
    summary = run.summary.copy()
    gap = summary["metric"].isin(SHARES) & (summary["label"] == "step 50")
    summary.loc[gap, ["value", "ci_low", "ci_high"]] = np.nan
    np.testing.assert_allclose(stacks(gradient_by_step(summary))[1].sum(0), [1, 1, 0, 1, 1])


def test_equal_models_have_no_picture_and_it_says_why(run):
    summary = run.summary.copy()
    summary.loc[summary["metric"].isin(SHARES), ["value", "ci_low", "ci_high"]] = np.nan
    ax = gradient_by_step(summary)
    assert not ax.containers
    assert "the models agree" in " ".join(texts(ax)).replace("\n", " ")
    ax.get_figure(root=True).draw_without_rendering()
