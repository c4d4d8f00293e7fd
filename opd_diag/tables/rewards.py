"""How the sampled advantage, a trainer's reward, is spread: over tokens, and between right and wrong responses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from opd_diag import stats
from opd_diag.tables.rows import estimate_columns, rollout_ids
from opd_diag.tables.tails import top_share

REWARD_METRICS = ("top_advantage_share", "reward_auroc")
"""What is measured, on the states that the checkpoint sampled itself."""

TOP = 0.01
"""Share of the tokens that is the top."""

LEAST_TOKENS = round(1 / TOP)
"""Fewer tokens have no top 1 %: undefined."""

Floats = npt.NDArray[np.float64]
Statistic = Callable[[pd.DataFrame], tuple[float, Floats]]


def reward_rows(states: pd.DataFrame, rollouts: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the summary's rows of one checkpoint's own states: :func:`top_advantage_share`, :func:`reward_auroc`.

    Parameters
    ----------
    states, rollouts
        From :func:`~opd_diag.tables.measure` and :func:`~opd_diag.tables.rollout_table`, one set.
    """
    rows = []
    for metric, of, statistic in _of_each(states, rollouts):
        used = _used(of)
        estimate = stats.clustered_jackknife(*statistic(used), n=len(used), n_undefined=len(of) - len(used))
        of_states = len(used) if metric == "top_advantage_share" else int(used["n_states"].sum())
        counts = {"n_states": of_states, "n_rollouts": len(np.unique(rollout_ids(used)))}
        about = {"metric": metric, "k": pd.NA, "aggregation": "pooled", "n_undefined": estimate.n_undefined}
        rows.append(estimate_columns(estimate) | about | counts)
    return rows


def reward_differences(
    earlier: tuple[pd.DataFrame, pd.DataFrame], later: tuple[pd.DataFrame, pd.DataFrame]
) -> dict[str, stats.Estimate]:
    """Give, by quantity, the later (states, rollouts) minus the earlier, over the prompts that both have."""
    found = {}
    for (metric, one, statistic), (_, two, _) in zip(_of_each(*earlier), _of_each(*later), strict=True):
        first, second = _used(one), _used(two)
        both = np.intersect1d(first["prompt_index"], second["prompt_index"])
        first, second = (of[of["prompt_index"].isin(both)] for of in (first, second))
        undefined = len(one) + len(two) - len(first) - len(second)
        found[metric] = stats.clustered_jackknife_difference(
            *statistic(first), *statistic(second), n=len(second), n_undefined=undefined
        )
    return found


def top_advantage_share(advantages: npt.ArrayLike, prompts: npt.ArrayLike) -> tuple[float, Floats]:
    """Share of the total size of all sampled advantages that lies in the top 1 % of the tokens.

    Formula: Σ_{i ≤ m} |A|_(i) / Σ_i |A|_(i), |A| in falling order and m = n/100, where the last token counts in part if
    m is no whole number; A = log q(y) - log p(y) of the sampled token. All tokens pooled.

    Parameters
    ----------
    advantages
        (n,) nats, all defined; the sign does not matter.
    prompts
        (n,) prompt of each token.

    Returns
    -------
    tuple
        The share, in [.01, 1], and (G,) the share without each prompt, by rising number. NaN for fewer than
        `LEAST_TOKENS` tokens, and where all advantages are 0.

    Notes
    -----
    Caution: a gradient that comes from few tokens is no fault as such; the share also rises where most tokens are
    settled. Heavy tails make the value of few tokens uncertain, and the interval with it.

    References
    ----------
    arXiv 2603.25562, which finds that a few tokens of positive reward dominate.

    Examples
    --------
    >>> share, _ = top_advantage_share([-50.0] + 199 * [0.5], [0, 1] * 100)  # 2 of 200 tokens: 50.5 of 149.5
    >>> round(share, 4)
    0.3378
    """
    return top_share(np.abs(np.asarray(advantages, dtype=np.float64)), prompts, TOP)


