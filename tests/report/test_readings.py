from __future__ import annotations

import pandas as pd
import pytest
from plots.synthetic_run import SyntheticRun

from opd_diag.report.readings import concentration_reading, depth_reading, entropy_reading, metric_reading


@pytest.fixture(scope="module")
def run():
    return SyntheticRun("collapse")


def test_metric(run):
    assert metric_reading(run.summary, run.differences, "overlap_ratio") == (
        "0.34 → 0.74 on own states, difference +0.40 [+0.36, +0.44]; 0.34 → 0.14 at the start's states, difference "
        "−0.20 [−0.23, −0.17] (32 prompts, 2,560 states at step 100)."
    )


def test_the_teachers_responses_are_not_taken_for_the_students():
    three = SyntheticRun("healthy", state_sets=("on-policy", "start", "teacher"))
    text = metric_reading(three.summary, three.differences, "accuracy")
    own, theirs = text.split("; ")
    assert "states" not in own
    assert " → " in own
    assert " → " not in theirs
    assert " of the teacher's responses (32 prompts" in theirs


def test_one_checkpoint_has_a_value_and_no_change():
    one = SyntheticRun(steps=[40])
    assert metric_reading(one.summary, one.differences, "reverse_kl") == (
        "2.10 [2.01, 2.19] on own states; 2.10 [2.01, 2.19] at the start's states (32 prompts, 2,560 states at "
        "step 40)."
    )


def test_undefined_metric_says_why(run):
    start = run.summary[run.summary.states == "start"]
    assert metric_reading(start, run.differences, "sampled_reverse_kl") == (
        "Sampled reverse KL is undefined here: exists only on states that the checkpoint sampled itself at "
        "temperature 1 and top-p 1."
    )


def test_concentration(run):
    text = concentration_reading(run.concentration, "on-policy", "overlap_ratio", 16)
    assert text.startswith("At k = 16: 0.333 [0.327, 0.339] at step 0, 0.725 [0.719, 0.731] at step 100")


def test_concentration_names_the_k_it_has(run):
    small = run.concentration[run.concentration.k <= 8]
    assert concentration_reading(small, "start", "overlap_ratio", 16).startswith("At k = 8:")


def test_depth_rests_on_bins_that_enough_rollouts_reach(run):
    text = depth_reading(run.depth, "reverse_kl", "on-policy")
    assert text == (
        "At step 100: 0.31 [0.27, 0.35] at positions 0–15 (64 rollouts), 0.25 [0.14, 0.36] at positions 80–95 "
        "(11 rollouts)."
    )


def test_entropies():
    rows = pd.DataFrame({"student_entropy": [2.0, 1.0, 3.0, None], "teacher_entropy": [1.0, 2.0, 1.0, 1.0]})
    assert (
        entropy_reading(rows) == "The student is flatter than the teacher at 67 % of 3 states; mean distance 1.33 nats."
    )
