"""A distillation run as a Markov chain over three tokens, where every mean over states can be enumerated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import torch

from opd_diag.tables import BY_NAME, METRIC_NAMES
from opd_diag.tables.states import IDENTITY

from .made_up import naive_gradient, naive_metrics, of_distributions, rollout, shared_at

V, T, K = 3, 3, 2
"""Tokens, length of every rollout, tokens compared."""

FIRST = np.array([[5, 2, 1], [1, 4, 3], [2, 1, 5]]) / 8
"""The first student: the next token given the one before, in eighths."""
LATER = np.array([[1, 3, 4], [3, 4, 1], [5, 2, 1]]) / 8
TEACHER = np.array([[0.15, 0.25, 0.6], [0.2, 0.45, 0.35], [0.1, 0.6, 0.3]])
SAMPLED = ["sampled_reverse_kl", "tail_sampled_reverse_kl", "near_zero_advantage_rate", "signal_to_noise"]
"""They depend on the sampled token, and so on more than the state."""
EXACT_METRICS = [name for name in METRIC_NAMES if name not in SAMPLED]


def values_of(student):
    """(V, metrics) every metric at the state after each token, by formulas that share no code with the package."""
    rows = [naive_metrics(student[v], TEACHER[v], 0, K, kept=K) for v in range(V)]
    return np.array([[row[name] for name in EXACT_METRICS] for row in rows])


def counts_of(student):
    """(V, metrics) what the state after each token counts: 1, or as much as the column that the metric names."""
    columns = weight_columns(student)
    return np.stack([columns.get(BY_NAME[name].weight, np.ones(V)) for name in EXACT_METRICS], axis=1)


def weight_columns(student):
    """(V,) each column that means are weighted by: squared length of the gradient, tokens both top-k share."""
    lengths = [naive_gradient(student[v], TEACHER[v]).sum() for v in range(V)]
    counts = [float(len(shared_at(student[v], TEACHER[v], K))) for v in range(V)]
    return {"gradient_squared_norm": np.array(lengths), "shared_tokens": np.array(counts)}


def exact_mean(student, visited_by, starts=tuple(range(V))):
    """M_student(S_visited_by): over all trajectories from equally likely prompts, the mean over their T states."""
    counts = counts_of(student)
    values = counts * values_of(student)
    total, size = np.zeros(len(EXACT_METRICS)), np.zeros(len(EXACT_METRICS))
    for start in starts:
        for path in product(range(V), repeat=T):
            before = (start, *path[:-1])
            probability = np.prod([visited_by[a, b] for a, b in zip(before, path, strict=True)])
            total += probability * values[list(before)].mean(0) / len(starts)
            size += probability * counts[list(before)].mean(0) / len(starts)
    return total / size


def exact_split(first, later, *, both_orders=False, states_of_later=None):
    """The parts of the change, enumerated; `states_of_later` visits other states than `later` scores by."""
    own = later if states_of_later is None else states_of_later
    start_start, now_start = exact_mean(first, first), exact_mean(later, first)
    now_own, start_own = exact_mean(later, own), exact_mean(first, own)
    policy, state = now_start - start_start, now_own - now_start
    parts = {"on_policy_change": now_own - start_start, "policy_change": policy, "state_change": state}
    if both_orders:
        other_policy, other_state = now_own - start_own, start_own - start_start
        parts |= {"policy_change": (policy + other_policy) / 2, "state_change": (state + other_state) / 2}
        parts["order_difference"] = other_policy - policy
    return {part: dict(zip(EXACT_METRICS, values, strict=True)) for part, values in parts.items()}


def every_path(policy, start):
    """All responses to the prompt that ends in `start`, each as often as its probability says of 8^T."""
    paths = []
    for path in product(range(V), repeat=T):
        before = (start, *path[:-1])
        times = 8**T * np.prod([policy[a, b] for a, b in zip(before, path, strict=True)])
        assert times == int(times)
        paths += [path] * int(times)
    assert len(paths) == 8**T
    return paths


def sampled_paths(policy, starts, rollouts, rng, length=T):
    """(prompts, rollouts, 1 + length) tokens, the prompt's last one first."""
    cumulative = policy.cumsum(1)
    tokens = np.empty((len(starts), rollouts, 1 + length), dtype=int)
    tokens[:, :, 0] = np.asarray(starts)[:, None]
    for t in range(length):
        drawn = rng.random(tokens.shape[:2])
        tokens[:, :, t + 1] = (drawn[..., None] > cumulative[tokens[:, :, t]]).sum(-1).clip(max=V - 1)
    return tokens


def scored_chain(student, paths, *, step, states, listed_under=None):
    """Scores of `student` at the states of `paths`, (prompts, rollouts, 1 + T) tokens, in float64."""
    rollouts = [
        rollout(prompt, index, label="someone", response_ids=tuple(int(v) for v in path[1:]))
        for prompt, of_prompt in enumerate(paths)
        for index, path in enumerate(of_prompt)
    ]
    before = np.concatenate([np.asarray(path[:-1]) for of_prompt in paths for path in of_prompt])
    places = [(row, position) for row, r in enumerate(rollouts) for position in range(len(r.response_ids))]
    made = of_distributions(
        rollouts, places, np.zeros(len(places), dtype=bool),
        torch.tensor(student).log()[before], torch.tensor(TEACHER).log()[before],
        [token for r in rollouts for token in r.response_ids],
        step=step, label=f"step {step}", states=states, dtype=torch.float64,
    )  # fmt: skip
    if listed_under is not None:
        made.scores.provenance["checkpoint"] = {"label": f"step {listed_under}", "step": listed_under}
    return made


def chain_table(student, tokens, *, step, states):
    """The state table of `student` at the states of `tokens`, without scores: fast, for many repetitions."""
    prompts, rollouts, length = tokens.shape[0], tokens.shape[1], tokens.shape[2] - 1
    values = values_of(student)[tokens[:, :, :-1].ravel()]
    identity = dict(zip(IDENTITY, (step, f"step {step}", "big", states), strict=True))
    table = pd.DataFrame(values, columns=EXACT_METRICS).assign(**identity, k=K)
    table[SAMPLED] = np.nan
    table["unknown_mass"] = 0.0
    for name, column in weight_columns(student).items():
        table[name] = column[tokens[:, :, :-1].ravel()]
    table["prompt_index"] = np.repeat(np.arange(prompts), rollouts * length)
    return table
