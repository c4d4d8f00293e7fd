from __future__ import annotations

import pandas as pd
import pytest
from plots.synthetic_run import SyntheticRun

from opd_diag.report.readings import (
    concentration_reading,
    depth_reading,
    entropy_reading,
    fit_reading,
    gradient_reading,
    metric_reading,
    metric_values,
)


@pytest.fixture(scope="module")
def run():
    return SyntheticRun("collapse")


def test_metric(run):
    assert metric_reading(run.summary, run.differences, "overlap_ratio") == (
        "0.34 → 0.74 on own states, difference +0.40 [+0.36, +0.44]; 0.34 → 0.14 at the start's states, difference "
        "−0.20 [−0.23, −0.17] (32 prompts, 2,560 states, worth 288 independent ones at step 100)."
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
        "2.10 [2.01, 2.19] on own states; 2.10 [2.01, 2.19] at the start's states (32 prompts, 2,560 states, worth 288 "
        "independent ones at step 40)."
    )


def test_values_are_counted_on_own_states_wherever_those_stand_in_the_table(run):
    """What was recorded near own states comes last and is of few prompts."""
    rows = run.summary[(run.summary["metric"] == "overlap_ratio") & (run.summary["states"] != "start")]
    few = rows.tail(1).assign(states="near-on-policy", n_prompts=7, value=0.5, ci_low=0.4, ci_high=0.6)
    assert metric_values(pd.concat([rows, few]), "overlap_ratio") == (
        "0.34 → 0.74 on own states; 0.50 [0.40, 0.60] at recorded, near own states (32 prompts)."
    )
    assert metric_values(few, "overlap_ratio").endswith(" at recorded, near own states (7 prompts).")


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


def test_a_curve_is_marked_at_the_k_that_has_a_floor(run):
    floors = {"overlap_ratio": 0.2, "student_overlap_mass": 0.01}
    at = concentration_reading(run.concentration, "on-policy", "overlap_ratio", 16, floors)
    assert at.startswith("At k = 16: 0.333 [0.327, 0.339] at step 0, ≈0.725 [0.719, 0.731] at step 100")
    small = run.concentration[run.concentration.k <= 8]
    assert "≈" not in concentration_reading(small, "on-policy", "overlap_ratio", 16, floors)


def test_an_overlap_mass_is_marked_near_the_mass_of_the_own_tokens(run):
    table = run.concentration.assign(student_topk_mass=run.concentration["student_overlap_mass"] + 0.015)
    reading = concentration_reading(table, "on-policy", "student_overlap_mass", 16, {"student_overlap_mass": 0.01})
    assert reading.count("≈") == 2
    reading = concentration_reading(table, "on-policy", "student_overlap_mass", 16, {"student_overlap_mass": 0.007})
    assert "≈" not in reading


def test_a_mean_distance_of_entropies_is_marked(run):
    rows = pd.DataFrame({"student_entropy": [1.0, 2.0], "teacher_entropy": [1.01, 1.99]})
    assert entropy_reading(rows, {"entropy_gap": 0.01}).endswith("mean distance ≈0.010 nats.")
    assert entropy_reading(rows, {"entropy_gap": 0.004}).endswith("mean distance 0.010 nats.")


def test_gradient_tells_the_four_shares(run):
    assert gradient_reading(run.summary, "on-policy") == (
        "Of the gradient's squared length, shared tokens get 0.78 at step 0 and 0.92 [0.86, 0.98] at step 100; there "
        "student-only tokens get 0.05, teacher-only ones 0.005, all others 0.03 (32 prompts, 2,560 states, 3 "
        "undefined)."
    )
    one = SyntheticRun(steps=[40])
    assert "get 0.78 [0.73, 0.83] at step 40; there" in gradient_reading(one.summary, "on-policy")


def test_gradient_of_equal_models_says_why_there_is_none(run):
    none = run.summary.assign(value=float("nan"))
    assert gradient_reading(none, "start") == "Undefined: the models agree, or nearly, at every state."


def test_gradient_does_not_call_a_small_share_none(run):
    small = run.summary["metric"] == "teacher_only_gradient_ratio"
    summary = run.summary.assign(value=run.summary["value"].mask(small, 0.0002))
    assert "teacher-only ones under 0.001, all others 0.03 (" in gradient_reading(summary, "on-policy")


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "said"),
    [
        ("fitted_temperature", 1.3, 1.2, 1.4, "The student is sharper than its teacher there."),
        ("fitted_temperature", 0.8, 0.7, 0.9, "The student is flatter than its teacher there."),
        ("fitted_temperature", 1.05, 0.9, 1.2, "No temperature would bring the student clearly nearer"),
        ("fitted_temperature", 1.05, float("nan"), float("nan"), "No interval: whether that is more than chance"),
        ("gradient_coherence", 0.2, 0.1, 0.3, "push the output matrix the same way"),
        ("gradient_coherence", 0.2, -0.1, 0.5, "not told from unrelated"),
        ("gradient_coherence", -0.2, -0.3, -0.1, "pull the output matrix apart"),
        ("reverse_kl_after_temperature", 0.2, 0.1, 0.3, "no temperature takes away"),
    ],
)
def test_a_fit_is_a_sentence(metric, value, low, high, said):
    row = {"metric": metric, "states": "on-policy", "label": "a", "step": 5, "value": value, "ci_low": low}
    summary = pd.DataFrame([row | {"ci_high": high, "n_prompts": 9, "n_states": 512}])
    reading = fit_reading(summary, metric, "on-policy")
    assert said in reading
    assert "at step 5 (9 prompts, 512 states)." in reading
    assert fit_reading(summary, metric, "start") == ""
    fits = pd.DataFrame([{"label": "a", "states": "on-policy", "reverse_kl": 0.25}])
    told = "This much of the distance of 0.25 nats there no temperature takes away."
    assert (told in fit_reading(summary, metric, "on-policy", fits)) == (metric == "reverse_kl_after_temperature")
    assert fit_reading(summary.assign(value=float("nan")), metric, "on-policy") == ""
