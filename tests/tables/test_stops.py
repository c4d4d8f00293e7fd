"""Stop probabilities: at the right states, equal to the distributions' own, counted where the place is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from student_intervals import within

from opd_diag.records.vocabulary import Token
from opd_diag.tables import assemble, stop_table
from opd_diag.tables.stops import PLACES, STOP_COLUMNS, STOP_METRICS, load_stops, save_stops, stop_rows

from .made_up import VOCABULARY, a_run, naive_mean, rollout, scored
from .test_summary import numbers, one

TOKENS = {i: Token(f" w{i}", special=False) for i in range(VOCABULARY)}
TOKENS |= {0: Token("</s>", special=True), 1: Token(" answer", special=False), 2: Token(" 7", special=False)}


def spoken(ids, prompt=0, index=0, **options):
    return rollout(
        prompt, index, response_ids=tuple(ids), response_text="".join(TOKENS[i].text for i in ids), **options
    )


ROLLOUTS = [
    spoken([5, 1, 2, 6, 0], 0, 0),  # answers, then stops
    spoken([5, 6, 0], 0, 1),  # stops without an answer
    spoken([1, 2, 6, 7], 1, 0, stop_reason="length"),  # answers, is cut
    spoken([5, 6], 1, 1, stop_reason="unknown"),
    spoken([1, 2], 2, 0, stop_reason="length"),  # cut right after the number: perhaps within it
    spoken([5, 6, 1, 2, 0], 2, 1, generated=(True, False, True, True, True)),
    spoken([1, 2, 9, 0], 3, 0, generated=(True, True, False, True)),  # what follows the answer is a tool's
]
PLACED = {
    (0, 0): {"stop": 4, "answer": 3},
    (0, 1): {"stop": 2, "answer": None},
    (1, 0): {"answer": 2, "truncated": 4},
    (1, 1): {"answer": None},
    (2, 0): {"answer": None, "truncated": 2},
    (2, 1): {"stop": 4, "answer": 4},
    (3, 0): {"stop": 3, "answer": None},
}


@pytest.fixture(scope="module")
def made():
    return scored(ROLLOUTS)


def test_rows_stand_at_the_right_states(made):
    table = stop_table(*made.pair, TOKENS)
    assert list(table.columns) == STOP_COLUMNS
    found = {}
    for row in table.itertuples():
        place = found.setdefault((row.prompt_index, row.rollout_index), {})
        place[row.place] = None if pd.isna(row.position) else row.position
        assert math.isnan(row.student_stop_logprob) is math.isnan(row.teacher_stop_logprob) is pd.isna(row.position)
    assert found == PLACED
    assert set(table["prompt_id"]) == {"p0", "p1", "p2", "p3"}
    assert set(table["states"]) == {"on-policy"}
    assert table["position"].dtype == "Int64"


def test_probabilities_are_the_distributions_own(made):
    """The stop id of the made-up models is 0."""
    states = list(zip(made.scores.rollout, made.scores.position, strict=True))
    names = [(r.prompt_index, r.rollout_index) for r in made.rollouts]
    known = stop_table(*made.pair, TOKENS).dropna(subset="position")
    assert len(known) == 9
    for row in known.itertuples():
        state = states.index((names.index((row.prompt_index, row.rollout_index)), row.position))
        assert made.scores.terminal[state] == (row.place == "truncated")
        assert math.exp(row.student_stop_logprob) == pytest.approx(made.p[state][0], rel=1e-5)
        assert math.exp(row.teacher_stop_logprob) == pytest.approx(made.q[state][0], rel=1e-5)


def test_sampled_token_at_a_stop_is_a_stop_token(made):
    """What the record calls a stop, but ends in another token, is none."""
    for stop_ids, told in (([0, 3], True), ([3], False), ([], False)):
        scores = replace(made.scores, provenance=made.scores.provenance | {"stop_ids": stop_ids})
        of = stop_table(scores, made.rollouts, TOKENS)
        assert of[of["place"] == "stop"]["position"].notna().tolist() == [told] * 4


def test_undefined_without_any_stop_token(made):
    none = np.full(len(made.scores), -np.inf, dtype=np.float32)
    scores = replace(made.scores, student_stop_logprobs=none, teacher_stop_logprobs=none)
    table = stop_table(scores, made.rollouts, TOKENS)
    assert table[["student_stop_logprob", "teacher_stop_logprob"]].isna().all(axis=None)
    one_sided = replace(made.scores, student_stop_logprobs=none)
    values = stop_table(one_sided, made.rollouts, TOKENS)["student_stop_logprob"]
    assert np.isneginf(values).sum() == 9, "the teacher can stop, the student gives it no probability"


def test_without_a_vocabulary_answers_are_unknown(made):
    table = stop_table(*made.pair)
    assert table[table["place"] == "answer"]["position"].isna().all()
    assert table[table["place"] != "answer"]["position"].notna().all()


def test_other_sets_have_no_rows():
    for states in ("start", "back"):
        of = scored(ROLLOUTS, states=states, checkpoint={"label": "step 10", "step": 10})
        assert len(stop_table(*of.pair, TOKENS)) == 0
    assert len(stop_table(*scored(ROLLOUTS, states="teacher").pair, TOKENS)) == sum(map(len, PLACED.values()))
    assert list(stop_rows(None).columns) == STOP_COLUMNS


@pytest.fixture(scope="module")
def tables():
    parts = []
    for step in (10, 20):
        label = f"step {step}"
        own = [
            spoken([5, 1, 2, *([6] * (p % 3)), *([0] if (p + i + step // 10) % 4 else [])], p, i, label=label,
                   stop_reason="stop" if (p + i + step // 10) % 4 else "length")
            for p in range(8) for i in (0, 1)
        ]  # fmt: skip
        parts.append(scored(own, step=step, label=label, seed=step))
        parts.append(
            scored(own if step == 10 else parts[1].rollouts, step=step, label=label, states="teacher", seed=step + 1)
        )
    return assemble((s.pair for s in parts), k=4, tokens=TOKENS)


def test_summary_is_the_mean_probability_clustered_by_prompt(tables):
    assert set(STOP_METRICS) == {f"{m}_stop_probability_{p}" for m in ("student", "teacher") for p in PLACES.values()}
    for (label, states), of_set in tables.stops.groupby(["label", "states"]):
        for metric, (column, place) in STOP_METRICS.items():
            row = one(tables.summary, label=label, states=states, metric=metric)
            of = of_set[of_set["place"] == place]
            known = of[of[column].notna()]
            expected = within(naive_mean(np.exp(of[column]), of["prompt_index"]))
            assert numbers(row) == pytest.approx(expected, nan_ok=True)
            assert row["value"] > 0
            assert row["aggregation"] == "state mean"
            assert (row["n_states"], row["n_undefined"]) == (len(known), len(of) - len(known))
            assert row["n_rollouts"] == len(known[["prompt_index", "rollout_index"]].drop_duplicates())
            assert row["n_prompts"] == known["prompt_index"].nunique()
    cut = tables.summary[tables.summary["metric"] == "student_stop_probability_after_answers"]
    assert (cut["n_undefined"] > 0).any()


def test_differences_are_paired_on_both_sets(tables):
    for states in ("on-policy", "teacher"):
        for metric, (column, place) in STOP_METRICS.items():
            row = one(tables.differences, states=states, metric=metric)
            sides = [
                of[(of["place"] == place) & of[column].notna()]
                for of in (
                    tables.stops[(tables.stops["label"] == n) & (tables.stops["states"] == states)]
                    for n in ("step 10", "step 20")
                )
            ]
            shared = set(sides[0]["prompt_index"]) & set(sides[1]["prompt_index"])
            means = [np.exp(side[side["prompt_index"].isin(shared)][column]).mean() for side in sides]
            assert row["value"] == pytest.approx(means[1] - means[0], nan_ok=True)
            assert row["n_prompts"] == len(shared)


def test_a_student_that_unlearns_to_stop_is_seen_on_the_teachers_set():
    """The teacher's responses stay; the student's probability at their ends falls to that of its other tokens."""
    teachers = [spoken([5, 1, 2, 6, 0], p, 0, label="teacher") for p in range(8)]
    values = []
    for step, logprob in ((0, -0.1), (10, -9.0)):
        part = scored(teachers, step=step, label=f"step {step}", states="teacher", seed=step)
        at_stop = part.scores.position == 4
        stops = np.where(at_stop, logprob, part.scores.student_stop_logprobs).astype(np.float32)
        values.append((replace(part.scores, student_stop_logprobs=stops), part.rollouts))
    tables = assemble(values, k=4, tokens=TOKENS)
    row = one(tables.differences, metric="student_stop_probability_at_stops")
    assert row["value"] == pytest.approx(math.exp(-9) - math.exp(-0.1), rel=1e-5)
    assert row["ci_high"] < -0.5


def test_files_give_back_what_was_saved(tmp_path, tables):
    names = save_stops(tmp_path, tables.stops)
    assert names == [
        f"stops/step-0000{step}.{states}.parquet" for step in (10, 20) for states in ("on-policy", "teacher")
    ]
    again = load_stops(tmp_path, tables.concentration)
    pd.testing.assert_frame_equal(again, tables.stops)
    nothing = load_stops(tmp_path, tables.concentration[tables.concentration["states"] == "start"])
    pd.testing.assert_frame_equal(nothing, stop_rows(None))


def test_a_run_without_texts_counts_its_answers_as_undefined():
    tables = assemble((s.pair for s in a_run(prompts=8)), k=4)
    row = one(tables.summary, label="step 10", states="on-policy", metric="teacher_stop_probability_after_answers")
    assert (row["n_states"], row["n_undefined"]) == (0, 16)
    assert math.isnan(row["value"])
