"""What the page of teachers shows, from tables made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.studies.teachers_beside import FITTED, ROWS, pairs_beside, side_by_side
from opd_diag.studies.teachers_shown import (
    conditions,
    conditions_reading,
    headline_of,
)
from opd_diag.tables.baselines import CHANCE, SHUFFLED
from opd_diag.tables.teachers import DISTANCE_COLUMNS

NAN = math.nan


def summary(**masses):
    rows = [
        {"teacher": name, "states": states, "metric": metric, "value": value, "ci_low": value - 0.1, "ci_high": value}
        for name, of in masses.items()
        for metric, value in zip(("student_overlap_mass", "teacher_overlap_mass"), of, strict=True)
        for states in ("on-policy", "teacher")
    ]
    return pd.DataFrame(rows)


def tables():
    fits = pd.DataFrame(
        [
            {"teacher": "a", "states": "on-policy"}
            | {f"{column}{end}": 0.5 for column, _ in FITTED for end in ("", "_ci_low", "_ci_high")}
        ]
    )
    rows = [
        {"metric": "overlap_ratio", "baseline": of, "states": "on-policy", "value": value}
        for of, value in ((CHANCE, 0.03), (CHANCE, 0.03), (SHUFFLED, 0.2), (SHUFFLED, 0.3))
    ]
    return {"summary": summary(a=(0.9, 0.8), b=(0.5, 0.6)), "baselines": pd.DataFrame(rows), "fits": fits}


def test_one_quantity_a_row_and_what_is_not_known_is_a_dash():
    columns, rows = side_by_side(["a", "b"], tables(), "s")
    assert columns == ["", "a", "b", "by chance", "shuffled"]
    assert len(rows) == len(ROWS) + len(FITTED)
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["Overlap ratio"] == ["–", "–", "0.030", "0.200 to 0.300"]
    assert by_name["Student overlap mass"][:2] == ["0.90 [0.80, 0.90]", "0.50 [0.40, 0.50]"]
    assert by_name["Gradient coherence"] == ["0.50", "–", "–", "–"]


def test_what_is_solved_stands_below():
    passes = pd.DataFrame(
        [
            {"label": label, "k": k, "value": value, "ci_low": NAN, "ci_high": NAN}
            for label, value in (("s", 0.25), ("a", 0.5), ("b", 0.75))
            for k in (1, 4)
        ]
    )
    items = pd.DataFrame({"teacher": ["a", "a", "a"], "first_correct": [0, 0, 1], "last_correct": [1, 0, 4]})
    rows = side_by_side(["a", "b"], tables() | {"pass_at_k": passes, "items": items}, "s")[1][-3:]
    assert rows[0] == ["pass@1 (the student's 0.25)", "0.50", "0.75", "–", "–"]
    assert rows[1][0] == "pass@4 (the student's 0.25)"
    assert rows[2] == ["Prompts it solves and the student does not, 4 tries", "1 of 3", "–", "–", "–"]


def test_the_lower_mass_counts_and_an_unknown_lead_is_none():
    placed = conditions(tables()["summary"], {"a": None, "b": stats.Estimate(0.2, 0.1, 0.3, 0.05, 9, 9, 0)})
    assert placed["mass"].tolist() == [0.8, 0.5]
    assert placed["mass_ci_low"].tolist() == pytest.approx([0.7, 0.4])
    assert placed["lead"].tolist()[1] == 0.2
    assert math.isnan(placed["lead"].tolist()[0])


def test_pairs_alone():
    rest = (0.8, 0.7, 0.9, 0.5, 0.4, 0.6, 0.02, *[NAN] * 4, 9, 9)
    rows = [
        ("s", "a", 1.0, 0.9, 1.1, *[NAN] * 14, 9, 9),
        ("a", "b", 1.0, 0.9, 1.1, 2.0, 1.9, 2.1, *rest),
        ("a", "c", *[NAN] * 6, *rest),
    ]
    columns, cells = pairs_beside(pd.DataFrame(rows, columns=DISTANCE_COLUMNS))
    assert len(columns) == 6
    alike = ["0.80 [0.70, 0.90]", "0.50 [0.40, 0.60]", "0.020"]
    assert cells == [
        ["a, b", "1.00 [0.90, 1.10]", "2.00 [1.90, 2.10]", *alike],
        ["a, c", "not from a server", "not from a server", *alike],
    ]


class Said:
    """A verdict of which only status and name count."""

    def __init__(self, name, status):
        self.name, self.status = name, status


@pytest.mark.parametrize(
    ("answers", "headline", "status"),
    [
        ({"before": "fail", "a": "pass"}, "Would not pull the student back: a", "pass"),
        ({"before": "fail", "a": "fail", "b": "pass"}, "Would pull the student back: a", "fail"),
        ({"before": "fail", "a": "pass", "b": "unknown"}, "Not established who would pull the student back", "unknown"),
        ({"before": "fail"}, "Would pull the student back: before", "fail"),
    ],
)
def test_headline_of_reverse_distillation(answers, headline, status):
    verdicts = [Said(f"pulled_back[{name}]", answer) for name, answer in answers.items()]
    assert headline_of(list(answers), verdicts) == (headline, status)


def test_upper_right_are_those_whose_verdicts_pass():
    placed = pd.DataFrame({"teacher": ["a", "b"], "lead": [0.2, 0.2]})
    rules = ("patterns_compatible", "new_capability")
    judged = {name: {rule: Said(rule, of) for rule in rules} for name, of in (("a", "pass"), ("b", "unknown"))}
    assert conditions_reading(placed, judged) == "Upper right is who fits and leads; established of a, of 2."
    assert conditions_reading(placed.assign(lead=NAN), judged).startswith("Without answers")
