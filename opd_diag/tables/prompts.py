"""Prompt by prompt: how alike both models are on it, how sure the student is, and what the teacher has over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.tables.ranges import range_of
from opd_diag.tables.responses import outcomes_of
from opd_diag.tables.rows import estimate_columns

OF_STATES = (
    "student_overlap_mass", "teacher_overlap_mass", "overlap_ratio", "teachable_mass", "reverse_kl",
    "student_entropy", "teacher_entropy",
)  # fmt: skip
"""Metrics of the catalogue, averaged over the states of a response."""

OF_RESPONSES = ("reverse_kl_of_response", "response_length", "truncation_rate", "accuracy")
"""Of the student's responses; the first is the sum of reverse KL over a response, in nats."""

OF_TEACHER = ("teacher_accuracy", "teacher_lead")
"""Of the teacher's responses, and less the student's accuracy; NaN where they were not graded."""

QUANTITIES = (*OF_STATES, *OF_RESPONSES, *OF_TEACHER)

ABOUT = ["prompt_index", "prompt_id", "group"]

PROMPT_COLUMNS = [
    *ABOUT, "n_rollouts",
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_ci_low", "_ci_high", "_shrunken")),
]  # fmt: skip
RELIABILITY_COLUMNS = ["quantity", "mean", "between", "within", "reliability", "n_prompts", "n_rollouts"]
SET_COLUMNS = [
    "quantity", "first", "first_ci_low", "first_ci_high", "second", "second_ci_low", "second_ci_high",
    "value", "ci_low", "ci_high", "approximate", "n_first", "n_second", "is_paired",
]  # fmt: skip

Estimates = dict[str, tuple[stats.Estimate, stats.Estimate, stats.Estimate]]
"""First mean, second mean, and their difference, by quantity."""


