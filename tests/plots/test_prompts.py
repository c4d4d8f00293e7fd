"""Pictures of prompts, on their artists."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opd_diag.plots import prompt_selection, prompts_by_quantity
from opd_diag.plots.prompts import OUTCOME_STYLES, SET_STYLES

PROMPTS = pd.DataFrame(
    {
        "student_overlap_mass": [0.9, 0.8, 0.7, 0.6, math.nan],
        "student_entropy": [0.5, 0.1, 0.6, 0.7, 0.4],
        "outcome": ["top", "low entropy", "drawn", "lower", "not ranked"],
    }
)


class TestSelection:
    def test_every_ranked_prompt_stands_at_its_numbers(self):
        ax = prompt_selection(PROMPTS, "student_overlap_mass", 0.2)
        drawn = {c.get_label(): c.get_offsets().tolist() for c in ax.collections}
        assert drawn == {
            "left out: lower (1)": [[0.6, 0.7]],
            "left out: entropy (1)": [[0.8, 0.1]],
            "chosen: first in rank (1)": [[0.9, 0.5]],
            "chosen: from the rest (1)": [[0.7, 0.6]],
        }
        assert ax.get_xlabel() == "Student overlap mass  (probability)"
        assert ax.lines[0].get_ydata()[0] == 0.2

    def test_outcomes_differ_in_shape_too(self):
        assert len({style[2] for style in OUTCOME_STYLES.values()}) == len(OUTCOME_STYLES)

    def test_quantities_that_no_report_has_are_called_by_name(self):
        ax = prompt_selection(PROMPTS.assign(teacher_lead=0.5), "teacher_lead", math.nan)
        assert ax.get_xlabel() == "Teacher's lead  (difference in accuracy)"
        assert not ax.lines

    def test_nothing_ranked(self):
        ax = prompt_selection(PROMPTS.assign(outcome="not ranked"), "student_overlap_mass", 0.2)
        assert ax.texts[0].get_text() == "no prompt can be ranked"


class TestSets:
    def test_a_curve_a_set_over_its_sorted_prompts(self):
        two = PROMPTS.assign(student_overlap_mass=[0.1, 0.2, 0.3, 0.4, 0.5])
        ax = prompts_by_quantity({"own": PROMPTS, "new $": two}, "student_overlap_mass")
        first, second = (line.get_xydata() for line in ax.lines)
        assert np.allclose(first, [[0.6, 0.25], [0.7, 0.5], [0.8, 0.75], [0.9, 1.0]])
        assert np.allclose(second[:, 0], [0.1, 0.2, 0.3, 0.4, 0.5])
        assert [line.get_label() for line in ax.lines] == ["own (4)", r"new \$ (5)"]
        assert len({(s.colour, str(s.dashes)) for s in SET_STYLES}) == len(SET_STYLES)

    def test_undefined_everywhere(self):
        ax = prompts_by_quantity({"own": PROMPTS.assign(accuracy=math.nan)}, "accuracy")
        assert ax.texts[0].get_text() == "undefined on every prompt"
