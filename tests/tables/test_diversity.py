"""Distinct n-grams at equal numbers and entropy of the mixture: by hand, by enumeration, by leaving prompts out."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.diversity import (
    DIVERSITY,
    LEAST_NGRAMS,
    Scale,
    diversity_differences,
    diversity_rows,
    ngrams_of,
    scale_of,
)

BIGRAMS, TRIGRAMS, ENTROPY = DIVERSITY


def responses(texts):
    """A state table of {(prompt, rollout): token ids}."""
    rows = [
        {"prompt_index": prompt, "rollout_index": index, "position": i, "sampled_id": token}
        for (prompt, index), tokens in texts.items()
        for i, token in enumerate(tokens)
    ]
    return pd.DataFrame(rows, columns=["prompt_index", "rollout_index", "position", "sampled_id"]).astype("int64")


def drawn(rng, prompts=8, rollouts=2, tokens=20, vocabulary=6):
    """Responses of unequal lengths; each prompt has favourite tokens of its own."""
    texts = {}
    for p in range(prompts):
        chances = rng.dirichlet(np.full(vocabulary, 0.7))
        for r in range(rollouts):
            texts[p, r] = rng.choice(vocabulary, size=tokens - 3 * (p % 4), p=chances).tolist()
    return texts


def ngrams_in(texts, n):
    """All n-grams, in plain Python, as a list of tuples."""
    return [tuple(t[i : i + n]) for t in texts.values() for i in range(len(t) - n + 1)]


def naive_ratio(grams, size):
    """Expected distinct n-grams in `size` of `grams`, divided by `size`, with binomial coefficients as they are."""
    n = len(grams)
    if n < size or not size:
        return math.nan
    counts = Counter(grams).values()
    return sum(1 - math.comb(n - c, size) / math.comb(n, size) for c in counts) / size


def naive_entropy(grams):
    n, counts = len(grams), Counter(grams).values()
    return -sum(c / n * math.log(c / n) for c in counts) + (len(counts) - 1) / (2 * n)


def naive(metric, texts, sizes):
    grams = ngrams_in(texts, DIVERSITY[metric])
    return naive_entropy(grams) if metric == ENTROPY else naive_ratio(grams, sizes[DIVERSITY[metric]])


def measured(texts, scale):
    return {row["metric"]: row for row in diversity_rows(responses(texts), scale)}


def test_by_hand():
    # One rollout a b a b ... : 20 bigrams ab and 20 ba of 40; 10 drawn: 2 kinds but for the chance that one is missing.
    texts = {(0, 0): [7, 9] * 20 + [7]}
    row = measured(texts, Scale({1: 10, 2: 10, 3: 10}, math.log(50)))[BIGRAMS]
    missed = math.comb(20, 10) / math.comb(40, 10)
    assert row["estimate"].value == pytest.approx(2 * (1 - missed) / 10)
    entropy = measured(texts, Scale({1: 10, 2: 10, 3: 10}, math.log(50)))[ENTROPY]["estimate"].value
    share = 21 / 41  # of token 7
    assert entropy == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share) + 1 / 82)


def test_the_expectation_is_that_over_all_subsamples():
    texts = {(0, 0): [1, 2, 1, 2, 3, 1, 2, 2, 3, 3, 1], (1, 0): [2, 3, 1, 1, 2, 3, 1, 2, 3, 3, 2]}
    grams = ngrams_in(texts, 2)
    assert len(grams) == 20
    sets = [len(set(subset)) for subset in combinations(grams, 4)]
    found = measured(texts, Scale({1: 4, 2: 4, 3: 4}, math.log(4)))[BIGRAMS]["estimate"].value
    assert found == pytest.approx(np.mean(sets) / 4, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_values_and_jackknife_equal_the_naive_ones(seed):
    texts = drawn(np.random.default_rng(seed), vocabulary=6 + 30 * seed)  # many: some leave with their prompt
    scale = scale_of([responses(texts), responses(drawn(np.random.default_rng(9), tokens=15))])
    found = measured(texts, scale)
    for metric in DIVERSITY:
        estimate = found[metric]["estimate"]
        assert estimate.value == pytest.approx(naive(metric, texts, scale.sizes), rel=1e-9)
        without = [
            naive(metric, {key: t for key, t in texts.items() if key[0] != prompt}, scale.sizes) for prompt in range(8)
        ]
        variance = 7 / 8 * sum((w - np.mean(without)) ** 2 for w in without)
        assert estimate.standard_error == pytest.approx(math.sqrt(variance), rel=1e-7), metric
        n = DIVERSITY[metric]
        assert estimate.n == len(ngrams_in(texts, n))
        assert estimate.n + estimate.n_undefined == sum(map(len, texts.values()))
        assert (estimate.n_clusters, found[metric]["n_rollouts"]) == (8, 16)


def test_differences_are_paired_over_shared_prompts():
    rng = np.random.default_rng(4)
    first, second = drawn(rng), drawn(rng, prompts=10, tokens=16)
    del first[3, 0], first[3, 1]
    scale = scale_of([responses(first), responses(second)])
    found = diversity_differences(responses(first), responses(second), scale)
    both = [p for p in range(8) if p != 3]
    one, two = ({key: t for key, t in texts.items() if key[0] in both} for texts in (first, second))
    for metric in DIVERSITY:
        change = naive(metric, two, scale.sizes) - naive(metric, one, scale.sizes)
        without = [
            naive(metric, {k: t for k, t in two.items() if k[0] != p}, scale.sizes)
            - naive(metric, {k: t for k, t in one.items() if k[0] != p}, scale.sizes)
            for p in both
        ]
        variance = 6 / 7 * sum((w - np.mean(without)) ** 2 for w in without)
        assert found[metric].value == pytest.approx(change, abs=1e-9)
        assert found[metric].standard_error == pytest.approx(math.sqrt(variance), rel=1e-6)
        assert found[metric].n_clusters == 7
        assert abs(change) > 1e-3
    unchanged = diversity_differences(responses(first), responses(first), scale)
    assert all((e.value, e.ci_low, e.ci_high) == (0.0, 0.0, 0.0) for e in unchanged.values())


def test_n_grams_stay_within_rollouts_and_gaps():
    table = responses({(0, 0): [1, 2, 3], (0, 1): [4, 5], (1, 0): [6]})
    assert [len(ngrams_of(table, n).codes) for n in (1, 2, 3)] == [6, 3, 1]
    table.loc[2, "position"] = 5  # tool output before it: not consecutive
    assert [len(ngrams_of(table, n).codes) for n in (1, 2, 3)] == [6, 2, 0]
    assert ngrams_of(table, 2).n_rollouts == 2
    assert list(ngrams_of(table, 2).prompts) == [0, 0]
    late = responses({(0, 0): [1, 2], (0, 1): [3, 4]})
    late.loc[2:, "position"] += 2  # begins where the other rollout ends
    assert len(ngrams_of(late, 2).codes) == 2


def test_order_of_rows_and_names_of_tokens_do_not_matter():
    rng = np.random.default_rng(5)
    texts = drawn(rng, vocabulary=9)
    scale = scale_of([responses(texts)])
    expected = measured(texts, scale)
    names = {token: 3_000_000_000 + 977 * token for token in range(9)}
    renamed = responses({key: [names[t] for t in tokens] for key, tokens in texts.items()})
    shuffled = renamed.sample(frac=1.0, random_state=1)
    for row in diversity_rows(shuffled, Scale(scale.sizes, 99.0)):
        assert row["estimate"] == expected[row["metric"]]["estimate"], row["metric"]


def test_longer_responses_of_one_kind_do_not_look_less_varied():
    """The plain ratio of distinct to all falls with length; at equal numbers it does not."""
    rng = np.random.default_rng(6)
    short, long = (
        {(p, r): rng.zipf(1.5, size=n).clip(max=400).tolist() for p in range(30) for r in range(2)} for n in (20, 120)
    )
    scale = scale_of([responses(short), responses(long)])
    plain = [len(set(g)) / len(g) for g in (ngrams_in(t, 2) for t in (short, long))]
    assert plain[0] - plain[1] > 0.1
    values = [measured(t, scale)[BIGRAMS]["estimate"].value for t in (short, long)]
    assert values[0] == pytest.approx(values[1], abs=0.02)


def test_the_size_is_half_of_the_smallest_set_that_tells_anything():
    sets = [responses({(p, 0): list(range(10)) for p in range(n)}) for n in (9, 5, 1)]
    assert scale_of(sets).sizes == {1: 25, 2: 22, 3: 20}
    assert scale_of(sets[2:]).sizes == {1: 0, 2: 0, 3: 0}
    assert scale_of(sets).most_entropy == pytest.approx(math.log(10))


def test_a_collapse_onto_few_tokens_lowers_what_it_should():
    """Random digits: bigrams repeat and few tokens are used, while trigrams hardly recur."""
    rng = np.random.default_rng(7)
    lively = {(p, 0): rng.zipf(1.3, size=60).clip(max=5000).tolist() for p in range(16)}
    digits = {(p, 0): rng.integers(0, 10, size=60).tolist() for p in range(16)}
    looped = {(p, 0): [5, 6, 7] * 20 for p in range(16)}
    scale = scale_of([responses(t) for t in (lively, digits, looped)])
    of = [{m: row["estimate"].value for m, row in measured(t, scale).items()} for t in (lively, digits, looped)]
    assert of[1][ENTROPY] == pytest.approx(math.log(10), abs=0.01)
    assert of[0][ENTROPY] > of[1][ENTROPY] + 0.2
    assert of[0][BIGRAMS] > of[1][BIGRAMS] + 0.1
    assert of[2][TRIGRAMS] < 0.02
    assert of[2][ENTROPY] == pytest.approx(math.log(3), abs=0.01)


def test_entropy_is_never_above_that_of_the_vocabulary():
    texts = {(p, 0): list(range(8)) for p in range(5)}
    estimate = measured(texts, scale_of([responses(texts)]))[ENTROPY]["estimate"]
    assert estimate.value == math.log(8), "the correction alone would give log 8 + 7/80"
    assert estimate.ci_high == math.log(8)


@pytest.mark.parametrize("texts", [{}, {(0, 0): [3]}, {(p, 0): [1, 2] for p in range(LEAST_NGRAMS // 2 - 1)}])
def test_too_short_responses_are_undefined_and_counted(texts):
    scale = scale_of([responses(texts), responses(drawn(np.random.default_rng(0)))])
    assert min(scale.sizes.values()) > 0, "a set that tells nothing does not set the size of the others"
    for metric, row in measured(texts, scale).items():
        estimate = row["estimate"]
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.ci_low)
        assert estimate.n + estimate.n_undefined == sum(map(len, texts.values()))
        assert estimate.n == len(ngrams_in(texts, DIVERSITY[metric]))
    changes = diversity_differences(responses(texts), responses(drawn(np.random.default_rng(0))), scale)
    assert all(math.isnan(e.value) for e in changes.values())


def test_no_interval_where_a_prompt_holds_most_of_it():
    texts = {(0, 0): [1, 2, 3, 4] * 15, (1, 0): [1, 2, 3], **{(p, 0): [4, 1, 2] for p in range(2, 6)}}
    for metric, row in measured(texts, scale_of([responses(texts)])).items():
        estimate = row["estimate"]
        assert math.isfinite(estimate.value), metric
        assert math.isnan(estimate.ci_low) == (metric != ENTROPY), metric


def test_intervals_cover_as_often_as_they_say():
    """Of the statistic's own expectation; prompts are drawn, and each has tokens of its own out of a Zipf mixture."""
    rng = np.random.default_rng(8)
    common = 1 / np.arange(1, 31)
    scale, found = Scale({1: 200, 2: 200, 3: 200}, 99.0), {metric: [] for metric in DIVERSITY}
    places = {"prompt_index": np.repeat(np.arange(24), 20), "rollout_index": 0, "position": np.tile(np.arange(20), 24)}
    for _ in range(300):
        chances = rng.dirichlet(9 * common / common.sum(), size=24)
        tokens = (rng.random((24, 20, 1)) > chances.cumsum(1)[:, None]).sum(-1).clip(max=29)
        for row in diversity_rows(pd.DataFrame(places).assign(sampled_id=tokens.ravel()), scale):
            found[row["metric"]].append(row["estimate"])
    for metric, estimates in found.items():
        values = [e.value for e in estimates]
        rate = np.mean([e.ci_low <= np.mean(values) <= e.ci_high for e in estimates])
        assert (0.88 if metric == TRIGRAMS else 0.92) <= rate <= 0.985, (metric, rate)
        assert np.mean([e.standard_error for e in estimates]) == pytest.approx(np.std(values), rel=0.15), metric
