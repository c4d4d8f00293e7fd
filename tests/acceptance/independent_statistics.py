"""Part of the independent computation: means and other statistics, with intervals clustered by prompt."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

LEAST = 5  # prompts; fewer have no interval
SHARES = ("accuracy", "truncation_rate", "repetition_rate", "cycle_ratio")
BETWEEN_0_AND_1 = (
    *SHARES, "teacher_state_coverage", "top_advantage_share", "reward_auroc", "distinct_bigram_ratio",
    "distinct_trigram_ratio", "overlap_ratio", "rank_biased_overlap", "top1_agreement", "student_overlap_mass",
    "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass", "student_overlap_mass_ratio",
    "teacher_overlap_mass_ratio", "teachable_mass", "common_mass", "bhattacharyya_coefficient", "negative_topk_kl_rate",
    "verl_negative_rate", "verl_clamped_rate", "trl_clamped_rate", "shared_gradient_ratio",
    "student_only_gradient_ratio", "teacher_only_gradient_ratio", "other_gradient_ratio", "near_zero_advantage_rate",
)  # fmt: skip
AT_LEAST_0 = (
    "response_length", "compression_ratio", "unigram_entropy", "fitted_temperature", "reverse_kl_after_temperature",
    "entropy_gap", "student_entropy", "teacher_entropy", "reverse_kl", "forward_kl", "topk_reverse_kl",
    "trl_topk_reverse_kl", "trl_topk_forward_kl", "signal_to_noise",
)  # fmt: skip
OTHERS = {
    "jensen_shannon": (0.0, math.log(2)),
    "trl_topk_jensen_shannon": (0.0, math.log(2)),
    "verl_topk_forward_kl": (0.0, 10.0),
    "overlap_token_advantage": (-math.inf, 0.0),
    "probe_overlap_token_advantage": (-math.inf, 0.0),
    "gradient_coherence": (-math.inf, 1.0),
}


def range_of(name):
    """Least and greatest value that there is."""
    if name in BETWEEN_0_AND_1 or "_stop_probability_" in name:
        return 0.0, 1.0
    return (0.0, math.inf) if name in AT_LEAST_0 else OTHERS.get(name, (-math.inf, math.inf))


def within_range(name, row):
    """The interval of a level, cut to what its metric can be; its value stays inside."""
    if row["ci_low"] is None:
        return row
    low, high = range_of(name)
    low, high = min(low, row["value"]), max(high, row["value"])
    return row | {end: min(max(row[end], low), high) for end in ("ci_low", "ci_high")}


def half_width(moved, shares):
    """Half of a 95 % interval from each prompt's part of the error and its share of what is counted; None below LEAST.

    CR2 where prompts differ by effects u of variance share²: residuals (I - share 1ᵀ) u, each square divided by its own
    variance in units of share²; t with the degrees of freedom of Bell and McCaffrey.
    """
    moved, shares = np.asarray(moved, dtype=float), np.asarray(shares, dtype=float)
    if (shares > 0).sum() < LEAST:
        return None
    residual = np.eye(len(shares)) - np.outer(shares, np.ones(len(shares)))
    covariance = (residual * shares**2) @ residual.T
    with np.errstate(invalid="ignore"):
        factor = np.where(shares > 0, shares / np.sqrt(np.diag(covariance)), 1.0)
    kernel = factor[:, None] * covariance * factor
    degrees = np.trace(kernel) ** 2 / (kernel**2).sum()
    return float(np.sqrt(((factor * moved) ** 2).sum()) * student_t.ppf(0.975, degrees))


def row_of(value, half, n_prompts):
    """A value with its interval; None for whatever is undefined."""
    value = None if value is None or math.isnan(value) else float(value)
    none = value is None or half is None or math.isnan(half)
    ends = (None, None) if none else (value - half, value + half)
    return {"value": value, "ci_low": ends[0], "ci_high": ends[1], "n_prompts": n_prompts}


def left_open(n_prompts):
    """How far from 0 the share may be that none of so many prompts has, by Wilson's interval; from 1, that all have."""
    z = norm.ppf(0.975)
    return z**2 / (n_prompts + z**2)


