from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from opd_diag.errors import InputError
from opd_diag.plots import alignment_grid, has_bands, metric_by_step, quantity
from opd_diag.plots.style import STATE_STYLES
from plots.synthetic_run import SyntheticRun


def line_named(ax, name):
    return next(line for line in ax.lines if line.get_label() == name)


def named(ax):
    """The lines of state sets; a line at 0 has no name."""
    return [line for line in ax.lines if not line.get_label().startswith("_")]


def drawn(ax) -> None:
    """Draw the whole figure, so that warnings while drawing become errors."""
    ax.get_figure(root=True).draw_without_rendering()


def test_a_line_far_above_that_on_own_states_is_seen_whole(run):
    far = run.summary.copy()
    chosen = (far.metric == "reverse_kl") & (far.states == "start")
    far.loc[chosen, ["value", "ci_low", "ci_high"]] += 50
    low, high = metric_by_step(far, "reverse_kl").get_ylim()
    assert low <= 0
    assert high > far.loc[chosen, "ci_high"].max()


@pytest.mark.parametrize("metric", ["overlap_ratio", "reverse_kl", "overlap_token_advantage", "entropy_difference"])
@pytest.mark.parametrize("states", ["on-policy", "start"])
def test_lines_are_the_values_of_the_table(run, metric, states):
    ax = metric_by_step(run.summary, metric)
    rows = run.summary[(run.summary.metric == metric) & (run.summary.states == states)]
    line = line_named(ax, STATE_STYLES[states].name)
    np.testing.assert_allclose(line.get_xdata(), rows.step.astype(float))
    np.testing.assert_allclose(line.get_ydata(), rows.value)
    drawn(ax)


def shades(ax):
    """Highest and lowest end of every shaded area, the widest first, with how dark it is."""
    areas = [of for of in ax.collections if isinstance(of, PolyCollection)]
    ends = [of.get_paths()[0].vertices[:, 1] for of in areas]
    return [(of.min(), of.max(), area.get_alpha()) for of, area in zip(ends, areas, strict=True)]


def test_own_states_are_shaded_twice_the_band_of_the_whole_curve_under_the_interval(run):
    ax = metric_by_step(run.summary, "reverse_kl")
    rows = run.summary[(run.summary.metric == "reverse_kl") & (run.summary.states == "on-policy")]
    band, interval = shades(ax)
    assert band[:2] == pytest.approx((rows.band_low.min(), rows.band_high.max()))
    assert interval[:2] == pytest.approx((rows.ci_low.min(), rows.ci_high.max()))
    assert band[2] < interval[2] < 0.5


def test_the_intervals_of_other_state_sets_are_whiskers_that_stand_apart():
    run = SyntheticRun(state_sets=list(STATE_STYLES))
    ax = metric_by_step(run.summary, "reverse_kl")
    whiskers = [of for of in ax.collections if isinstance(of, LineCollection)]
    assert len(shades(ax)) == 2
    for of, states in zip(whiskers, ("start", "teacher", "back", "near-on-policy"), strict=True):
        rows = run.summary[(run.summary.metric == "reverse_kl") & (run.summary.states == states)]
        expected = rows[["ci_low", "ci_high"]].to_numpy(float)
        np.testing.assert_allclose([segment[:, 1] for segment in of.get_segments()], expected)
    drawn(ax)
    on_screen = [line.get_transform().transform((50.0, 1.0))[0] for line in named(ax)]
    assert np.diff(sorted(on_screen)).min() > 2.0


def test_of_many_checkpoints_nothing_is_a_whisker():
    ax = metric_by_step(SyntheticRun(steps=range(0, 2000, 10)).summary, "entropy_gap")
    assert len(shades(ax)) == 3
    assert len(ax.collections) == 3


def test_state_sets_differ_in_colour_marker_and_dashes(run):
    own, start = named(metric_by_step(run.summary, "overlap_ratio"))
    assert own.get_color() != start.get_color()
    assert own.get_marker() != start.get_marker()
    assert own.get_linestyle() != start.get_linestyle()


@pytest.mark.parametrize(
    ("metric", "low", "high"), [("overlap_ratio", 0, 1), ("reverse_kl", 0, None), ("overlap_token_advantage", None, 0)]
)
def test_axis_keeps_to_the_bounds_of_the_metric(run, metric, low, high):
    bottom, top = metric_by_step(run.summary, metric).get_ylim()
    room = 0.05 * (top - bottom)
    assert low is None or low - room < bottom <= low
    assert high is None or high <= top < high + room


def test_values_far_from_0_that_hardly_vary_are_not_cut_at_the_top(run):
    rows = run.summary[(run.summary["metric"] == "response_length") & (run.summary["states"] == "on-policy")]
    flat = [rows.assign(states=s, value=v, ci_low=v, ci_high=v) for s, v in (("on-policy", 48.0), ("teacher", 41.8))]
    bottom, top = metric_by_step(pd.concat(flat), "response_length").get_ylim()
    assert top - 48.0 > 0.02 * (top - bottom)


