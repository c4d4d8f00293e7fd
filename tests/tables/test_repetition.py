"""Repetition: against brute force, on loops planted at known places, and on text that is repetitive for a reason."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from student_intervals import within

from opd_diag.lab.world import draw_problem, narrate, write_equation
from opd_diag.tables import assemble, rollout_table
from opd_diag.tables.repetition import (
    LEAST_BYTES,
    LEAST_TOKENS,
    REPETITION_COLUMNS,
    TAIL,
    Cycle,
    compression_ratio,
    repetition_columns,
    repetition_of,
    tail_cycle,
)

from .made_up import rollout, scored
from .test_summary import naive_mean, numbers, one

PROSE = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def naive_cycle(ids, repeats, least):
    """Every period and every suffix, symbol by symbol."""
    best = Cycle(0, 0)
    for period in range(1, len(ids) + 1):
        for length in range(period * repeats, len(ids) + 1):
            tail = ids[len(ids) - length :]
            if (
                length >= least
                and length > best.length
                and all(a == b for a, b in zip(tail, tail[period:], strict=False))
            ):
                best = Cycle(period, length)
    return best


@given(
    st.lists(st.integers(0, 2), max_size=8),
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.integers(0, 30),
    st.integers(2, 4),
    st.integers(1, 12),
)
def test_cycles_are_those_of_brute_force(before, block, times, repeats, least):
    ids = before + (block * (times // len(block) + 1))[:times]
    assert tail_cycle(ids, repeats=repeats, least=least) == naive_cycle(ids, repeats, least)


@given(st.lists(st.integers(0, 1), max_size=40))
def test_cycles_of_random_bits_are_those_of_brute_force(ids):
    assert tail_cycle(ids, repeats=3, least=3) == naive_cycle(ids, 3, 3)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], (0, 0)),
        ([5] * 6, (1, 6)),
        ([1, 2] * 3, (2, 6)),
        ([1, 2, 1, 2], (0, 0)),  # twice is no cycle
        ([9, 1, 2, 1, 2, 1, 2, 1], (2, 7)),  # the last copy need not be whole
        ([1, 1, 1, 2] * 3 + [1, 1, 1], (4, 15)),  # the longest end, not that of the shortest block
        ([1, 2, 3] * 4 + [7], (0, 0)),  # it left the loop
        ([7] * 3, (0, 0)),  # too short to tell
    ],
)
def test_cycles_by_hand(ids, expected):
    assert tail_cycle(ids, least=6) == expected


def test_a_cycle_is_two_copies_at_least():
    with pytest.raises(ValueError, match="at least 2 copies, found repeats 1"):
        tail_cycle([1, 1], repeats=1)


def test_work_grows_with_length_alone():
    """Comparisons of tokens, counted: a few a token, for the sequences that make a naive search quadratic."""

    class Counted(int):
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return int(self) == int(other)

        __hash__ = int.__hash__

    size = 4000
    for ids in ([1] * size, ([1] * 99 + [2]) * (size // 100), [1] * (size // 2) + [2] + [1] * (size // 2 - 1)):
        Counted.compared = 0
        tail_cycle([Counted(i) for i in ids])
        assert Counted.compared < 3 * size


def test_compression_is_raw_over_zlib_of_the_tail():
    text = PROSE[:3000]
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode()))
    assert compression_ratio("x" * 5 * TAIL + PROSE[:TAIL]) == compression_ratio(PROSE[:TAIL])
    assert math.isnan(compression_ratio("é" * (LEAST_BYTES // 2 - 1)))
    assert compression_ratio("é" * (LEAST_BYTES // 2)) > 5
    assert math.isnan(compression_ratio(""))
    assert compression_ratio("\ud800" * LEAST_BYTES) > 10  # half of a pair, as a bad decoder leaves it


def test_compression_tells_loops_from_text():
    digits = "".join(random.Random(0).choices("0123456789", k=2000))
    assert compression_ratio(PROSE[:300]) < compression_ratio(PROSE[:TAIL]) < 4
    assert 1.5 < compression_ratio(digits) < 2.5
    assert compression_ratio("Wait, let me check that again. " * 100) > 20


def looping(before, period, copies, *, stopped, rng):
    block = [int(i) for i in rng.integers(100, 10_000, period)]
    ids = [int(i) for i in rng.integers(10_000, 20_000, before)] + block * copies + [0] * stopped
    return rollout(response_ids=tuple(ids), stop_reason="stop" if stopped else "length")


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize(("before", "period", "copies"), [(0, 1, 40), (10, 7, 5), (100, 20, 4), (60, 3, 7)])
def test_planted_loops_are_found_where_they_are(before, period, copies, stopped):
    found = repetition_of(looping(before, period, copies, stopped=stopped, rng=np.random.default_rng(3)))
    assert found["cycle_start"] == before
    assert found["cycle_ratio"] == pytest.approx(period * copies / (before + period * copies))
    assert found["is_repeating"] is (period * copies >= before)


def test_planted_rate_is_recovered():
    rng = np.random.default_rng(0)
    made = [
        looping(15, 6, 6, stopped=False, rng=rng)
        if i % 4 == 0
        else rollout(response_ids=tuple(int(x) for x in rng.integers(0, 9, 60)), stop_reason="length")
        for i in range(400)
    ]
    found = pd.DataFrame(repetition_columns(made))
    assert found["is_repeating"].mean() == 0.25
    assert found["cycle_ratio"][found["is_repeating"]].unique().tolist() == [pytest.approx(36 / 51)]
    assert (found["cycle_ratio"][~found["is_repeating"]] == 0).all()


def test_a_long_text_repeats_also_without_a_cycle():
    text = "".join(f"Wait, let me check step {i % 7} again. " for i in range(500))
    ids = tuple(range(50))
    found = repetition_of(rollout(response_ids=ids, response_text=text, stop_reason="length"))
    assert (found["cycle_ratio"], found["is_repeating"]) == (0.0, True)
    assert found["compression_ratio"] > 10


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{a} * {b} = {a * b}" for a in range(1, 13) for b in range(1, 13)),
        "| city | day | degrees |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| {c} | {d} | {(7 * i + 3 * d) % 31} |" for i, c in enumerate(("Rome", "Oslo")) for d in range(30)
        ),
        "The sum of 1000000 and 1000000 is 2000000. So the answer is 2000000000000000000.",
        "\n".join(f"{i}. x_{i} = {i}, so x_{i + 1} = {i + 1}." for i in range(80)),
        "1/3 = 0.3333333333333",
        "No. No. No. It is 4.",
        PROSE[:6000],
    ],
)
def test_text_that_is_repetitive_for_a_reason_is_no_loop(text):
    """Characters as tokens: worse for the text than any tokenizer."""
    for reason in ("stop", "length"):
        made = rollout(response_ids=tuple(map(ord, text)), response_text=text, stop_reason=reason)
        found = repetition_of(made)
        assert found["is_repeating"] is False
        assert found["cycle_ratio"] < 0.1


def test_answers_of_the_bundled_world_never_loop():
    """Both of its styles, one of which counts the same things twice; cut or not."""
    rng, ids = random.Random(0), {}
    for _ in range(300):
        problem = draw_problem(rng)
        for text in (write_equation(problem, problem.answer, rng), narrate(problem, problem.answer, rng)):
            tokens = tuple(ids.setdefault(word, len(ids)) for word in text.split())
            for made in (
                rollout(response_ids=(*tokens, 0), response_text=text),
                rollout(response_ids=tokens * 2, response_text=text * 2, stop_reason="length"),
            ):
                found = repetition_of(made)
                assert found["is_repeating"] is False
                assert found["cycle_ratio"] == 0
                assert not found["compression_ratio"] > 4


@pytest.mark.parametrize(
    ("length", "reason", "told"),
    [(5, "stop", True), (5, "length", False), (5, "unknown", False), (1, "stop", False), (0, "length", False)]
    + [(LEAST_TOKENS, reason, True) for reason in ("length", "unknown")],
)
def test_what_cannot_be_seen_is_undefined(length, reason, told):
    found = repetition_of(rollout(response_ids=tuple(range(length)), stop_reason=reason))
    assert math.isnan(found["cycle_ratio"]) is not told
    assert pd.isna(found["is_repeating"]) is not told
    assert pd.isna(found["cycle_start"])
    assert math.isnan(found["compression_ratio"])


def test_only_the_students_own_tokens_count():
    own = [1, 2, 3, 4] * 6
    ids, generated = [], []
    for i, token in enumerate(own):
        ids += [token, 900 + i] if i % 4 == 3 else [token]
        generated += [True, False] if i % 4 == 3 else [True]
    text = "same " * 200
    made = rollout(response_ids=tuple(ids), generated=tuple(generated), stop_reason="length", response_text=text)
    found = repetition_of(made)
    assert (found["cycle_ratio"], found["cycle_start"]) == (1.0, 0)
    assert math.isnan(found["compression_ratio"]), "part of the text is a tool's"
    assert repetition_of(rollout(response_ids=tuple(ids), stop_reason="length", response_text=text))[
        "compression_ratio"
    ] == pytest.approx(compression_ratio(text))


def test_columns_of_the_rollout_table_and_rows_of_the_summary():
    rng = np.random.default_rng(1)
    made = [looping(10, 5, 6, stopped=False, rng=rng) if p % 3 == 0 else rollout(p, 0, 4) for p in range(9)]
    made = [
        replace(r, prompt_index=p, prompt_id=f"p{p}", response_ids=tuple(i % 40 for i in r.response_ids))
        for p, r in enumerate(made)
    ]
    part = scored(made)
    tables = assemble([part.pair], k=4)
    table = rollout_table(tables.states, made)
    assert table["is_repeating"].dtype == "boolean"
    assert table["cycle_start"].dtype == "Int64"
    for name, column in repetition_columns(made).items():
        assert table[name].equals(column), name
    of = tables.rollouts
    assert one(tables.summary, metric="repetition_rate")["value"] == pytest.approx(1 / 3)
    row = one(tables.summary, metric="cycle_ratio")
    assert numbers(row) == pytest.approx(within(naive_mean(of["cycle_ratio"], of["prompt_index"])))
    assert row["value"] == pytest.approx(3 * 0.75 / 9)
    assert (row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (9, 9, 0)
    row = one(tables.summary, metric="compression_ratio")
    assert (row["n_states"], row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (0, 0, 0, 9)
    assert np.isnan(row["value"])
    assert list(REPETITION_COLUMNS) == list(repetition_columns(made))


def test_differences_are_paired_by_prompt():
    """A checkpoint that loops on every third prompt, against one that loops on none."""
    rng = np.random.default_rng(2)
    loops = [rollout(p, 0, label="step 20", response_ids=(*range(8), *(4 * [1, 2, 3]), 5)) for p in range(9)]
    loops = [
        replace(r, response_ids=(*range(8), *(10 * [int(rng.integers(9)), 30]), 0)) if r.prompt_index % 3 == 0 else r
        for r in loops
    ]
    plain = [rollout(p, 0, 12) for p in range(9)]
    tables = assemble([scored(plain).pair, scored(loops, step=20, label="step 20").pair], k=4)
    row = one(tables.differences, metric="repetition_rate")
    values = np.array([p % 3 == 0 for p in range(9)], dtype=float)
    assert numbers(row) == pytest.approx(naive_mean(values, np.arange(9)))
    assert one(tables.differences, metric="cycle_ratio")["value"] == pytest.approx(3 * (20 / 28) / 9)
    assert np.isnan(one(tables.differences, metric="compression_ratio")["value"])
