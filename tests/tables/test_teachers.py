"""Distances between models at a student's states, against plain sums."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from opd_diag.tables.teachers import DISTANCE_COLUMNS, clustered_correlation, distance_table

PROMPTS = [0, 0, 1, 2, 3, 4, 5]


class Fields(SimpleNamespace):
    """The fields of scores that are read, and their ends."""

    def ends(self, name):
        known = np.asarray(getattr(self, name), dtype=np.float64)
        low, high = self.bounds.get(name, (known, known))
        return np.where(np.isnan(known), low, known), np.where(np.isnan(known), high, known)


def scores(seed, *, student=None):
    """Scores of two states a rollout; the last state of each rollout is terminal."""
    random = np.random.default_rng(seed)
    n = 3 * len(PROMPTS)
    ours = np.random.default_rng(0).normal(size=n) if student is None else student
    return Fields(
        bounds={},
        teacher_topk_ids=np.stack([random.permutation(40)[:32] for _ in range(n)]),
        rollout=np.repeat(np.arange(len(PROMPTS)), 3),
        terminal=np.tile([False, False, True], len(PROMPTS)),
        reverse_kl=random.random(n).astype(np.float32),
        forward_kl=random.random(n).astype(np.float32),
        student_sampled_logprobs=ours,
        teacher_sampled_logprobs=random.normal(size=n),
    )


@pytest.fixture
def found():
    of_student = {"a": scores(1), "b": scores(2), "c": scores(3)}
    between = {("a", "b"): scores(4), ("a", "c"): scores(5), ("b", "c"): scores(6)}
    rollouts = [SimpleNamespace(prompt_index=p, is_correct=None) for p in PROMPTS]
    return of_student, between, distance_table("s", of_student, between, rollouts)


def mean_distance(of):
    kept = [i for i in range(len(of.terminal)) if not of.terminal[i]]
    return sum(float(of.reverse_kl[i]) + float(of.forward_kl[i]) for i in kept) / 2 / len(kept)


def test_rows_and_means(found):
    of_student, between, table = found
    assert list(table.columns) == DISTANCE_COLUMNS
    pairs = list(zip(table["first"], table["second"], strict=True))
    assert pairs == [("s", "a"), ("s", "b"), ("s", "c"), ("a", "b"), ("a", "c"), ("b", "c")]
    for (_, name), value in zip(pairs[:3], table["symmetric_kl"], strict=False):
        assert value == pytest.approx(mean_distance(of_student[name]))
    for pair, (_, row) in zip(pairs[3:], table.iloc[3:].iterrows(), strict=True):
        apart = mean_distance(between[pair])
        assert row["symmetric_kl"] == pytest.approx(apart)
        mean = (mean_distance(of_student[pair[0]]) + mean_distance(of_student[pair[1]])) / 2
        assert row["relative"] == pytest.approx(apart / mean)
        assert row["relative_ci_low"] < row["relative"] < row["relative_ci_high"]
    assert table["relative"].isna().tolist() == [True] * 3 + [False] * 3
    assert set(table["n_states"]) == {14}
    assert set(table["n_prompts"]) == {6}


def test_advantages_correlate_as_numpy_has_it(found):
    of_student, _, table = found
    kept = ~of_student["a"].terminal
    x, y = (
        (of.teacher_sampled_logprobs - of.student_sampled_logprobs)[kept] for of in (of_student["a"], of_student["b"])
    )
    assert table.iloc[3]["advantage_correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert table.iloc[3]["advantage_correlation_ci_low"] < table.iloc[3]["advantage_correlation"]


def test_top_tokens_overlap_as_sets_do(found):
    of_student, _, table = found
    kept = ~of_student["b"].terminal
    b, c = (of_student[name].teacher_topk_ids[kept, :16].tolist() for name in ("b", "c"))
    shared = [len({*mine} & {*theirs}) / 16 for mine, theirs in zip(b, c, strict=True)]
    assert table.iloc[5]["overlap_ratio"] == pytest.approx(sum(shared) / len(shared))


class TestPartlyKnown:
    """A teacher of which a server returned its top K: its distance from the student has a lower end, and no upper."""

    @pytest.fixture
    def table(self):
        of_student = {"a": scores(1), "b": scores(2)}
        self.low = of_student["b"].reverse_kl.astype(float)
        known = of_student["b"].reverse_kl.copy()
        of_student["b"].reverse_kl = np.where(np.arange(len(known)) == 4, known, np.nan)
        of_student["b"].bounds = {"reverse_kl": (self.low, np.full(len(known), np.inf))}
        self.b = of_student["b"]
        rollouts = [SimpleNamespace(prompt_index=p, is_correct=None) for p in PROMPTS]
        return distance_table("s", of_student, {}, rollouts)

    def test_the_students_row_has_bounds_and_no_value(self, table):
        kept = ~self.b.terminal
        row = table.iloc[1]
        assert math.isnan(row["symmetric_kl"])
        assert row["bound_low"] == pytest.approx((self.low + self.b.forward_kl)[kept].mean() / 2)
        assert (row["bound_high"], row["symmetric_kl_ci_high"]) == (math.inf, math.inf)
        assert row["symmetric_kl_ci_low"] < row["bound_low"]
        assert (row["n_states"], row["n_prompts"]) == (14, 6)
        assert math.isnan(table.iloc[0]["bound_low"]), "the other one is known"

    def test_a_pair_that_was_not_scored_has_what_both_answers_hold(self, table):
        row = table.iloc[2]
        assert row[["symmetric_kl", "relative"]].isna().all()
        assert row[["overlap_ratio", "advantage_correlation"]].notna().all()
        assert (row["n_states"], row["n_prompts"]) == (14, 6)


def test_nothing_graded_has_no_selection_score(found):
    assert found[2]["tas"].isna().all()


def test_the_selection_score_is_the_published_example():
    """Eight responses of one token to each of six prompts; at two correct ones of the first prompt A says 2 more."""
    right = [[True] * 2 + [False] * 6] + [[False] * 8] * 5
    rollouts = [SimpleNamespace(prompt_index=p, is_correct=of) for p, row in enumerate(right) for of in row]
    n = len(rollouts)

    def of(teacher):
        return Fields(
            bounds={},
            teacher_topk_ids=np.tile(np.arange(32), (n, 1)),
            rollout=np.arange(n),
            terminal=np.zeros(n, dtype=bool),
            reverse_kl=np.ones(n),
            forward_kl=np.ones(n),
            student_sampled_logprobs=np.linspace(-2, -1, n),
            teacher_sampled_logprobs=teacher,
        )

    first, second = np.full(n, -3.0), np.full(n, -3.0)
    first[:2] += 2
    scores = {"a": of(first), "b": of(second)}
    table = distance_table("s", scores, {("a", "b"): of(first)}, rollouts)
    assert table.iloc[2]["tas"] == pytest.approx(8 * 0.25 * 0.75**8 * 2 / 6)
    assert math.isnan(table.iloc[0]["tas"])


def test_one_teacher_has_no_pair():
    table = distance_table("s", {"a": scores(1)}, {}, [SimpleNamespace(prompt_index=p) for p in PROMPTS])
    assert len(table) == 1


class TestCorrelation:
    def test_the_interval_covers(self):
        """Correlation .6 within prompts of ten states: the 95 % interval holds it in about 95 of 100 draws."""
        random, hits = np.random.default_rng(7), 0
        clusters = np.repeat(np.arange(40), 10)
        for _ in range(300):
            shared = random.normal(size=400)
            x = math.sqrt(0.6) * shared + math.sqrt(0.4) * random.normal(size=400)
            y = math.sqrt(0.6) * shared + math.sqrt(0.4) * random.normal(size=400)
            found = clustered_correlation(x, y, clusters)
            hits += found.ci_low <= 0.6 <= found.ci_high
        assert 0.91 <= hits / 300 <= 0.985

    def test_far_from_zero_keeps_its_digits(self):
        x = np.arange(12.0)
        y = np.where(np.arange(12) % 2, x, -x)
        near, far = (clustered_correlation(x + s, y + s, np.arange(12) // 2).value for s in (0.0, 1e9))
        assert far == pytest.approx(near, abs=1e-6)

    def test_a_constant_has_none(self):
        found = clustered_correlation(np.ones(10), np.arange(10.0), np.arange(10))
        assert math.isnan(found.value)
        assert math.isnan(found.ci_low)

    def test_few_prompts_have_no_interval(self):
        found = clustered_correlation(np.arange(6.0), np.array([0, 2, 1, 3, 5, 4.0]), np.repeat([0, 1, 2], 2))
        assert found.value == pytest.approx(np.corrcoef(np.arange(6.0), [0, 2, 1, 3, 5, 4])[0, 1])
        assert math.isnan(found.ci_low)
