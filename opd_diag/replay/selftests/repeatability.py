"""Scoring twice: how far two passes are apart, measured by what they are to measure."""

from __future__ import annotations

import math

import numpy as np

from opd_diag.records.scores import Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.selftests.limits import REPEATED_NATS, REPEATED_SHARE

NAME = "repeatability"


def repeatability(pair: str, first: Scores, second: Scores) -> SelfTest:
    """Hold two passes over the same states against each other.

    Parameters
    ----------
    pair
        How messages call student and teacher.
    first, second
        Of the same models and rollouts.

    Returns
    -------
    SelfTest
        Its value is the mean spread of the sampled tokens' log-probabilities, of the model that spreads more, over the
        median |advantage|; NaN where student and teacher do not differ.
    """
    states = ~np.asarray(first.terminal)
    spread = max(_spread(first, second, who, states) for who in ("student", "teacher"))
    advantage = np.abs(_sampled(first, "teacher", states) - _sampled(first, "student", states))
    median = float(np.median(advantage))
    share = spread / median if median > 0 else math.nan
    passes = spread <= max(REPEATED_NATS, REPEATED_SHARE * median)
    return SelfTest(
        name=NAME,
        model=pair,
        status="pass" if passes else "fail",
        value=share,
        threshold=REPEATED_SHARE,
        evidence=f"Scored twice, log-probabilities of {int(states.sum())} tokens differ by {spread:.1e} nats on "
        f"average; the median |advantage| is {median:.2g} nats.",
        advice=""
        if passes
        else "Numbers change from one pass to the next: use deterministic kernels or --dtype float32, and look for "
        "noise in the code of the model.",
    )


def _sampled(scores: Scores, who: str, states: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(getattr(scores, f"{who}_sampled_logprobs"), dtype=np.float64)[states], -1e3)


def _spread(first: Scores, second: Scores, who: str, states: np.ndarray) -> float:
    return float(np.abs(_sampled(first, who, states) - _sampled(second, who, states)).mean())