def prompt_values(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Give the quantities of each response of the student's, and beside it one response of the teacher's.

    Parameters
    ----------
    rollouts
        From :func:`~opd_diag.tables.rollout_table`, of one student on ``on-policy`` and, or not, ``teacher``.

    Returns
    -------
    DataFrame
        One row a (prompt, response of the student): `ABOUT`, ``rollout_index``, `QUANTITIES`. A value that is not
        finite is NaN. ``teacher_lead`` takes the responses of equal index together; they are independent of each other.
    """
    found = outcomes_of(rollouts)
    found = found.assign(reverse_kl_of_response=found["reverse_kl"] * found["response_length"])
    own, theirs = (found[found["states"] == states] for states in ("on-policy", "teacher"))
    keys = ["prompt_index", "rollout_index"]
    graded = theirs[[*keys, "accuracy"]].rename(columns={"accuracy": "teacher_accuracy"})
    table = own[[*ABOUT, "rollout_index", *OF_STATES, *OF_RESPONSES]].merge(graded, on=keys, how="left")
    table = table.assign(teacher_lead=table["teacher_accuracy"] - table["accuracy"])
    numbers = table[list(QUANTITIES)].astype(float)
    table[list(QUANTITIES)] = numbers.where(np.isfinite(numbers))
    return table.sort_values(keys, kind="stable", ignore_index=True)


def prompt_table(values: pd.DataFrame) -> pd.DataFrame:
    """Average the responses to each prompt, each response counting alike.

    Returns
    -------
    DataFrame
        One row a prompt, `PROMPT_COLUMNS`. ``<name>_ci_low`` and ``<name>_ci_high`` are a 95 % interval over the
        responses to this prompt, with one variance for all prompts (:func:`opd_diag.stats.group_means`), as the prompt
        is what is asked about; NaN where no prompt has two. ``<name>_shrunken`` is the mean drawn toward that of all
        prompts.
    """
    prompts = values["prompt_index"].to_numpy()
    about = values.drop_duplicates("prompt_index")[ABOUT].sort_values("prompt_index", ignore_index=True)
    counts = values.groupby("prompt_index").size()
    columns: dict[str, np.ndarray] = {"n_rollouts": counts.to_numpy()}
    for name in QUANTITIES:
        found, (low, high) = stats.group_means(values[name].to_numpy(), prompts), _range(name)
        columns[name] = found.means
        columns[f"{name}_ci_low"] = np.maximum(found.means - found.half_widths, np.fmin(low, found.means))
        columns[f"{name}_ci_high"] = np.minimum(found.means + found.half_widths, np.fmax(high, found.means))
        columns[f"{name}_shrunken"] = found.shrunken
    return pd.concat([about, pd.DataFrame(columns)], axis=1)[PROMPT_COLUMNS]


def reliability_table(values: pd.DataFrame) -> pd.DataFrame:
    """Tell of each quantity how far prompts can be told apart by so many responses.

    Returns
    -------
    DataFrame
        One row a quantity, `RELIABILITY_COLUMNS`: mean over prompts, variances of the prompts' true means and of
        responses to one prompt, and `reliability`, the share of the variance of prompts' means that is not chance.
    """
    rows = []
    for name in QUANTITIES:
        known = values[values[name].notna()]
        found = stats.group_means(known[name].to_numpy(), known["prompt_index"].to_numpy())
        rows.append(
            {
                "quantity": name,
                "mean": float(found.means.mean()) if len(found.means) else float("nan"),
                "between": found.between,
                "within": found.within,
                "reliability": found.reliability,
                "n_prompts": len(found.means),
                "n_rollouts": len(known),
            }
        )
    return pd.DataFrame(rows, columns=RELIABILITY_COLUMNS)


def compared_sets(first: pd.DataFrame, second: pd.DataFrame, *, is_paired: bool) -> Estimates:
    """Hold two sets of prompts against each other, or one set read in two ways; every response counts alike.

    Parameters
    ----------
    first, second
        From :func:`prompt_values`.
    is_paired
        Whether prompts of one id are the same prompt, whose responses are then compared with each other. Otherwise the
        sets count as drawn apart.
    """
    found: Estimates = {}
    for name in QUANTITIES:
        one, two = (of[name].to_numpy() for of in (first, second))
        prompts = [of["prompt_id"].to_numpy().astype(str) for of in (first, second)]
        means = [mean_of(name, v, p) for v, p in zip((one, two), prompts, strict=True)]
        if is_paired:
            difference = _paired_difference(name, one, prompts[0], two, prompts[1])
        else:
            difference = stats.unpaired_difference(*means)
        found[name] = (means[0], means[1], difference)
    return found


def set_table(found: Estimates, *, is_paired: bool) -> pd.DataFrame:
    """Put a comparison into rows, one a quantity, `SET_COLUMNS`; `value` is second minus first."""
    rows = []
    for name, (one, two, difference) in found.items():
        row = {"quantity": name, "n_first": one.n_clusters, "n_second": two.n_clusters, "is_paired": is_paired}
        for which, of in (("first", one), ("second", two)):
            row |= {which: of.value, f"{which}_ci_low": of.ci_low, f"{which}_ci_high": of.ci_high}
        rows.append(estimate_columns(difference) | row)
    return pd.DataFrame(rows, columns=SET_COLUMNS)


def mean_of(name: str, values: np.ndarray, prompts: np.ndarray) -> stats.Estimate:
    """Give the mean of a quantity over responses, clustered by prompt, its interval cut to what it can be at all.

    A share that is 0 or 1, and a lead (the teacher's share less the student's, prompt by prompt) that few or no prompts
    have, keep an interval that has a width.
    """
    found = stats.clustered_mean(values, prompts)
    if name in _SHARES:
        found = stats.open_share(found, values)
    elif name == _LEAD:
        leads = _by_prompt(values, prompts)
        found = stats.paired_share_difference(found, np.zeros(len(leads)), leads)
    return within_its_range(name, found)


def within_its_range(name: str, found: stats.Estimate) -> stats.Estimate:
    """Cut the interval of a level to what the quantity can be at all, which takes nothing from its coverage."""
    low, high = _range(name)
    return replace(found, ci_low=max(found.ci_low, low), ci_high=min(found.ci_high, high))


def _range(name: str) -> tuple[float, float]:
    if name == _LEAD:
        return -1.0, 1.0
    return range_of({"teacher_accuracy": "accuracy", "reverse_kl_of_response": "reverse_kl"}.get(name, name))


def _paired_difference(
    name: str, one: np.ndarray, of_one: np.ndarray, two: np.ndarray, of_two: np.ndarray
) -> stats.Estimate:
    """Give the second mean less the first over the prompts that both have; of shares, and leads, one with a width."""
    found = stats.clustered_mean_difference(one, of_one, two, of_two)
    if name not in (*_SHARES, _LEAD):
        return found
    both = pd.concat([_by_prompt(one, of_one), _by_prompt(two, of_two)], axis=1, join="inner").to_numpy()
    return stats.paired_share_difference(found, both[:, 0], both[:, 1])


def _by_prompt(values: np.ndarray, prompts: np.ndarray) -> pd.Series:
    """Give the mean of each prompt that has one."""
    return pd.Series(values, dtype=float).groupby(prompts).mean().dropna()


_SHARES = ("truncation_rate", "accuracy", "teacher_accuracy")
_LEAD = "teacher_lead"
