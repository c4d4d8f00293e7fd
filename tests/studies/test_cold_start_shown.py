"""What the page of a cold start shows: cells as people read them, and a sentence under each picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from tables.test_distance import tables as teacher_states
from verdicts.synthetic import run

from opd_diag.studies.cold_start_shown import (
    MOST_TOKENS,
    distance_shown,
    left_out_of,
    pair_shown,
    pictures_of,
    tokens_shown,
)
from opd_diag.tables.distance import distance_table
from opd_diag.verdicts import DEFAULTS


def two_students(**more):
    return run(checkpoints=2, **more)


LABELS = ["step 0", "step 10"]


class TestPair:
    def test_a_row_a_quantity_a_column_a_student(self):
        shown = pair_shown(two_students(), LABELS)
        assert list(shown.columns) == ["", "step 0", "step 10", "by chance", "shuffled teacher"]
        rows = {row[0]: row[1:] for row in shown.rows}
        assert rows["Overlap ratio"] == ["0.40 [0.39, 0.41]", "0.70 [0.69, 0.71]", "0.03", "0.12"]
        assert "Tail-sampled reverse KL" not in rows, "which is for what a server leaves open"
        assert rows["Reverse KL"] == ["1.00 [0.99, 1.01]", "0.30 [0.29, 0.31]", "–", "–"]

    def test_what_was_not_measured_is_a_dash(self):
        tables = replace(two_students(), baselines=pd.DataFrame(columns=two_students().baselines.columns))
        rows = {row[0]: row[1:] for row in pair_shown(tables, ["step 0"]).rows}
        assert rows["Overlap ratio"][1:] == ["–", "–"]


class TestDistance:
    def test_parts_of_each_student(self):
        distance = distance_table(*teacher_states(labels=LABELS))
        first, second = distance_shown(two_students(), distance, LABELS)
        assert second.title == "Distance at the teacher's states, step 10"
        assert [row[0] for row in first.rows] == ["all of it", "opening", "stop token", "middle"]
        assert [row[3] for row in first.rows] == ["100 %", "73 %", "9 %", "18 %"]
        assert [row[4] for row in first.rows] == [row[3] for row in first.rows]  # as every token costs one nat
        assert first.reading == (
            "Forward KL, what supervised fine-tuning on the teacher's responses lowers. The opening is the first 8 "
            "tokens."
        )

    def test_states_without_a_distance_are_told_of_each_student(self):
        kl = lambda label, p, i, t: math.inf if (label, p, t) == ("step 10", 0, 9) else 1.0  # noqa: E731
        states, _ = teacher_states(kl, labels=LABELS)
        assert left_out_of(states) == (
            "step 10: 2 of the 132 states of the teacher are left out of the distance. It is infinite there, as the "
            "student rules out a token that the teacher may write.",
        )

    def test_a_part_without_tokens_has_no_row(self):
        distance = distance_table(*teacher_states(labels=["step 0"], stop_reason="length"))
        [shown] = distance_shown(two_students(), distance, ["step 0"])
        assert [row[0] for row in shown.rows] == ["all of it", "opening", "middle"]

    def test_what_temperature_alone_would_take_away(self):
        tables = two_students(temperature=(0.7,), share=0.25)
        distance = distance_table(*teacher_states(labels=["step 0"]))
        [shown] = distance_shown(replace(tables, fits=tables.fits.assign(states="teacher")), distance, ["step 0"])
        assert shown.reading.endswith(
            "Another temperature of the student (0.70) would by itself take away 25 % of the reverse KL there."
        )


class TestTokens:
    def test_those_with_the_largest_share(self):
        rows = [("step 0", i, f" t{i}", 5, 1.0, 0.1) for i in range(12)]
        table = pd.DataFrame(rows, columns=["label", "token_id", "token", "n_states", "value", "share"])
        (shown,) = tokens_shown(table, ["step 0"])
        assert [row[0] for row in shown.rows] == [f"' t{i}'" for i in range(MOST_TOKENS)]
        assert shown.rows[0][1:] == ["5", "1.00", "10 %"]


class TestPictures:
    def test_readings_are_computed(self):
        depth = pd.DataFrame(
            [
                {"metric": "forward_kl", "states": "teacher", "label": label, "depth_low": low, "depth_high": low + 8}
                | {"value": value, "n_rollouts": 30 - low}
                for label in LABELS
                for low, value in ((0, 0.5), (8, 2.0), (16, 9.0), (24, math.nan))
            ]
        )
        distance = distance_table(*teacher_states(labels=LABELS))
        pictures = pictures_of(replace(two_students(), depth=depth), distance, LABELS, DEFAULTS)
        readings = {picture.name: picture.reading for picture in pictures}
        assert readings["shared_mass"] == (
            "From 0.9 on, on both sides, a pair counts as alike; on own states step 10 has 0.97 at least."
        )
        assert readings["distance"] == "Forward KL at the teacher's states: 11.00 → 11.00 nats a response."
        assert readings["distance_by_depth"] == (
            "Where half of the responses still go on, step 10 is furthest at positions 8–15, 2.00 nats a token."
        )

    def test_nothing_known_by_position(self):
        depth = pd.DataFrame(columns=["metric", "states", "label", "depth_low", "depth_high", "value", "n_rollouts"])
        distance = distance_table(*teacher_states(labels=["step 0"]))
        pictures = pictures_of(replace(two_students(), depth=depth), distance, ["step 0"], DEFAULTS)
        assert [p.reading for p in pictures if p.name == "distance_by_depth"] == ["Nowhere is it known."]
