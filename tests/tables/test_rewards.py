"""How the sampled advantage is spread: closed forms, brute force, and intervals that hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from opd_diag import stats
from opd_diag.tables import assemble
from opd_diag.tables.rewards import LEAST_TOKENS, reward_auroc, top_advantage_share

from .made_up import a_run, rollout, scored
from .test_summary import one


def naive_share(advantages):
    """Token by token: the largest whole ones of the top 1 %, and a part of the next."""
    sizes = sorted(map(abs, advantages), reverse=True)
    wanted, total = len(sizes) / 100, 0.0
    if len(sizes) < LEAST_TOKENS or not sum(sizes):
        return math.nan
    for size in sizes:
        total += size * min(1.0, max(0.0, wanted))
        wanted -= 1
    return total / sum(sizes)


def naive_auroc(rewards, right):
    """Pair by pair."""
    pairs = [
        0.5 * (a == b) + (a > b)
        for (a, yes), (b, no) in itertools.product(zip(rewards, right, strict=True), repeat=2)
        if yes and not no
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def without_each(statistic, prompts, *columns):
    """The statistic without each prompt, computed anew."""
    prompts = np.asarray(prompts)
    return [statistic(*(np.asarray(c)[prompts != p].tolist() for c in columns)) for p in np.unique(prompts)]


@given(st.integers(0, 2**32 - 1), st.integers(90, 400), st.integers(1, 9))
def test_share_is_that_of_brute_force(seed, n, groups):
    rng = np.random.default_rng(seed)
    advantages, prompts = rng.standard_t(2, n).round(1), rng.integers(0, groups, n)
    share, left_out = top_advantage_share(advantages, prompts)
    assert share == pytest.approx(naive_share(advantages), nan_ok=True)
    assert left_out == pytest.approx(without_each(naive_share, prompts, advantages), nan_ok=True)


def test_share_in_closed_form():
    assert top_advantage_share(np.full(300, -0.7), np.arange(300))[0] == pytest.approx(0.01)
    assert top_advantage_share([1.0] + [0.0] * 399, [0] * 400)[0] == 1.0
    assert top_advantage_share([4.0] + [1.0] * 149, [0] * 150)[0] == pytest.approx((4 + 0.5) / 153)
    # exponential sizes: x of the largest hold x (1 - log x) of the total
    sizes = -np.log((np.arange(100_000) + 0.5) / 100_000)
    assert top_advantage_share(sizes, [0] * 100_000)[0] == pytest.approx(0.01 * (1 - math.log(0.01)), rel=1e-3)


@pytest.mark.parametrize("advantages", [[], [1.0] * (LEAST_TOKENS - 1), [0.0] * 200])
def test_share_is_undefined_for_few_tokens_and_for_no_advantage(advantages):
    assert math.isnan(top_advantage_share(advantages, np.arange(len(advantages)))[0])


values = st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(values, st.booleans(), st.integers(0, 7)), max_size=30))
def test_auroc_is_that_of_all_pairs(rows):
    rewards, right, prompts = ([row[i] for row in rows] for i in range(3))
    auroc, left_out = reward_auroc(rewards, right, prompts)
    assert auroc == pytest.approx(naive_auroc(rewards, right), nan_ok=True)
    assert len(left_out) == len(set(prompts))
    if not np.isnan(left_out).any():
        assert left_out == pytest.approx(without_each(naive_auroc, prompts, rewards, right), nan_ok=True)


def test_auroc_without_each_prompt_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rewards, right, prompts = rng.integers(0, 6, 60), rng.random(60) < 0.4, rng.integers(0, 12, 60)
        auroc, left_out = reward_auroc(rewards, right, prompts)
        assert np.isfinite(left_out).all()
        assert left_out == pytest.approx(without_each(naive_auroc, prompts, rewards, right))
        statistic = mannwhitneyu(rewards[right], rewards[~right]).statistic
        assert auroc == pytest.approx(statistic / (right.sum() * (~right).sum()))


@pytest.mark.parametrize(
    ("rewards", "right", "expected"),
    [
        ([2.0, 1.0], [True, False], 1.0),
        ([1.0, 2.0], [True, False], 0.0),
        ([1.0, 1.0], [True, False], 0.5),
        ([1.0, 2.0], [True, True], math.nan),
        ([], [], math.nan),
    ],
)
def test_auroc_by_hand(rewards, right, expected):
    auroc, left_out = reward_auroc(rewards, right, range(len(rewards)))
    assert auroc == pytest.approx(expected, nan_ok=True)
    assert np.isnan(left_out).all()


def test_auroc_has_no_interval_where_it_could_not_be_one():
    """All pairs agree, or one outcome stands on few prompts: leaving prompts out would show next to no error."""
    prompts = np.arange(20)
    perfect = reward_auroc(prompts, prompts >= 10, prompts)
    assert perfect[0] == 1.0
    assert np.isnan(perfect[1]).all()
    few = prompts >= 16  # right answers of 4 prompts
    assert np.isnan(reward_auroc(prompts % 7, few, prompts)[1]).all()
    assert np.isfinite(reward_auroc(prompts % 7, prompts >= 15, prompts)[1]).all()


def test_auroc_interval_covers():
    """Rewards and outcomes that go together within prompts; the truth is of two normal distributions."""
    rng = np.random.default_rng(1)
    covered, runs = 0, 400
    for _ in range(runs):
        prompts = np.repeat(np.arange(40), 4)
        right = rng.random(160) < np.repeat(rng.beta(2, 2, 40), 4)
        rewards = rng.normal(size=160) + right + np.repeat(rng.normal(size=40), 4)
        value, left_out = reward_auroc(rewards, right, prompts)
        estimate = stats.clustered_jackknife(value, left_out, n=160)
        covered += estimate.ci_low <= 0.6915 <= estimate.ci_high  # Φ(1 / √(2 · 2)): both have variance 2
    assert 0.92 < covered / runs < 0.98


def graded(steps=(10, 20), prompts=8, length=9):
    parts = []
    for step in steps:
        label = f"step {step}"
        own = [
            rollout(p, i, length, label=label, is_correct=None if p == 0 and i == 0 else (p + i + step // 10) % 2 == 0)
            for p in range(prompts)
            for i in (0, 1)
        ]
        parts += [scored(own, step=step, label=label, seed=step, states=s) for s in ("on-policy", "start")]
    return assemble((s.pair for s in parts), k=4)


def test_rows_rest_on_what_is_known():
    tables = graded()
    for label in ("step 10", "step 20"):
        states = tables.states[(tables.states["label"] == label) & (tables.states["states"] == "on-policy")]
        row = one(tables.summary, label=label, metric="top_advantage_share")
        assert row["value"] == pytest.approx(naive_share(states["sampled_reverse_kl"]))
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["n_states"], row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (144, 16, 8, 0)
        of = tables.rollouts[(tables.rollouts["label"] == label) & (tables.rollouts["states"] == "on-policy")]
        known = of[of["is_correct"].notna()]
        row = one(tables.summary, label=label, metric="reward_auroc")
        right = known["is_correct"].astype(bool)
        assert row["value"] == pytest.approx(naive_auroc(-known["sampled_reverse_kl"], right))
        assert (row["n_states"], row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (135, 15, 8, 1)
        assert row["ci_low"] < row["value"] < row["ci_high"]
    assert set(tables.summary[tables.summary["metric"] == "reward_auroc"]["states"]) == {"on-policy"}


def test_differences_are_paired_by_prompt():
    tables = graded()
    for metric in ("top_advantage_share", "reward_auroc"):
        row = one(tables.differences, metric=metric)
        before, after = (one(tables.summary, label=n, metric=metric)["value"] for n in ("step 10", "step 20"))
        assert row["value"] == pytest.approx(after - before)
        assert row["n_prompts"] == 8
        assert row["ci_low"] < row["value"] < row["ci_high"]


def test_rollouts_of_another_writer_have_no_reward():
    """Recorded at another temperature: sampled quantities are undefined, and counted."""
    own = [rollout(p, i, 9, plain=False, is_correct=i == 0) for p in range(8) for i in (0, 1)]
    tables = assemble([scored(own).pair], k=4)
    row = one(tables.summary, metric="top_advantage_share")
    assert math.isnan(row["value"])
    assert (row["n_states"], row["n_prompts"], row["n_undefined"]) == (0, 0, 144)
    row = one(tables.summary, metric="reward_auroc")
    assert math.isnan(row["value"])
    assert (row["n_states"], row["n_rollouts"], row["n_undefined"]) == (0, 0, 16)


def test_one_outcome_alone_has_no_auroc():
    own = [rollout(p, 0, 20, is_correct=True) for p in range(8)]
    tables = assemble([scored(own).pair], k=4)
    row = one(tables.summary, metric="reward_auroc")
    assert math.isnan(row["value"])
    assert (row["n_rollouts"], row["n_undefined"]) == (8, 0)
    assert one(tables.summary, metric="top_advantage_share")["value"] > 0.01
    assert {"top_advantage_share", "reward_auroc"} <= set(
        assemble((s.pair for s in a_run()), k=4).differences["metric"]
    )
