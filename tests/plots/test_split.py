from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from opd_diag.errors import InputError
from opd_diag.plots import change_split
from opd_diag.plots.split import PART_STYLES, WHOLE_STYLE

from .synthetic_run import SyntheticRun


@pytest.fixture(scope="module")
def collapse():
    """Own states improve, the start's get worse; both orders averaged."""
    return SyntheticRun("collapse", state_sets=("on-policy", "start", "teacher", "back"))


def line_named(ax, name):
    return next(line for line in ax.lines if line.get_label() == name)


def drawn(ax) -> None:
    ax.get_figure(root=True).draw_without_rendering()


@pytest.mark.parametrize("metric", ["reverse_kl", "overlap_ratio"])
def test_lines_are_the_values_of_the_table_and_begin_at_nothing(run, metric):
    ax = change_split(run.split, metric)
    rows = run.split[run.split.metric == metric]
    for part, style in {**PART_STYLES, "on_policy_change": WHOLE_STYLE}.items():
        line = line_named(ax, style.name)
        np.testing.assert_allclose(line.get_xdata(), [0, 25, 50, 75, 100])
        np.testing.assert_allclose(line.get_ydata(), [0, *rows[rows.part == part].value])
    drawn(ax)


def test_the_whole_is_the_sum_and_thin(collapse):
    ax = change_split(collapse.split, "reverse_kl")
    policy, state, whole = (
        line_named(ax, s.name) for s in (PART_STYLES["policy_change"], PART_STYLES["state_change"], WHOLE_STYLE)
    )
    np.testing.assert_allclose(policy.get_ydata() + state.get_ydata(), whole.get_ydata())
    assert policy.get_ydata()[-1] > 0 > whole.get_ydata()[-1], "a collapse: worse at equal states, better on its own"
    assert whole.get_linewidth() < min(policy.get_linewidth(), state.get_linewidth())


def test_bands_are_of_the_two_parts(run):
    ax = change_split(run.split, "reverse_kl")
    rows = run.split[(run.split.metric == "reverse_kl") & (run.split.part == "policy_change")]
    assert len(ax.collections) == 2
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(rows.ci_low.min())
    assert corners.max() == pytest.approx(0.0), "at the first checkpoint nothing has changed, without error"


def test_parts_differ_in_colour_marker_and_dashes(run):
    ax = change_split(run.split, "reverse_kl")
    lines = [line_named(ax, s.name) for s in (*PART_STYLES.values(), WHOLE_STYLE)]
    for looks in (lambda line: line.get_color(), lambda line: line.get_marker(), lambda line: line.get_linestyle()):
        assert len({looks(line) for line in lines}) == 3


def test_zero_is_drawn_and_units_are_named(run):
    ax = change_split(run.split, "reverse_kl")
    assert any(np.all(np.asarray(line.get_ydata()) == 0) for line in ax.lines)
    assert ax.get_ylabel() == "change  (nats)"
    assert ax.get_title(loc="left") == "Reverse KL: what changed"
    assert ax.get_xlabel() == "optimiser step"


def test_says_when_both_orders_are_averaged(collapse):
    ax = change_split(collapse.split, "reverse_kl")
    assert ax.get_xlabel() == "optimiser step\nboth orders averaged"
    drawn(ax)
    assert ax.get_legend().get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0


def test_legend_hides_neither_data_nor_labels(run):
    ax = change_split(run.split, "reverse_kl")
    drawn(ax)
    assert ax.get_legend().get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "policy change", "state change", "both together",
    ]  # fmt: skip


def test_one_prompt_has_lines_and_no_band(one_prompt):
    ax = change_split(one_prompt.split, "reverse_kl")
    assert len(ax.lines) == 4
    assert not ax.collections
    drawn(ax)


def test_labels_stand_on_the_axis_when_steps_are_unknown(unknown_steps):
    ax = change_split(unknown_steps.split, "reverse_kl")
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        " _start", r"run \$1\$ 100%", "□□□", "aaaaaaaa…aaaaaaa", "final",
    ]  # fmt: skip
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), range(5))
    drawn(ax)


def test_a_sampled_metric_is_said_to_be_undefined(run):
    ax = change_split(run.split, "sampled_reverse_kl")
    assert "undefined: exists only on states" in ax.texts[0].get_text().replace("\n", " ")
    assert not ax.lines
    drawn(ax)


@pytest.mark.parametrize("metric", ["reverse_kl", "accuracy"])
def test_nothing_to_split_is_said(one_checkpoint, metric):
    ax = change_split(one_checkpoint.split, metric)
    assert "nothing to split" in ax.texts[0].get_text().replace("\n", " ")
    assert not ax.lines
    assert ax.get_legend() is None
    drawn(ax)


def test_draws_on_the_axes_it_is_given_and_refuses_unknown_metrics(run):
    ax = Figure().add_subplot()
    assert change_split(run.split, "entropy_gap", ax=ax) is ax
    with pytest.raises(InputError, match="'overlap'"):
        change_split(run.split, "overlap")
