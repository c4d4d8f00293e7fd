"""Tables of a made-up run: means of each metric by checkpoint, and how sure they are."""

from __future__ import annotations

import math
import re

import pandas as pd

from opd_diag.records.selftest import SelfTest
from opd_diag.tables import BY_NAME, METRIC_NAMES, Tables
from opd_diag.tables.baselines import BASELINE_COLUMNS, CHANCE, OTHER_PRECISION, SHUFFLED
from opd_diag.tables.fits import FIT_COLUMNS
from opd_diag.tables.responses import RESPONSE_METRICS
from opd_diag.tables.split import SPLIT_COLUMNS
from opd_diag.tables.stops import STOP_METRICS
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

WITHOUT_DIFFERENCE = {("teacher", name) for name in set(RESPONSE_METRICS) - set(STOP_METRICS)}
"""The teacher's own responses do not change."""

SETS = ("on-policy", "start", "teacher")

POSITIONS = 8
"""Tokens of each made-up response."""

PASSED = (SelfTest("shift", "teacher", "pass", 0.0, math.nan, "It fits best at 0.", ""),)


def run(
    changes=None,
    start=None,
    teacher=None,
    *,
    checkpoints=3,
    prompts=32,
    error=0.01,
    states=SETS,
    marks=None,
    **more,
):
    """Tables of `checkpoints` checkpoints.

    `changes` replaces means on own states, `start` and `teacher` those at the start's and the teacher's; values are
    repeated or cut to fit. Every mean and difference has the interval ± `error` (a number, or one a metric). `marks`
    are columns of the differences, one value a metric. `more`: `answers` (accuracy of the initial student and of the
    teacher), `depth` (reverse KL early and late on own states, early and late on the teacher's), `temperature` (fitted,
    by checkpoint), `share` (of the reverse KL that goes with it).
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
                counts = {"n_states": 640, "n_rollouts": 64, "n_undefined": 0, "aggregation": "token mean"}
                summary.append(keys | _estimate(value, half) | counts | {"step": 10 * i, "label": f"step {10 * i}"})
                if i and (state_set, metric) not in WITHOUT_DIFFERENCE:
                    marked = {column: of.get(metric) for column, of in (marks or {}).items()}
                    differences.append(keys | marked | _estimate(value - values[0], half) | _pair(i, "to_"))
    return Tables(
        states=_states(states, checkpoints, prompts, more.get("depth", (0.5, 0.5, 0.5, 0.5))),
        rollouts=_rollouts(states, prompts, more.get("answers", (0.1, 0.9))),
        summary=pd.DataFrame(summary, columns=SUMMARY_COLUMNS).astype({"step": "Int64", "k": "Int64"}),
        concentration=pd.DataFrame(),
        depth=pd.DataFrame(),
        differences=pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS),
        split=_split(means, checkpoints, prompts, error)
        if {"on-policy", "start"} <= {*states}
        else _split({}, 0, 0, 0),
        fits=_fits(checkpoints, prompts, more.get("temperature", (1.0,)), more.get("share", 0.1), error)
        if "on-policy" in states
        else pd.DataFrame(columns=FIT_COLUMNS),
        baselines=_baselines(prompts),
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


def _states(sets, checkpoints, prompts, depth):
    """One response of `POSITIONS` tokens a prompt; prompts differ a little, so that there is an error."""
    levels = {"on-policy": depth[:2], "start": depth[:2], "teacher": depth[2:]}
    rows = [
        {
            "label": f"step {10 * i}",
            "states": state_set,
            "prompt_index": prompt,
            "rollout_index": 0,
            "position": position,
            "reverse_kl": levels[state_set][position >= POSITIONS // 2]
            + 0.01 * math.cos(7.0 * prompt + 3.0 * (position >= POSITIONS // 2) + len(state_set)),
        }
        for i in range(checkpoints)
        for state_set in sets
        for prompt in range(prompts)
        for position in range(POSITIONS)
    ]
    table = pd.DataFrame(rows)
    return table.assign(tail_sampled_reverse_kl=table["reverse_kl"], unknown_mass=1.0)


def _rollouts(sets, prompts, answers):
    """One response a prompt; as many of them correct, spread over the prompts, as `answers` say."""
    rows = []
    for state_set in sets:
        share = answers[state_set == "teacher"]
        right = [
            math.floor((i + 1) * share) > math.floor(i * share) if share == share else pd.NA for i in range(prompts)
        ]
        rows += [
            {"label": "step 0", "states": state_set, "prompt_index": i, "is_correct": is_right}
            for i, is_right in enumerate(right)
        ]
    table = pd.DataFrame(rows)
    return table.assign(is_correct=pd.array(table["is_correct"].tolist(), dtype="boolean"))


def _fits(checkpoints, prompts, temperature, share, error):
    rows = []
    for i, value in enumerate(_fitted(temperature, checkpoints)):
        half = _half(error, "fitted_temperature")
        row = {"step": 10 * i, "label": f"step {10 * i}", "teacher": "big", "states": "on-policy", "beyond": ""}
        row |= {"n_states": 100, "n_rollouts": 64, "n_prompts": prompts, "n_undefined": 0}
        parts = {"fitted_temperature": value, "explained_share": share, "reverse_kl": 0.5}
        for name, of in parts.items():
            row |= {name: of, f"{name}_ci_low": of - half, f"{name}_ci_high": of + half}
        rows.append(row)
    return pd.DataFrame(rows, columns=FIT_COLUMNS)


def _baselines(prompts):
    values = {CHANCE: 0.03, SHUFFLED: 0.12, OTHER_PRECISION: 0.99}
    about = {"step": 0, "label": "step 0", "teacher": "big", "states": "on-policy", "metric": "overlap_ratio", "k": 16}
    rows = [
        about | {"baseline": b, "n_states": 640, "n_prompts": prompts} | _estimate(v, 0.01) for b, v in values.items()
    ]
    return pd.DataFrame(rows, columns=BASELINE_COLUMNS)


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


def without(tables, metric):
    """The same tables, as if nothing were known of a metric."""
    from dataclasses import replace

    summary = tables.summary[tables.summary["metric"] != metric]
    differences = tables.differences[tables.differences["metric"] != metric]
    return replace(tables, summary=summary, differences=differences)