def test_all_sets_differ_in_colour_marker_and_dashes():
    from plots.synthetic_run import SyntheticRun

    ax = metric_by_step(SyntheticRun(state_sets=list(STATE_STYLES)).summary, "reverse_kl")
    assert [line.get_label() for line in named(ax)] == [style.name for style in STATE_STYLES.values()]
    for looks in (lambda line: line.get_color(), lambda line: line.get_marker(), lambda line: line.get_linestyle()):
        assert len({looks(line) for line in named(ax)}) == 5
    drawn(ax)


def test_responses_of_the_teacher_stand_beside_the_checkpoints():
    from plots.synthetic_run import SyntheticRun

    ax = metric_by_step(SyntheticRun(state_sets=("on-policy", "start", "teacher")).summary, "unigram_entropy")
    assert [line.get_label() for line in named(ax)] == ["own responses", "teacher's responses"]
    assert len(set(named(ax)[1].get_ydata())) == 1
    drawn(ax)


def test_title_and_unit_come_from_the_catalogue(run):
    ax = metric_by_step(run.summary, "overlap_ratio")
    assert ax.get_title(loc="left") == "Overlap ratio at k = 16"
    assert "(ratio)" in ax.get_ylabel()
    assert quantity("overlap_ratio").symbol in ax.get_ylabel()
    assert ax.get_xlabel() == "optimiser step"


def test_undefined_everywhere_is_said(run):
    ax = metric_by_step(run.summary[run.summary.states == "start"], "sampled_reverse_kl")
    text = " ".join(t.get_text().replace("\n", " ") for t in ax.texts)
    assert text.startswith("undefined: exists only on states that the checkpoint sampled itself")
    assert not ax.collections
    drawn(ax)


def test_a_metric_without_rows_is_undefined(run):
    ax = metric_by_step(run.summary[run.summary.metric != "accuracy"], "accuracy")
    assert "no prompt has a reference answer" in ax.texts[0].get_text().replace("\n", " ")
    drawn(ax)


def test_one_checkpoint_has_points_and_upright_intervals(one_checkpoint):
    ax = metric_by_step(one_checkpoint.summary, "reverse_kl")
    assert [list(line.get_xdata()) for line in ax.lines] == [[40.0], [40.0]]
    assert len(ax.collections) == 2
    assert [t.get_text() for t in ax.get_xticklabels()] == ["40"]
    drawn(ax)


def test_one_prompt_has_no_band(one_prompt):
    ax = metric_by_step(one_prompt.summary, "reverse_kl")
    assert len(named(ax)) == 2
    assert not ax.collections
    drawn(ax)


def test_labels_stand_on_the_axis_when_a_step_is_unknown(unknown_steps):
    ax = metric_by_step(unknown_steps.summary, "reverse_kl")
    assert ax.get_xlabel() == "checkpoint"
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert shown == [" _start", r"run \$1\$ 100%", "□□□", "aaaaaaaa…aaaaaaa", "final"]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), range(5))
    drawn(ax)


def test_many_checkpoints_stay_readable():
    from plots.synthetic_run import SyntheticRun

    ax = metric_by_step(SyntheticRun(steps=range(0, 2000, 10)).summary, "overlap_ratio")
    drawn(ax)
    assert len(ax.get_xticks()) < 12
    assert len(ax.lines[0].get_xdata()) == 200


def test_unknown_metric_is_an_input_error(run):
    with pytest.raises(InputError, match=r"'overlap'.*overlap_ratio.*accuracy"):
        metric_by_step(run.summary, "overlap")


def test_draws_on_the_axes_it_is_given(run):
    ax = Figure().add_subplot()
    assert metric_by_step(run.summary, "reverse_kl", ax=ax) is ax


def test_grid_has_one_panel_a_metric(run):
    figure = alignment_grid(run.summary, ["overlap_ratio", "reverse_kl", "entropy_gap", "top1_agreement"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Overlap ratio at k = 16", "Reverse KL", "Entropy gap", "Top-1 agreement",
    ]  # fmt: skip
    figure.draw_without_rendering()


@pytest.mark.parametrize("which", ["run", "unknown_steps"])
def test_legend_hides_neither_data_nor_labels(which, request):
    ax = metric_by_step(request.getfixturevalue(which).summary, "overlap_ratio")
    drawn(ax)
    assert ax.get_legend().get_window_extent().y1 < min(t.get_window_extent().y0 for t in ax.get_xticklabels())
    assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0
    assert ax.get_legend().get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_legend_says_what_the_lighter_shade_is():
    summary = SyntheticRun().summary
    ax = metric_by_step(summary, "reverse_kl")
    assert legend_of(ax) == ["own states", "start's states", "whole curve, 95 %"]
    handle = ax.get_legend().legend_handles[-1]
    assert (to_hex(handle.get_facecolor()), handle.get_alpha()) == (STATE_STYLES["on-policy"].colour, shades(ax)[0][2])
    assert has_bands(summary)


def test_without_bands_there_is_one_shade_and_no_legend_of_them():
    summary = SyntheticRun().summary
    for bare in (summary.drop(columns=["band_low", "band_high"]), summary.assign(band_low=np.nan, band_high=np.nan)):
        ax = metric_by_step(bare, "reverse_kl")
        assert len(shades(ax)) == 1
        assert legend_of(ax) == ["own states", "start's states"]
        assert not has_bands(bare)
    assert not has_bands(SyntheticRun(steps=[40]).summary)
    assert not has_bands(SyntheticRun(state_sets=["start"]).summary)
