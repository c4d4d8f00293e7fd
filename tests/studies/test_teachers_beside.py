"""The small tables of teachers behind servers: what is known of whom, bounds, and why a cell has no number."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from opd_diag.studies.teachers_beside import FITTED, known_of, side_by_side

NAN = math.nan


def rows_of(name, **metrics):
    return [
        {"teacher": name, "states": "on-policy", "metric": metric} | dict(zip(COLUMNS, of, strict=True))
        for metric, of in metrics.items()
    ]


COLUMNS = ("value", "ci_low", "ci_high", "bound_low", "bound_high")


@pytest.fixture
def cells():
    """By title, the cells of a teacher that is loaded, of a top 20 and of a whole vocabulary."""
    known = (0.5, 0.4, 0.6, NAN, NAN)
    summary = [
        *rows_of("here", reverse_kl=known, teachable_mass=known, shared_gradient_ratio=known),
        *rows_of(
            "part",
            reverse_kl=(NAN, 0.2, math.inf, 0.3, math.inf),
            tail_sampled_reverse_kl=known,
            teachable_mass=(NAN, 0.1, 0.7, 0.2, 0.6),
            shared_gradient_ratio=(NAN, 0.0, 1.0, 0.0, 1.0),
        ),
        *rows_of("whole", reverse_kl=known, teachable_mass=known, shared_gradient_ratio=known),
    ]
    of_fits = {f"{column}{end}": 0.5 for column, _ in FITTED for end in ("", "_ci_low", "_ci_high")}
    tables = {
        "summary": pd.DataFrame(summary),
        "baselines": pd.DataFrame(columns=["metric", "baseline", "states", "value"]),
        "fits": pd.DataFrame([{"teacher": "here", "states": "on-policy"} | of_fits]),
    }
    served = {name: SimpleNamespace(whole=name == "whole", top=20) for name in ("part", "whole")}
    columns, rows = side_by_side(["here", "part", "whole"], tables, "s", served)
    assert columns == ["", "here", "part", "whole", "by chance", "shuffled"]
    return {row[0]: row[1:4] for row in rows}


def test_what_is_known_of_whom_stands_first(cells):
    assert next(iter(cells)) == "What is known of it"
    said = ["all, loaded here", "top 20 of its server", "whole vocabulary of its server"]
    assert cells["What is known of it"] == said
    assert known_of(None) == said[0]


def test_bounds_have_no_brackets(cells):
    known = "0.50 [0.40, 0.60]"
    assert cells["Reverse KL, nats"] == [known, "at least 0.30", known]
    assert cells["Tail-sampled reverse KL, nats"][1] == known, "its estimate stands below it"
    assert [*cells].index("Tail-sampled reverse KL, nats") == [*cells].index("Reverse KL, nats") + 1
    assert cells["Teachable mass"] == [known, "0.20 to 0.60", known]


def test_a_cell_without_a_number_says_why(cells):
    assert cells["Gradient on shared tokens"][1] == "not from its top K", "bounds that are the whole range say nothing"
    for _, title in FITTED:
        assert cells[title] == ["0.50", "not from a server", "not from a server"]


def test_where_all_are_loaded_there_is_no_such_row():
    tables = {
        "summary": pd.DataFrame(rows_of("here", reverse_kl=(0.5, 0.4, 0.6, NAN, NAN))),
        "baselines": pd.DataFrame(columns=["metric", "baseline", "states", "value"]),
        "fits": pd.DataFrame(columns=["teacher", "states"]),
    }
    rows = side_by_side(["here"], tables, "s")[1]
    assert not {"What is known of it", "Tail-sampled reverse KL, nats"} & {row[0] for row in rows}
    assert rows[-1][1] == "–"
