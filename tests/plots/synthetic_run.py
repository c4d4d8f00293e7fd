"""Tables of a made-up run, with the schemas of opd_diag.tables: five checkpoints, two state sets.

Metrics of the catalogue that are not named here get values their bounds allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from opd_diag.plots.quantities import FIT_QUANTITIES, RESPONSE_QUANTITIES
from opd_diag.records.settings import CURVE_GRID
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, Metric
from opd_diag.tables.diversity import DIVERSITY
from opd_diag.tables.floors import with_floors
from opd_diag.tables.responses import OUTCOMES
from opd_diag.tables.split import SPLIT_COLUMNS

CONCENTRATION_COLUMNS = (
    "overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass",
)  # fmt: skip
START_AND_END = {
    "overlap_ratio": (0.34, 0.74),
    "student_overlap_mass": (0.62, 0.97),
    "teacher_overlap_mass": (0.71, 0.95),
    "overlap_token_advantage": (-0.21, -0.02),
    "entropy_gap": (1.1, 0.25),
    "entropy_difference": (0.8, -0.05),
    "student_entropy": (2.6, 1.3),
    "teacher_entropy": (1.7, 1.35),
    "reverse_kl": (2.1, 0.31),
    "forward_kl": (2.6, 0.52),
    "sampled_reverse_kl": (2.1, 0.3),
    "top1_agreement": (0.41, 0.78),
    "shared_gradient_ratio": (0.78, 0.92),
    "student_only_gradient_ratio": (0.15, 0.05),
    "teacher_only_gradient_ratio": (0.01, 0.005),
    "other_gradient_ratio": (0.06, 0.025),
    "accuracy": (0.11, 0.63),
    "truncation_rate": (0.42, 0.05),
    "response_length": (71.0, 38.0),
    "distinct_bigram_ratio": (0.81, 0.74),
    "distinct_trigram_ratio": (0.95, 0.93),
    "unigram_entropy": (4.9, 4.6),
    "teacher_state_coverage": (0.58, 0.83),
    "top_advantage_share": (0.21, 0.34),
    "reward_auroc": (0.55, 0.61),
    "compression_ratio": (2.4, 2.1),
    "cycle_ratio": (0.11, 0.01),
    "repetition_rate": (0.09, 0.0),
    "student_stop_probability_at_stops": (0.62, 0.95),
    "teacher_stop_probability_at_stops": (0.33, 0.91),
    "student_stop_probability_after_answers": (0.4, 0.9),
    "teacher_stop_probability_after_answers": (0.88, 0.9),
    "student_stop_probability_at_truncation": (0.001, 0.002),
    "teacher_stop_probability_at_truncation": (0.01, 0.01),
    "fitted_temperature": (1.31, 1.04),
    "reverse_kl_after_temperature": (1.7, 0.3),
    "gradient_coherence": (0.21, 0.05),
}


def between_bounds(metric: Metric) -> tuple[float, float]:
    if np.isfinite(metric.low) and np.isfinite(metric.high):
        width = metric.high - metric.low
        return metric.low + 0.4 * width, metric.low + 0.7 * width
    return (-0.21, -0.02) if metric.high == 0 else (0.9, 0.4)


START_AND_END |= {m.name: between_bounds(m) for m in CATALOGUE if m.name not in START_AND_END}
OF_TEACHER = {
    "accuracy": 0.91,
    "truncation_rate": 0.0,
    "response_length": 35.0,
    "distinct_bigram_ratio": 0.73,
    "distinct_trigram_ratio": 0.92,
    "unigram_entropy": 4.7,
    "compression_ratio": 2.2,
    "cycle_ratio": 0.0,
    "repetition_rate": 0.0,
}
"""What is known of the teacher's responses, whatever the checkpoint."""
EQUAL_STATES_SHARE = {"healthy": 0.8, "collapse": -0.5}


