"""What responses solve: correct ones by prompt, pass@k, prompts solved and forgotten, how much of a lead arrived."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.tables.ranges import within_range
from opd_diag.tables.rows import estimate_columns

ATTEMPT_COLUMNS = ["label", "step", "prompt_index", "prompt_id", "group", "n_correct", "n_rollouts"]
PASS_COLUMNS = ["label", "step", "k", "value", "ci_low", "ci_high", "approximate", "n_prompts", "n_rollouts"]
ITEM_COLUMNS = [
    "prompt_index", "prompt_id", "group", "first_correct", "first_rollouts", "last_correct", "last_rollouts",
    "outcome", "p_adjusted",
]  # fmt: skip


def attempt_table(by_writer: Mapping[str, Sequence[Rollout]]) -> pd.DataFrame:
    """Count correct responses, one row a (writer, prompt).

    Parameters
    ----------
    by_writer
        Responses by the label of who wrote them, the checkpoints in order.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; `n_rollouts` counts those that could be graded, and prompts without one
        are left out.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for label, rollouts in by_writer.items():
        for rollout in rollouts:
            if rollout.is_correct is None:
                continue
            of = {"label": label, "step": rollout.provenance.step, "prompt_index": rollout.prompt_index}
            of |= {"prompt_id": rollout.prompt_id, "group": rollout.group, "n_correct": 0, "n_rollouts": 0}
            row = rows.setdefault((label, rollout.prompt_index), of)
            row["n_correct"] += rollout.is_correct
            row["n_rollouts"] += 1
    return pd.DataFrame(list(rows.values()), columns=ATTEMPT_COLUMNS).astype({"step": "Int64"})


def most_tries(attempts: pd.DataFrame) -> int:
    """Give the largest k that every prompt has responses for; 0 without any."""
    return int(attempts["n_rollouts"].min()) if len(attempts) else 0


def pass_table(attempts: pd.DataFrame) -> pd.DataFrame:
    """Give pass@k of each writer, for k = 1, 2, 4, … and the largest that every prompt has responses for.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; `value` is the mean over prompts of the unbiased estimate, in [0, 1], the
        interval 95 % over prompts.
    """
    rows = []
    for label, of in attempts.groupby("label", sort=False):
        for k in tries(most_tries(attempts)):
            values = _pass_at(of, k)
            estimate = stats.open_share(stats.clustered_mean(values, of["prompt_index"].to_numpy()), values)
            about = {"label": label, "step": of["step"].iloc[0], "metric": "pass_at_k", "k": k}
            rows.append(about | estimate_columns(estimate) | {"n_rollouts": of["n_rollouts"].sum()})
    table = within_range(pd.DataFrame(rows, columns=["metric", *PASS_COLUMNS]))
    return table[PASS_COLUMNS].astype({"step": "Int64", "approximate": bool})


def tries(most: int) -> list[int]:
    """Give the k of pass@k: powers of two, and the largest.

    Examples
    --------
    >>> tries(6), tries(1), tries(0)
    ([1, 2, 4, 6], [1], [])
    """
    powers = [2**i for i in range(most.bit_length())]
    return powers if not powers or powers[-1] == most else [*powers, most]


def pass_difference(attempts: pd.DataFrame, first: str, last: str, k: int) -> stats.Estimate:
    """Give pass@k of the last writer minus that of the first, paired by prompt."""
    one, two = _shared(attempts, first, last)
    values = _pass_at(one, k), _pass_at(two, k)
    difference = stats.clustered_mean_difference(values[0], one["prompt_index"], values[1], two["prompt_index"])
    return stats.paired_share_difference(difference, *values)


def on_shared_prompts(attempts: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Give the rows of these writers on the prompts that all of them have."""
    of = attempts[attempts["label"].isin(labels)]
    writers = of.groupby("prompt_index")["label"].transform("nunique")
    return of[writers == len(set(labels))]


def item_table(attempts: pd.DataFrame, first: str, last: str) -> pd.DataFrame:
    """Hold two writers against each other prompt by prompt.

    Returns
    -------
    DataFrame
        One row a prompt that both have responses to; columns as in :mod:`opd_diag.tables`. Solved is: at least half of
        the responses are correct. `p_adjusted` is of no change in the share of correct responses
        (:func:`~opd_diag.stats.changed_items`).
    """
    one, two = _shared(attempts, first, last)
    solved = [2 * of["n_correct"].to_numpy() >= of["n_rollouts"].to_numpy() for of in (one, two)]
    chosen = np.where(
        solved[0], np.where(solved[1], "kept", "forgotten"), np.where(solved[1], "solved", "unsolved")
    ).astype(object)
    counts = [of[name].to_numpy() for of in (one, two) for name in ("n_correct", "n_rollouts")]
    table = one[["prompt_index", "prompt_id", "group"]].reset_index(drop=True)
    table = table.assign(first_correct=counts[0], first_rollouts=counts[1], last_correct=counts[2])
    table = table.assign(last_rollouts=counts[3], outcome=chosen, p_adjusted=stats.changed_items(*counts))
    return table[ITEM_COLUMNS]


def gap_recovery(attempts: pd.DataFrame, first: str, last: str, teacher: str) -> stats.Estimate:
    """Give how much of the teacher's lead in accuracy arrived, with a jackknife interval over prompts.

    Formula: (A_last - A_first) / (A_teacher - A_first), each the mean over prompts of the share of correct responses,
    of the prompts that all three have. It may leave [0, 1].

    References
    ----------
    arXiv 2604.13016, section 3.2 (gap recovery rate).
    """
    shares = [
        attempts[attempts["label"] == label]
        .set_index("prompt_index")
        .pipe(lambda of: of["n_correct"] / of["n_rollouts"])
        for label in (first, last, teacher)
    ]
    table = pd.concat(shares, axis=1, join="inner").to_numpy(float)
    n = len(table)
    total = table.sum(axis=0)
    left_out = [_recovered(total - row) for row in table] if n > 1 else []
    return stats.clustered_jackknife(_recovered(total), left_out, n=n)


def _recovered(sums: np.ndarray) -> float:
    before, after, theirs = sums
    return math.nan if theirs == before else float((after - before) / (theirs - before))


def _pass_at(of: pd.DataFrame, k: int) -> np.ndarray:
    return stats.pass_at_k(of["n_correct"].to_numpy(), of["n_rollouts"].to_numpy(), k)


def _shared(attempts: pd.DataFrame, first: str, last: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give the rows of two writers on the prompts that both have, in the same order."""
    both = on_shared_prompts(attempts, (first, last)).sort_values("prompt_index")
    return both[both["label"] == first], both[both["label"] == last]
