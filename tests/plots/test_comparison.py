"""Several runs in one picture, on its artists."""

from __future__ import annotations

import pandas as pd

from opd_diag.plots import runs_by_step
from opd_diag.plots.comparison import RUN_STYLES


def summary(*values, metric="reverse_kl", step=20):
    rows = [
        {"step": i * step, "label": f"step {i * step}", "states": "on-policy", "metric": metric}
        | {"value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for i, v in enumerate(values)
    ]
    return pd.DataFrame(rows).astype({"step": "Int64"})


def test_a_line_a_run_on_the_same_axes():
    ax = runs_by_step({"one $": summary(1.0, 0.5), "two": summary(1.0, 0.9, 0.8, step=10)}, "reverse_kl")
    assert [line.get_label() for line in ax.lines] == [r"one \$", "two"]
    assert ax.lines[0].get_xydata().tolist() == [[0, 1.0], [20, 0.5]]
    assert ax.lines[1].get_xydata().tolist() == [[0, 1.0], [10, 0.9], [20, 0.8]]
    ends = ax.collections[0].get_segments()[0][:, 1].tolist()
    assert ends == [0.9, 1.1]
    low, high = ax.get_ylim()
    assert low < 0.4
    assert high > 1.1


def test_runs_look_different_without_colour():
    assert len({(style.marker, style.dashes) for style in RUN_STYLES}) == len(RUN_STYLES)


def test_checkpoints_without_steps_stand_in_order():
    table = summary(1.0, 0.5).assign(step=pd.array([0, None], dtype="Int64"))
    assert runs_by_step({"one": table}, "reverse_kl").lines[0].get_xdata().tolist() == [0, 1]


def test_a_metric_that_no_run_has():
    ax = runs_by_step({"one": summary(1.0)}, "overlap_ratio")
    assert not ax.lines
    assert ax.texts[0].get_text().startswith("undefined")
