"""Tables of a made-up run: means of each metric by checkpoint, and how sure they are."""

from __future__ import annotations

import re

import pandas as pd

from opd_diag.tables import BY_NAME, METRIC_NAMES, Tables
from opd_diag.tables.summary import DIFFERENCE_COLUMNS, OUTCOMES, SUMMARY_COLUMNS

HEALTHY = {
    "overlap_ratio": (0.40, 0.55, 0.70),
    "reverse_kl": (1.00, 0.60, 0.30),
    "student_overlap_mass": (0.92, 0.95, 0.98),
    "teacher_overlap_mass": (0.91, 0.94, 0.97),
    "entropy_gap": (0.80, 0.60, 0.40),
    "entropy_difference": (0.70, 0.50, 0.30),
    "accuracy": (0.10, 0.30, 0.60),
}
"""Means on own states, by checkpoint; at the start's states the same unless told."""


def run(changes=None, start=None, *, checkpoints=3, prompts=32, error=0.01, states=("on-policy", "start")):
    """Tables of `checkpoints` checkpoints.

    `changes` replaces means on own states, `start` those at the start's states; values are repeated or cut to fit.
    Every mean and difference has the interval ± `error` (a number, or one a metric).
    """
    own = HEALTHY | dict.fromkeys(set((*METRIC_NAMES, *OUTCOMES)) - set(HEALTHY), (0.5,)) | (changes or {})
    means = {"on-policy": own, "start": own | (start or {})}
    summary, differences = [], []
    for state_set in states:
        for metric in METRIC_NAMES if state_set == "start" else (*METRIC_NAMES, *OUTCOMES):
            values = _fitted(means[state_set][metric], checkpoints)
            half = error.get(metric, 0.01) if isinstance(error, dict) else error
            keys = {"teacher": "big", "states": state_set, "metric": metric, "n_prompts": prompts}
            keys["k"] = 16 if metric in BY_NAME and BY_NAME[metric].depends_on_k else pd.NA
            for i, value in enumerate(values):
                interval = {"value": value, "ci_low": value - half, "ci_high": value + half}
                counts = {"n_states": 640, "n_rollouts": 64, "n_undefined": 0, "aggregation": "token mean"}
                summary.append(keys | interval | counts | {"step": 10 * i, "label": f"step {10 * i}"})
                if i:
                    value -= values[0]
                    differences.append(
                        keys
                        | {"value": value, "ci_low": value - half, "ci_high": value + half}
                        | {"from_step": 0, "from_label": "step 0", "to_step": 10 * i, "to_label": f"step {10 * i}"}
                    )
    nothing = pd.DataFrame()
    return Tables(
        states=nothing,
        rollouts=nothing,
        summary=pd.DataFrame(summary, columns=SUMMARY_COLUMNS).astype({"step": "Int64", "k": "Int64"}),
        concentration=nothing,
        depth=nothing,
        differences=pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS),
    )


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
