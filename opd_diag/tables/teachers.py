"""Teachers side by side at one student's states: how far each is from the student, and they from each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import metrics, stats
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.bounds import outer
from opd_diag.tables.catalogue.metric import tensor, values

DISTANCE_COLUMNS = [
    "first", "second",
    *(f"{name}{end}" for name in ("symmetric_kl", "relative", "overlap_ratio", "advantage_correlation", "tas")
      for end in ("", "_ci_low", "_ci_high")),
    "bound_low", "bound_high", "n_states", "n_prompts",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


def distance_table(
    student: str,
    of_student: Mapping[str, Scores],
    between: Mapping[tuple[str, str], Scores],
    rollouts: Sequence[Rollout],
    k: int = 16,
) -> pd.DataFrame:
    """Give how far models are from each other at the states of one student.

    `symmetric_kl` is the mean over states of (KL(A‖B) + KL(B‖A))/2, in nats, at least 0. `relative`, of two teachers,
    is that over the mean of both teachers' own distances from the student: Σ J(A, B) / Σ (J(S, A) + J(S, B))/2. As KL
    goes as the square of a small step, it is 0 of copies, 2 of teachers that pull at right angles, and up to 4 of those
    that pull opposite ways. `overlap_ratio`, of two teachers, is the share of their top k that they have in common,
    0 to 1. `advantage_correlation` is Pearson's, over states, of what the two would reward at the
    sampled tokens, log q(y) - log p(y); NaN where one of them rewards all alike. `tas` is the teacher-selection score
    (:func:`~opd_diag.stats.tas_at_k`, k as many as responses to a prompt), above 0 in favour of the first; NaN where no
    prompt has a response that can be graded.

    Where a teacher's server returned its top K alone, the student's `symmetric_kl` is NaN and lies between `bound_low`
    and `bound_high`; of two teachers neither it nor `relative` is known unless `between` has the pair. The others are
    known of every two teachers.

    Parameters
    ----------
    student
        How the student is called.
    of_student
        Scores of the student against each teacher, on its own rollouts, by the teacher's name.
    between
        Scores of (first teacher, second teacher) on the same rollouts, of those that were held against each other.
    rollouts
        Those.
    k
        Tokens compared, at most as many as are kept.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`: first a row of student and each teacher, then one a pair of teachers;
        intervals are 95 %, over prompts.

    References
    ----------
    arXiv 2604.13016, section 3.3 (teachers that cannot be told apart at the student's states); arXiv 2608.11829.
    """
    rows: list[dict[str, Any]] = []
    prompts = {name: _prompts(scores, rollouts) for name, scores in of_student.items()}
    distances = {name: _symmetric_kl(scores) for name, scores in of_student.items()}
    for name in of_student:
        rows.append({"first": student, "second": name} | _from_student(*distances[name], prompts[name]))
    for first, second in itertools.combinations(of_student, 2):
        at, both = prompts[first], (of_student[first], of_student[second])
        advantages = [_advantages(scores) for scores in both]
        alike = stats.clustered_mean(_overlap_ratio(*both, k), at)
        row = {"first": first, "second": second} | _columns("overlap_ratio", alike)
        row |= _columns("advantage_correlation", clustered_correlation(advantages[0], advantages[1], at))
        row |= _columns("tas", _selection_score(*both, rollouts))
        row |= {"n_states": alike.n, "n_prompts": alike.n_clusters}
        if (first, second) in between:
            apart = _symmetric_kl(between[first, second])[0]
            from_student = (distances[first][0] + distances[second][0]) / 2
            ratio = np.divide(apart, from_student, out=np.full_like(apart, math.nan), where=from_student > 0)
            row |= _columns("relative", stats.clustered_mean(ratio, at, weights=from_student)) | _absolute(apart, at)
        rows.append(row)
    return pd.DataFrame(rows, columns=DISTANCE_COLUMNS)


def clustered_correlation(x: Floats, y: Floats, clusters: Ints) -> stats.Estimate:
    """Give Pearson's correlation of two columns over states, with a jackknife interval over prompts.

    NaN, without an interval, where a column does not vary.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 2.0, 3.0])
    >>> clustered_correlation(x, 2 * x + 1, np.array([0, 0, 1, 1])).value
    1.0
    """
    names, at = np.unique(clusters, return_inverse=True)
    moved = [column - column.mean() for column in (x, y)]  # sums of small numbers keep their digits
    a, b = moved
    parts = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b])
    sums = np.zeros((len(names), len(parts)))
    np.add.at(sums, at, parts.T)
    total = sums.sum(axis=0)
    return stats.clustered_jackknife(_correlation(total), [_correlation(total - of) for of in sums], n=len(x))


def _selection_score(first: Scores, second: Scores, rollouts: Sequence[Rollout]) -> stats.Estimate:
    """Give the teacher-selection score of the first against the second, its interval over prompts."""
    kept = ~first.terminal
    signal = first.teacher_sampled_logprobs.astype(np.float64) - second.teacher_sampled_logprobs
    by_rollout = pd.Series(signal[kept]).groupby(first.rollout[kept]).mean()
    of = [(rollouts[row], value) for row, value in zip(by_rollout.index.to_numpy(), by_rollout, strict=True)]
    graded = pd.DataFrame(
        [(rollout.prompt_index, rollout.is_correct, value) for rollout, value in of if rollout.is_correct is not None],
        columns=["prompt", "right", "signal"],
    )
    if graded.empty:
        return stats.clustered_mean([], [])
    mean = graded.pivot_table(index="prompt", columns="right", values="signal", aggfunc="mean")
    counts = graded.groupby("prompt")["right"].agg(["sum", "count"])
    delta = mean.reindex(columns=[False, True]).to_numpy(float)
    scores = stats.tas_at_k(
        counts["sum"].astype(int), counts["count"], delta[:, 1] - delta[:, 0], int(counts["count"].min())
    )
    return stats.clustered_mean(scores, counts.index.to_numpy())


def _correlation(sums: Floats) -> float:
    n, a, b, aa, bb, ab = (float(value) for value in sums)
    if n < 2:
        return math.nan
    var = (aa - a * a / n) * (bb - b * b / n)
    return (ab - a * b / n) / math.sqrt(var) if var > 0 else math.nan


def _absolute(distance: Floats, prompts: Ints) -> dict[str, Any]:
    estimate = stats.clustered_mean(distance, prompts)
    counts = {"n_states": estimate.n, "n_prompts": estimate.n_clusters}
    return _columns("symmetric_kl", estimate) | counts


def _columns(name: str, estimate: stats.Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_ci_low": estimate.ci_low, f"{name}_ci_high": estimate.ci_high}


def _from_student(low: Floats, high: Floats, prompts: Ints) -> dict[str, Any]:
    """Give the student's row: the distance itself, or what is known of it where the ends differ."""
    if np.array_equal(low, high, equal_nan=True):
        return _absolute(low, prompts)
    least = stats.clustered_mean(low, prompts)
    known = outer(least, stats.clustered_mean(high, prompts))
    counts = {"n_states": least.n, "n_prompts": least.n_clusters}
    ends = {f"symmetric_kl_{end}": known[end] for end in ("ci_low", "ci_high")}
    return (
        {"symmetric_kl": known["value"], "bound_low": known["bound_low"], "bound_high": known["bound_high"]}
        | ends
        | counts
    )


def _symmetric_kl(scores: Scores) -> tuple[Floats, Floats]:
    """Give (states,) the least and the greatest that it can be; the same twice where it is known."""
    reverse, forward = scores.ends("reverse_kl"), scores.ends("forward_kl")
    low, high = ((one + other)[~scores.terminal] / 2 for one, other in zip(reverse, forward, strict=True))
    return np.asarray(low), np.asarray(high)


def _overlap_ratio(first: Scores, second: Scores, k: int) -> Floats:
    ids = [tensor(scores.teacher_topk_ids[~scores.terminal, :k]) for scores in (first, second)]
    return values(metrics.overlap_ratio(ids[0], ids[1]))


def _advantages(scores: Scores) -> Floats:
    theirs, ours = scores.teacher_sampled_logprobs, scores.student_sampled_logprobs
    return np.asarray((theirs.astype(np.float64) - ours)[~scores.terminal])


def _prompts(scores: Scores, rollouts: Sequence[Rollout]) -> Ints:
    of = np.array([r.prompt_index for r in rollouts], dtype=np.intp)
    return np.asarray(of[scores.rollout[~scores.terminal]])
