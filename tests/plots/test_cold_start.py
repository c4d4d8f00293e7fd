"""Pictures of a cold start, on their artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots import distance_by_part, shared_mass_by_states
from opd_diag.plots.cold_start import MASSES, STYLES


def summary(*labels, sets=("on-policy", "start", "teacher"), missing=None):
    ends = {"ci_low": 0.1, "ci_high": 0.95}
    rows = [
        {"label": label, "states": states, "metric": metric, "value": 0.2 * (i + 1) + 0.05 * j} | ends
        for i, label in enumerate(labels)
        for states in sets
        for j, metric in enumerate((*MASSES, "reverse_kl"))
        if (label, states) != missing
    ]
    return pd.DataFrame(rows, columns=["label", "states", "metric", "value", "ci_low", "ci_high"])


def distance(**parts):
    rows = [
        (label, part, value, value - 1, value + 1)
        for label, values in parts.items()
        for part, value in zip(("whole", "opening", "end", "middle"), values, strict=True)
    ]
    columns = ["label", "part", "per_response", "per_response_ci_low", "per_response_ci_high"]
    return pd.DataFrame(rows, columns=columns)


class TestMasses:
    def test_a_dot_a_student_with_its_interval(self):
        ax = shared_mass_by_states(summary("step 0", "cold start"), ["step 0", "cold start"], least=0.9)
        dots = [line for line in ax.lines if line.get_label() in ("step 0", "cold start")]
        assert [line.get_xdata().tolist() for line in dots] == [[0.2, 0.25] * 3, [0.4, 0.45] * 3]
        places = [np.asarray(line.get_ydata()) for line in dots]
        assert np.allclose(places[1] - places[0], 2 * STYLES[1].shift)
        assert np.allclose(np.mean(places, axis=0), range(6))
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        assert names[:2] == ["own states:\nstudent", "own states:\nteacher"]
        assert len(ax.collections) == 12
        assert {tuple(c.get_segments()[0][:, 0]) for c in ax.collections} == {(0.1, 0.95)}
        assert [line.get_xdata() for line in ax.lines if line.get_linestyle() == ":"] == [[0.9, 0.9]]

    def test_one_student_stands_on_the_line(self):
        ax = shared_mass_by_states(summary("step 0"), ["step 0"])
        [line] = ax.lines
        assert list(line.get_ydata()) == list(range(4))
        assert not any("start" in tick.get_text() for tick in ax.get_yticklabels())  # they are its own

    def test_sets_that_were_not_scored_have_no_line(self):
        ax = shared_mass_by_states(summary("step 0", sets=("on-policy",)), ["step 0"])
        assert len(ax.get_yticklabels()) == 2

    def test_what_one_student_lacks_is_missing_alone(self):
        table = summary("step 0", "cold start", missing=("step 0", "start"))
        ax = shared_mass_by_states(table, ["step 0", "cold start"])
        assert [len(line.get_xdata()) for line in ax.lines] == [4, 6]

    def test_labels_are_a_users_text(self):
        assert shared_mass_by_states(summary("run $x$"), ["run $x$"]).lines[0].get_label() == r"run \$x\$"

    def test_nothing_scored(self):
        assert shared_mass_by_states(summary(), ["step 0"]).texts[0].get_text() == "no state was scored"


class TestDistance:
    def test_parts_are_stacked(self):
        table = distance(first=(10.0, 4.0, 1.0, 5.0), second=(3.0, 1.0, 0.0, 2.0))
        ax = distance_by_part(table, ["first", "second"])
        bars = [(patch.get_x(), patch.get_width()) for patch in ax.patches]
        assert bars == [(0, 4), (0, 1), (4, 5), (1, 2), (9, 1), (3, 0)]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first", "second"]
        assert [s[:, 0].tolist() for s in ax.collections[0].get_segments()] == [[9.0, 11.0], [2.0, 4.0]]
        assert ax.get_xlabel() == "forward KL  (nats a response)"

    def test_each_part_is_named_once(self):
        ax = distance_by_part(distance(first=(10.0, 4.0, 1.0, 5.0)), ["first"])
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["opening", "middle", "stop token"]

    @pytest.mark.parametrize("values", [(0.0,) * 4, (np.nan,) * 4])
    def test_no_distance(self, values):
        ax = distance_by_part(distance(first=values), ["first"])
        assert ax.texts[0].get_text() == "no distance was measured"

    def test_nothing_measured(self):
        assert distance_by_part(distance(), ["first"]).texts[0].get_text() == "no distance was measured"