@dataclass
class Mean:
    """Values of which a mean is taken, as arrays of one length."""

    values: np.ndarray
    prompts: np.ndarray
    rollouts: np.ndarray
    weights: np.ndarray | None = None  # what each value counts; None: 1
    sizes: np.ndarray | None = None  # states behind each value; None: 1

    def __post_init__(self):
        self.values, self.prompts = np.asarray(self.values, dtype=float), np.asarray(self.prompts)
        self.rollouts, ones = np.asarray(self.rollouts), np.ones(len(self.values))
        self.weights = ones if self.weights is None else np.asarray(self.weights, dtype=float)
        self.sizes = ones if self.sizes is None else np.asarray(self.sizes)
        self.defined = ~np.isnan(self.values)

    def level(self, name):
        row = contrast([self], [1])
        if name in SHARES and row["ci_low"] is not None and self.constant() is not None:
            ends = sorted([row["value"], abs(row["value"] - left_open(row["n_prompts"]))])
            row |= dict(zip(("ci_low", "ci_high"), ends, strict=True))
        return within_range(name, row) | {
            "n_states": int(self.sizes[self.defined].sum()),
            "n_rollouts": len(set(self.rollouts[self.defined].tolist())),
            "n_undefined": int((~self.defined).sum()),
        }

    def difference(self, later, name):
        row = contrast([self, later], [-1, 1])
        if name in SHARES and row["ci_low"] is not None and None not in (self.constant(), later.constant()):
            # square and add: each end goes as far as either share may move in its direction, from 0 up and from 1 down
            open_share, sides = left_open(row["n_prompts"]), (self.constant(), later.constant())
            down = math.hypot(open_share * (sides[1] == 1), open_share * (sides[0] == 0))
            up = math.hypot(open_share * (sides[1] == 0), open_share * (sides[0] == 1))
            row |= {"ci_low": row["value"] - down, "ci_high": row["value"] + up}
        return row

    def constant(self):
        """0 or 1 where every value is just that."""
        known = set(self.values[self.defined].tolist())
        return known.pop() if known in ({0.0}, {1.0}) else None


def contrast(samples, weights):
    """Weighted sum of the samples' means over the prompts defined in all of them, with its clustered interval."""
    shared = sorted(set.intersection(*(set(s.prompts[s.defined].tolist()) for s in samples)))
    if not shared:
        return row_of(None, None, 0) | {"n_states": 0}
    value, moved, counted, n = 0.0, np.zeros(len(shared)), np.zeros(len(shared)), 0
    for sample, weight in zip(samples, weights, strict=True):
        kept = np.isin(sample.prompts, shared) & sample.defined
        x, g, w = sample.values[kept], sample.prompts[kept], sample.weights[kept]
        mean = (w * x).sum() / w.sum()
        value, n = value + weight * mean, len(x)
        moved += [weight * (w * (x - mean))[g == prompt].sum() / w.sum() for prompt in shared]
        counted += [abs(weight) * w[g == prompt].sum() / w.sum() for prompt in shared]
    half = half_width(moved, counted / sum(map(abs, weights)))
    return row_of(value, half, len(shared)) | {"n_states": n}


@dataclass
class Pooled:
    """A statistic of all that some prompts hold; its interval leaves out one prompt at a time."""

    of: object  # the statistic of a list of prompts
    prompts: list
    counts: dict
    told: object = lambda prompts: True  # whether leaving prompts out shows the error
    positive: bool = False  # the interval of a level is then made on its logarithm

    def level(self, name):
        of = (lambda prompts: math.log(self.of(prompts))) if self.positive else self.of
        row = row_of(*jackknife(of, self.prompts, self.told(self.prompts)), len(self.prompts))
        if self.positive and row["value"] is not None:
            row |= {end: math.exp(row[end]) for end in ("value", "ci_low", "ci_high") if row[end] is not None}
        return within_range(name, row) | self.counts

    def difference(self, later, name):
        shared = sorted({*self.prompts} & {*later.prompts})
        told = self.told(shared) and later.told(shared)
        found = jackknife(lambda prompts: later.of(prompts) - self.of(prompts), shared, told)
        return row_of(*found, len(shared)) | {"n_states": None}


def jackknife(of, prompts, told=True):
    """A statistic, and half of its interval by Tukey's variance: NaN with few prompts or if undefined without one."""
    value, groups = of(prompts), len(prompts)
    if not told or groups < LEAST:
        return value, math.nan
    without = np.array([of([p for p in prompts if p != left]) for left in prompts])
    error = math.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    return value, float(student_t.ppf(0.975, groups - 1)) * error