def reward_auroc(rewards: npt.ArrayLike, is_correct: npt.ArrayLike, prompts: npt.ArrayLike) -> tuple[float, Floats]:
    """Probability that a right response has a higher mean sampled advantage than a wrong one. Does not predict success.

    Formula: AUROC = (1/(R₊ R₋)) Σ_{i right} Σ_{j wrong} [r_i > r_j] + ½ [r_i = r_j], with the sequence reward
    r = (1/T) Σ_t [log q(y_t) - log p(y_t)] of each rollout; all pairs, those of different prompts included.

    Parameters
    ----------
    rewards
        (R,) nats, all defined.
    is_correct
        (R,) whether each rollout is right.
    prompts
        (R,) prompt of each.

    Returns
    -------
    tuple
        The probability, .5 where the reward does not tell right from wrong, and (G,) it without each prompt, by rising
        number. NaN without a right or without a wrong rollout. The second is NaN too, so that there is no interval,
        where right or wrong rollouts are of fewer than :data:`opd_diag.stats.MIN_CLUSTERS` prompts, and where all pairs
        agree: leaving prompts out would show no error at all.

    Notes
    -----
    Caution: it was .73 in the paper's run that succeeds and .75 in the one that fails: whether the reward tells right
    from wrong says nothing about whether the student learns. A prompt that is hard also has low rewards, so part of it
    is difficulty.

    References
    ----------
    arXiv 2604.13016, section 6.2; Mann and Whitney (1947) for the statistic.

    Examples
    --------
    >>> reward_auroc([-1.0, -3.0, -2.0, -4.0], [True, True, False, False], [0, 1, 0, 1])
    (0.75, array([nan, nan]))
    """
    values, right = np.asarray(rewards, dtype=np.float64), np.asarray(is_correct, dtype=bool)
    names, codes = np.unique(np.asarray(prompts), return_inverse=True)
    size, won = len(names), _pairs_won(values, right)
    rights, wrongs = (np.bincount(codes[of], minlength=size) for of in (right, ~right))
    wins, inside = float(won[right].sum()), np.zeros(size)
    for prompt in np.flatnonzero((rights > 0) & (wrongs > 0)):  # pairs of one prompt, which leave it twice below
        of = codes == prompt
        inside[prompt] = _pairs_won(values[of], right[of])[right[of]].sum()
    left = wins - np.bincount(codes, weights=won, minlength=size) + inside
    pairs, all_pairs = (rights.sum() - rights) * (wrongs.sum() - wrongs), int(rights.sum() * wrongs.sum())
    if not all_pairs:
        return math.nan, np.full(size, np.nan)
    told = 0 < wins < all_pairs and min(np.count_nonzero(rights), np.count_nonzero(wrongs)) >= stats.MIN_CLUSTERS
    return wins / all_pairs, left / pairs if told else np.full(size, np.nan)


def _pairs_won(values: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """Give, for each response, in how many of its pairs the right one has the higher value; a tie is half."""
    below = rankdata(values)
    for kind in (right, ~right):
        below[kind] -= rankdata(values[kind])  # what is left: those of the other kind below, ties half
    return np.where(right, below, right.sum() - below)


def _of_each(states: pd.DataFrame, rollouts: pd.DataFrame) -> list[tuple[str, pd.DataFrame, Statistic]]:
    """Give what each quantity is of, and how it follows from that."""
    of_states = states[["prompt_index", "rollout_index"]].assign(reward=-states["sampled_reverse_kl"], is_right=0.0)
    of_rollouts = rollouts[["prompt_index", "rollout_index", "n_states"]].assign(
        reward=-rollouts["sampled_reverse_kl"],
        is_right=rollouts["is_correct"].astype("Float64").to_numpy(float, na_value=np.nan),
    )
    return [(REWARD_METRICS[0], of_states, _share_of), (REWARD_METRICS[1], of_rollouts, _auroc_of)]


def _share_of(states: pd.DataFrame) -> tuple[float, Floats]:
    return top_advantage_share(states["reward"], states["prompt_index"])


def _auroc_of(rollouts: pd.DataFrame) -> tuple[float, Floats]:
    return reward_auroc(rollouts["reward"], rollouts["is_right"], rollouts["prompt_index"])


def _used(of: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of which all is known."""
    return of[of["reward"].notna() & of["is_right"].notna()]
