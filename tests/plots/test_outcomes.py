"""Pictures of outcomes, on their artists."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opd_diag.plots import item_outcomes, pass_at_k_curves
from opd_diag.plots.outcomes import MOST_GROUPS, OUTCOME_STYLES
from opd_diag.tables.outcomes import ITEM_COLUMNS, PASS_COLUMNS


def passes(*labels, ks=(1, 2, 4)):
    rows = [(of, 0, k, 0.2 * i + 0.1 * k, 0.1, 0.9, False, 9, 36) for i, of in enumerate(labels) for k in ks]
    return pd.DataFrame(rows, columns=PASS_COLUMNS)


def items(*outcomes, groups=None):
    rows = [(i, str(i), None if groups is None else groups[i], 0, 2, 0, 2, o, 1.0) for i, o in enumerate(outcomes)]
    return pd.DataFrame(rows, columns=ITEM_COLUMNS)


class TestPassAtK:
    def test_a_line_a_writer_with_its_interval(self):
        table = passes("step 0", "step 40", "teacher")
        ax = pass_at_k_curves(table, ["step 0", "step 40", "teacher"])
        assert [line.get_label() for line in ax.lines] == ["step 0", "step 40", "teacher"]
        for line, (_, rows) in zip(ax.lines, table.groupby("label", sort=False), strict=True):
            assert np.allclose(line.get_xydata(), rows[["k", "value"]])
        assert len(ax.collections) == 3
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4"]
        assert ax.get_ylim()[0] == 0.0

    def test_one_try_has_whiskers(self):
        ax = pass_at_k_curves(passes("step 0", ks=(1,)), ["step 0"])
        assert ax.collections[0].get_segments()[0][:, 1].tolist() == [0.1, 0.9]

    def test_labels_are_a_users_text(self):
        ax = pass_at_k_curves(passes("run $x$"), ["run $x$"])
        assert ax.lines[0].get_label() == r"run \$x\$"

    def test_nothing_graded(self):
        ax = pass_at_k_curves(passes(), ["step 0"])
        assert ax.texts[0].get_text() == "no response could be graded"


class TestItems:
    def test_one_bar_of_all_prompts(self):
        ax = item_outcomes(items("kept", "kept", "solved", "forgotten", "unsolved", "unsolved"))
        assert [patch.get_width() for patch in ax.patches] == [2, 1, 1, 2]
        assert [patch.get_x() for patch in ax.patches] == [0, 2, 3, 4]
        assert [text.get_text() for text in ax.texts] == ["2", "1", "1", "2"]
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert names == [name for name, _, _ in OUTCOME_STYLES.values()]

    def test_a_bar_a_group(self):
        ax = item_outcomes(items("kept", "solved", "kept", groups=["b", "a", None]))
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["no group", "a", "b"]
        widths = np.array([patch.get_width() for patch in ax.patches]).reshape(4, 3)
        assert widths.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]

    def test_of_many_groups_the_largest(self):
        groups = ["large"] * 3 + [f"g{i:03d}" for i in range(300)]
        ax = item_outcomes(items(*["kept"] * len(groups), groups=groups))
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        assert len(names) == MOST_GROUPS
        assert names[:2] == ["g000", "g001"]
        assert names[-2:] == ["large", "(294 other groups)"]
        assert [patch.get_width() for patch in ax.patches][: len(names)] == [1] * 6 + [3, 294]

    def test_nothing_graded(self):
        ax = item_outcomes(items())
        assert ax.texts[0].get_text() == "no response could be graded"