class SyntheticRun:
    """Tables that hang together; `kind` is ``healthy`` or ``collapse`` (own states improve, the start's get worse)."""

    def __init__(
        self,
        kind: str = "healthy",
        steps: Sequence[int | None] = (0, 25, 50, 75, 100),
        labels: Sequence[str] | None = None,
        prompts: int = 32,
        state_sets: Sequence[str] = ("on-policy", "start"),
        seed: int = 0,
    ) -> None:
        self.kind, self.steps, self.prompts, self.state_sets = kind, list(steps), prompts, list(state_sets)
        self.labels = list(labels) if labels is not None else [f"step {s}" for s in steps]
        self.random = np.random.default_rng(seed)
        self.states = self._states()
        self.summary = self._summary()
        self.concentration = self._concentration()
        self.depth = self._depth()
        self.differences = self._differences()
        self.split = self._split()

    def level(self, metric: str, states: str, i: int) -> float:
        if states == "teacher" and metric in OF_TEACHER:
            return OF_TEACHER[metric]
        low, high = START_AND_END[metric]
        done = 0.0 if len(self.steps) == 1 else i / (len(self.steps) - 1)
        share = done**0.6 * (1.0 if states == "on-policy" else EQUAL_STATES_SHARE[self.kind])
        return low + share * (high - low)

    def keys(self, i: int, states: str) -> dict[str, object]:
        step = self.steps[i]
        return {
            "step": pd.NA if step is None else step,
            "label": self.labels[i],
            "teacher": "teacher",
            "states": states,
        }

    def _every(self):
        return [(i, s) for i in range(len(self.steps)) for s in self.state_sets]

    @property
    def counts(self) -> dict[str, int]:
        return {"n_states": self.prompts * 80, "n_rollouts": self.prompts * 2, "n_prompts": self.prompts}

    def half_width(self, metric: str, value: float) -> float:
        scale = {"response_length": 4.0}.get(metric, 0.03 + 0.03 * abs(value))
        return float("nan") if self.prompts == 1 else scale * (32 / self.prompts) ** 0.5

    def _summary(self) -> pd.DataFrame:
        rows = []
        for i, states in self._every():
            for metric in START_AND_END:
                of_responses = metric in RESPONSE_QUANTITIES
                if of_responses and states != "on-policy" and not (states == "teacher" and metric in OF_TEACHER):
                    continue
                on_policy_only = metric in BY_NAME and BY_NAME[metric].on_policy_only and states != "on-policy"
                value = float("nan") if on_policy_only else self.level(metric, states, i)
                half = self.half_width(metric, value)
                rows.append(
                    self.keys(i, states)
                    | {"metric": metric, "k": k_of(metric)}
                    | {"aggregation": aggregation_of(metric)}
                    | {"value": value, "ci_low": value - half, "ci_high": value + half}
                    | {"bound_low": float("nan"), "bound_high": float("nan")}
                    | self.counts
                    | {"n_undefined": self.counts["n_states"] if on_policy_only else 3}
                    | {"n_effective": 9.0 * self.prompts, "approximate": self.prompts < 20}
                    | {"band_low": value - 1.4 * half, "band_high": value + 1.4 * half}
                )
        return with_floors(typed(pd.DataFrame(rows)), None)

    def _concentration(self) -> pd.DataFrame:
        rows = []
        for i, states in self._every():
            for k in CURVE_GRID:
                row = self.keys(i, states) | {"k": k} | self.counts
                for column in CONCENTRATION_COLUMNS:
                    if column == "overlap_ratio":
                        value = self.level("overlap_ratio", states, i) * (1.1 - 0.03 * np.log2(k))
                    else:
                        top = self.level("student_overlap_mass", states, i) if "topk" not in column else 0.999
                        value = top * (1 - 0.5 * np.exp(-0.8 * np.log2(k)))
                    half = float("nan") if self.prompts == 1 else 0.03 / (1 + np.log2(k))
                    row |= {column: value, f"{column}_ci_low": value - half, f"{column}_ci_high": min(1, value + half)}
                    if "topk" not in column:
                        row |= {f"{column}_band_low": value - 1.5 * half}
                        row |= {f"{column}_band_high": min(1, value + 1.5 * half)}
                rows.append(row)
        return typed(pd.DataFrame(rows))

    def _depth(self) -> pd.DataFrame:
        rows = []
        for i, states in self._every():
            for metric in [m.name for m in CATALOGUE]:
                for b in range(8):
                    value = self.level(metric, states, i) * (1 - 0.04 * b)
                    half = self.half_width(metric, value) * (1 + 0.4 * b)
                    n = max(1, int(self.prompts * 2 * np.exp(-0.35 * b)))
                    banded = 1.5 * half if BY_NAME[metric].primary else float("nan")
                    rows.append(
                        self.keys(i, states)
                        | {"metric": metric, "depth_low": 16 * b, "depth_high": 16 * (b + 1)}
                        | {"value": value, "ci_low": value - half, "ci_high": value + half}
                        | {"band_low": value - banded, "band_high": value + banded}
                        | {"n_states": n * 16, "n_rollouts": n, "n_prompts": min(n, self.prompts)}
                    )
        return typed(pd.DataFrame(rows))

    def _differences(self) -> pd.DataFrame:
        rows = []
        for a, b in [(0, later) for later in range(1, len(self.steps))]:
            for states in self.state_sets:
                for metric in START_AND_END:
                    if metric in RESPONSE_QUANTITIES and states != "on-policy":
                        continue
                    primary = metric in BY_NAME and BY_NAME[metric].primary
                    value = self.level(metric, states, b) - self.level(metric, states, a)
                    half = 0.8 * self.half_width(metric, self.level(metric, states, b))
                    rows.append(
                        {"from_step": self.keys(a, states)["step"], "from_label": self.labels[a]}
                        | {"to_step": self.keys(b, states)["step"], "to_label": self.labels[b]}
                        | {"teacher": "teacher", "states": states, "metric": metric}
                        | {"k": k_of(metric)}
                        | {"value": value, "ci_low": value - half, "ci_high": value + half}
                        | {"n_prompts": self.prompts, "n_states": self.prompts * 80, "p_value": 0.0004}
                        | {"p_adjusted": 0.0123 if primary else float("nan"), "approximate": self.prompts < 20}
                        | {"depends_on_average": metric == "forward_kl" and states == "on-policy"}
                    )
        columns = ["from_step", "from_label", "to_step", "to_label", "teacher", "states", "metric", "k", "value",
                   "ci_low", "ci_high", "n_prompts", "n_states", "p_value", "p_adjusted", "approximate",
                   "depends_on_average"]  # fmt: skip
        return typed(pd.DataFrame(rows, columns=columns))

    def _split(self) -> pd.DataFrame:
        rows = []
        both = "back" in self.state_sets
        for i in range(1, len(self.steps)) if {"on-policy", "start"} <= {*self.state_sets} else ():
            for metric in [m.name for m in CATALOGUE]:
                whole, policy = (
                    self.level(metric, states, i) - self.level(metric, states, 0) for states in ("on-policy", "start")
                )
                parts = {"on_policy_change": whole, "policy_change": policy, "state_change": whole - policy}
                for part, value in (parts | ({"order_difference": 0.1 * policy} if both else {})).items():
                    value = float("nan") if BY_NAME[metric].on_policy_only else value
                    half = 0.8 * self.half_width(metric, value)
                    rows.append(
                        {"from_step": self.keys(0, "start")["step"], "from_label": self.labels[0]}
                        | {"step": self.keys(i, "start")["step"], "label": self.labels[i], "teacher": "teacher"}
                        | {"metric": metric, "k": k_of(metric), "part": part}
                        | {"value": value, "ci_low": value - half, "ci_high": value + half}
                        | {"n_prompts": self.prompts, "orders": 2 if both else 1, "approximate": self.prompts < 20}
                    )
        return typed(pd.DataFrame(rows, columns=SPLIT_COLUMNS))

    def _states(self) -> pd.DataFrame:
        parts = []
        n = min(self.prompts * 80, max(20, 20_000 // len(self.steps)))
        for i, states in self._every():
            teacher = self.random.gamma(1.5, self.level("teacher_entropy", states, i) / 1.5, n)
            noise = self.random.normal(0, self.level("entropy_gap", states, i), n)
            student = np.abs(teacher + noise + self.level("entropy_difference", states, i))
            frame = pd.DataFrame({"teacher_entropy": teacher, "student_entropy": student})
            frame["entropy_gap"] = (frame.student_entropy - frame.teacher_entropy).abs()
            for name, value in reversed(list(self.keys(i, states).items())):
                frame.insert(0, name, value)
            frame.insert(4, "position", np.arange(n) % 80)
            frame.insert(4, "prompt_index", np.arange(n) * self.prompts // n)
            # few states hold most: the mean of a log-normal is e^{s²/2} times its median
            far = np.random.default_rng(n + i).lognormal(-2.0, 2.0, n)
            frame["reverse_kl"] = self.level("reverse_kl", states, i) * far
            parts.append(frame)
        return typed(pd.concat(parts, ignore_index=True))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    whole = [c for c in ("step", "k", "from_step", "to_step") if c in frame]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def k_of(metric: str) -> object:
    return 16 if metric in BY_NAME and BY_NAME[metric].depends_on_k else pd.NA


def aggregation_of(metric: str) -> str:
    if metric in BY_NAME:
        return BY_NAME[metric].aggregation
    if metric in OUTCOMES:
        return "rollout mean"
    if metric in FIT_QUANTITIES:
        return "subsample"
    return "pooled" if metric in DIVERSITY else "state mean"
