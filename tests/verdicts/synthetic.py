"""Tables of a made-up run: means of each metric by checkpoint, and how sure they are."""

from __future__ import annotations

import re

import pandas as pd

from opd_diag.tables import BY_NAME, METRIC_NAMES, Tables
from opd_diag.tables.responses import RESPONSE_METRICS
from opd_diag.tables.split import SPLIT_COLUMNS
from opd_diag.tables.summary import DIFFERENCE_COLUMNS, SUMMARY_COLUMNS

HEALTHY = {
    "overlap_ratio": (0.40, 0.55, 0.70),
    "reverse_kl": (1.00, 0.60, 0.30),
    "forward_kl": (1.20, 0.80, 0.40),
    "student_overlap_mass": (0.92, 0.95, 0.98),
    "teacher_overlap_mass": (0.91, 0.94, 0.97),
    "entropy_gap": (0.80, 0.60, 0.40),
    "entropy_difference": (0.70, 0.50, 0.30),
    "accuracy": (0.10, 0.30, 0.60),
}
"""Means on own states, by checkpoint; at the start's and the teacher's states the same unless told."""

WITHOUT_DIFFERENCE = {("teacher", name) for name in RESPONSE_METRICS}
"""The teacher's own responses do not change."""


def run(
    changes=None,
    start=None,
    teacher=None,
    *,
    checkpoints=3,
    prompts=32,
    error=0.01,
    states=("on-policy", "start", "teacher"),
):
    """Tables of `checkpoints` checkpoints.

    `changes` replaces means on own states, `start` and `teacher` those at the start's and the teacher's; values are
    repeated or cut to fit. Every mean and difference has the interval ± `error` (a number, or one a metric).
    """
    own = HEALTHY | dict.fromkeys(set((*METRIC_NAMES, *RESPONSE_METRICS)) - set(HEALTHY), (0.5,)) | (changes or {})
    means = {"on-policy": own, "start": own | (start or {}), "teacher": own | (teacher or {})}
    summary, differences = [], []
    for state_set in states:
        for metric in METRIC_NAMES if state_set == "start" else (*METRIC_NAMES, *RESPONSE_METRICS):
            values = _fitted(means[state_set][metric], checkpoints)
            half = _half(error, metric)
            keys = {"teacher": "big", "states": state_set, "metric": metric, "n_prompts": prompts}
            keys["k"] = 16 if metric in BY_NAME and BY_NAME[metric].depends_on_k else pd.NA
            for i, value in enumerate(values):
                interval = {"value": value, "ci_low": value - half, "ci_high": value + half}
                counts = {"n_states": 640, "n_rollouts": 64, "n_undefined": 0, "aggregation": "token mean"}
                summary.append(keys | interval | counts | {"step": 10 * i, "label": f"step {10 * i}"})
                if i and (state_set, metric) not in WITHOUT_DIFFERENCE:
                    differences.append(keys | _estimate(value - values[0], half) | _pair(i, "to_"))
    nothing = pd.DataFrame()
    return Tables(
        states=nothing,
        rollouts=nothing,
        summary=pd.DataFrame(summary, columns=SUMMARY_COLUMNS).astype({"step": "Int64", "k": "Int64"}),
        concentration=nothing,
        depth=nothing,
        differences=pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS),
        split=_split(means, checkpoints, prompts, error)
        if {"on-policy", "start"} <= {*states}
        else _split({}, 0, 0, 0),
    )


def _split(means, checkpoints, prompts, error):
    rows = []
    for metric in METRIC_NAMES if means else ():
        own, start = (_fitted(means[s][metric], checkpoints) for s in ("on-policy", "start"))
        for i in range(1, checkpoints):
            parts = {"on_policy_change": own[i] - own[0], "policy_change": start[i] - start[0]}
            parts["state_change"] = parts["on_policy_change"] - parts["policy_change"]
            for part, value in parts.items():
                known = {"teacher": "big", "metric": metric, "k": pd.NA, "n_prompts": prompts, "orders": 1}
                rows.append(known | {"part": part} | _estimate(value, _half(error, metric)) | _pair(i, ""))
    return pd.DataFrame(rows, columns=SPLIT_COLUMNS)


def _half(error, metric):
    return error.get(metric, 0.01) if isinstance(error, dict) else error


def _estimate(value, half):
    return {"value": value, "ci_low": value - half, "ci_high": value + half}


def _pair(i, to):
    return {"from_step": 0, "from_label": "step 0", f"{to}step": 10 * i, f"{to}label": f"step {10 * i}"}


def _fitted(values, n):
    """The first and the last stay; others are dropped or the last repeated."""
    values = list(values)
    if len(values) < n:
        return values + [values[-1]] * (n - len(values))
    return values if len(values) == n else [*values[: n - 1], values[-1]] if n > 1 else values[-1:]


def numbers_in(text):
    """The decimal numbers of a sentence, however they are rounded."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    return [float(n) for n in re.findall(r"[-+]?\d+\.\d+", plain)]
