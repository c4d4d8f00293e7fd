"""Intervals cover as often as they say on data like ours: states within rollouts within prompts."""

from __future__ import annotations

import math

import numpy as np

from opd_diag import stats


def hierarchical(rng, prompts=50, rollouts=2, states=20, prompt_sd=0.5, rollout_sd=0.4, state_sd=1.0):
    """Values around 0 that share an effect of their prompt and of their rollout, and their prompts."""
    prompt = np.repeat(np.arange(prompts), rollouts * states)
    values = rng.normal(scale=prompt_sd, size=prompts)[prompt]
    values += np.repeat(rng.normal(scale=rollout_sd, size=prompts * rollouts), states)
    return values + rng.normal(scale=state_sd, size=len(values)), prompt


def test_intervals_cover_as_often_as_they_say_and_token_level_intervals_do_not():
    rng = np.random.default_rng(20)
    draws, covered, covered_by_tokens = 800, 0, 0
    for _ in range(draws):
        values, prompts = hierarchical(rng)
        ours = stats.clustered_mean(values, prompts)
        tokens = stats.clustered_mean(values, np.arange(len(values)))
        covered += ours.ci_low <= 0 <= ours.ci_high
        covered_by_tokens += tokens.ci_low <= 0 <= tokens.ci_high
    assert 0.92 <= covered / draws <= 0.98
    assert covered_by_tokens / draws < 0.75


def test_paired_intervals_cover_and_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(21)
    draws, covered, narrower = 800, 0, 0
    for _ in range(draws):
        values, prompts = hierarchical(rng, prompt_sd=1.0)
        later = values + 0.5 + rng.normal(scale=0.3, size=50)[prompts]
        paired = stats.clustered_mean_difference(values, prompts, later, prompts)
        apart = math.hypot(
            stats.clustered_mean(values, prompts).standard_error, stats.clustered_mean(later, prompts).standard_error
        )
        covered += paired.ci_low <= 0.5 <= paired.ci_high
        narrower += paired.standard_error < 0.5 * apart
    assert 0.92 <= covered / draws <= 0.98
    assert narrower == draws


def test_contrasts_of_three_paired_samples_cover():
    """Half the change from the first to the second, and half of that to the third, whose clusters differ in size."""
    rng = np.random.default_rng(22)
    draws, covered = 800, 0
    for _ in range(draws):
        values, prompts = hierarchical(rng, prompt_sd=1.0)
        second = values + 0.5 + rng.normal(scale=0.3, size=50)[prompts]
        kept = rng.random(len(values)) < np.linspace(0.3, 1.0, 50)[prompts]
        third = values[kept] - 0.2 + rng.normal(scale=0.3, size=kept.sum())
        samples = [(values[:, None], prompts), (second[:, None], prompts), (third[:, None], prompts[kept])]
        (ours,) = stats.clustered_contrasts(samples, (-1.0, 0.5, 0.5))
        covered += ours.ci_low <= 0.15 <= ours.ci_high
    assert 0.92 <= covered / draws <= 0.98


def test_jackknife_intervals_of_a_difference_of_deviations_cover():
    """No mean: the standard deviation of the second sample less that of the first, paired by prompt."""
    rng = np.random.default_rng(23)
    draws, covered = 400, 0
    for _ in range(draws):
        values, prompts = hierarchical(rng, prompts=40, states=10)
        later = 1.5 * (values + rng.normal(scale=0.5, size=len(values)))
        ours = stats.clustered_jackknife_difference(
            *deviation(values, prompts), *deviation(later, prompts), n=len(later)
        )
        truth = 1.5 * math.sqrt(0.25 + 0.16 + 1 + 0.25) - math.sqrt(0.25 + 0.16 + 1)
        covered += ours.ci_low <= truth <= ours.ci_high
    assert 0.92 <= covered / draws <= 0.98


def deviation(values, prompts):
    """The standard deviation, and without each prompt, from sums."""
    sums = [np.bincount(prompts, weights=values**power) for power in range(3)]
    n, total, squares = (np.concatenate([[s.sum()], s.sum() - s]) for s in sums)
    spread = np.sqrt(squares / n - (total / n) ** 2)
    return spread[0], spread[1:]
