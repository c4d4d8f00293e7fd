"""What lies between bounds, where a server returned a part of the teacher's distribution: no value, and honest ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from student_intervals import influences_of, interval_of

from opd_diag import stats
from opd_diag.records.scores import OF_WHOLE
from opd_diag.tables import CATALOGUE, METRIC_NAMES, assemble, difference_table, measure, rollout_table, summarize
from opd_diag.tables.bounds import outer

from .made_up import a_run

BELOW, ABOVE = 0.125, 0.25
"""How far below and above the truth the made-up bounds lie."""
K, TOP = 8, 12


def partial(scores, *, top=TOP, known=None):
    """What would be left of scores if a server had returned the teacher's first `top` ids; `known`: states of which all
    is known."""
    known = np.zeros(len(scores), dtype=bool) if known is None else known
    unknown = ~known
    cut = {
        name: getattr(scores, name)[:, :top]
        for name in (
            "student_topk_ids", "student_topk_logprobs", "teacher_at_student_topk_logprobs", "teacher_topk_ids",
            "teacher_topk_logprobs", "student_at_teacher_topk_logprobs",
        )
    }  # fmt: skip
    among = (cut["student_topk_ids"][:, :, None] == cut["teacher_topk_ids"][:, None, :]).any(-1)
    at = cut["teacher_at_student_topk_logprobs"]
    cut["teacher_at_student_topk_logprobs"] = np.where(among | known[:, None], at, np.nan)
    fields, bounds = {}, {}
    for name in OF_WHOLE:
        truth = np.asarray(getattr(scores, name), dtype=np.float64)
        fields[name] = np.where(unknown, np.nan, truth)
        ends = np.stack([truth - BELOW, truth + ABOVE], axis=-1)
        wider = np.stack([truth - BELOW - 1, truth + ABOVE + 1], axis=-1)
        bounds[name] = np.stack([wider, ends], axis=1)
    # two that nothing bounds
    bounds["gradient_squared_norm"][..., 0], bounds["gradient_squared_norm"][..., 1] = 0.0, math.inf
    bounds["reverse_kl"][..., 1] = math.inf
    grid = tuple(k for k in scores.grid if k <= top)
    curves = {n: getattr(scores, n)[:, : len(grid)] for n in vars(scores) if n.startswith("curve_")}
    return replace(scores, **cut, **curves, **fields, grid=grid, bounds=bounds, bound_ks=(4, top))


@pytest.fixture(scope="module")
def run():
    return a_run()


@pytest.fixture(scope="module")
def exact(run):
    """The truth, with as many tokens kept as the server returns."""
    everything = [partial(s.scores, known=np.ones(len(s.scores), dtype=bool)) for s in run]
    cut = [replace(scores, bounds={}, bound_ks=()) for scores in everything]
    return pd.concat([measure(c, s.rollouts, k=K) for c, s in zip(cut, run, strict=True)], ignore_index=True)


@pytest.fixture(scope="module")
def bounded(run):
    return pd.concat([measure(partial(s.scores), s.rollouts, k=K) for s in run], ignore_index=True)


OVERLAPS = (
    "overlap_ratio", "top1_agreement", "student_overlap_mass", "teacher_overlap_mass", "overlap_token_advantage",
    "student_topk_mass", "teacher_topk_mass", "verl_topk_forward_kl", "trl_topk_forward_kl", "student_entropy",
    "sampled_reverse_kl", "tail_sampled_reverse_kl",
)  # fmt: skip


@pytest.mark.parametrize("name", OVERLAPS)
def test_what_the_top_k_decide_is_exact(name, exact, bounded):
    np.testing.assert_array_equal(bounded[name], exact[name])
    assert f"{name}_low" not in bounded


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_the_truth_lies_inside_at_every_state(name, exact, bounded):
    truth = exact[name].to_numpy(float)
    if f"{name}_low" not in bounded:
        np.testing.assert_array_equal(bounded[name], truth)
        return
    assert bounded[name].isna().all(), "a mean over states that happen to be known would be of a chosen few"
    low, high = (bounded[f"{name}_{end}"].to_numpy(float) for end in ("low", "high"))
    inside = np.isnan(truth) | ((low <= truth + 1e-6) & (truth - 1e-6 <= high))
    assert inside.all()
    assert (low < high).any()


def test_what_only_the_rest_decides_is_bounded_by_what_is_known(exact, bounded):
    for name in ("forward_kl", "jensen_shannon", "teacher_entropy", "common_mass"):
        np.testing.assert_allclose(bounded[f"{name}_low"], exact[name] - BELOW, rtol=1e-6)
        np.testing.assert_allclose(bounded[f"{name}_high"], exact[name] + ABOVE, rtol=1e-6)
    assert np.isposinf(bounded["reverse_kl_high"]).all()
    np.testing.assert_allclose(bounded["entropy_difference_low"], exact["entropy_difference"] - ABOVE, atol=1e-6)
    np.testing.assert_allclose(bounded["entropy_difference_high"], exact["entropy_difference"] + BELOW, atol=1e-6)


def test_an_entropy_gap_between_bounds_of_either_sign_may_be_nothing(exact, bounded):
    difference = exact["entropy_difference"].to_numpy(float)
    low, high = difference - ABOVE, difference + BELOW
    around = (low < 0) & (high > 0)
    assert around.any()
    assert (bounded["entropy_gap_low"][around] == 0).all()
    np.testing.assert_allclose(
        bounded["entropy_gap_low"][~around], np.minimum(np.abs(low), np.abs(high))[~around], atol=1e-6
    )
    np.testing.assert_allclose(bounded["entropy_gap_high"], np.maximum(np.abs(low), np.abs(high)), atol=1e-6)


def test_a_metric_without_bounds_of_its_own_has_its_range(bounded):
    ranges = {m.name: (m.low, m.high) for m in CATALOGUE}
    rows = bounded[bounded["topk_reverse_kl_low"] < bounded["topk_reverse_kl_high"]]
    assert len(rows)
    assert {*zip(rows["topk_reverse_kl_low"], rows["topk_reverse_kl_high"], strict=True)} == {ranges["topk_reverse_kl"]}
    assert (bounded["shared_gradient_ratio_low"] == 0).all()
    assert (bounded["shared_gradient_ratio_high"] == 1).all()


def test_teachable_mass_is_what_is_known_and_at_most_what_is_left(run):
    s = run[0]
    known = partial(s.scores)
    rows = measure(known, s.rollouts, k=K)
    at = np.exp(known.teacher_at_student_topk_logprobs[:, :K].astype(np.float64))
    q = np.exp(known.teacher_topk_logprobs.astype(np.float64))
    for i, row in enumerate(np.flatnonzero(~known.terminal)):
        sure = sum(x for x in at[row] if not math.isnan(x))
        most = sure + min(sum(math.isnan(x) for x in at[row]) * q[row, -1], 1 - q[row].sum())
        assert rows["teachable_mass_low"][i] == pytest.approx(sure)
        assert rows["teachable_mass_high"][i] == pytest.approx(min(1, most) if np.isnan(at[row]).any() else sure)


def test_where_some_states_are_known_their_bounds_are_the_value_and_no_mean_is_of_them_alone(run, exact):
    s = run[0]
    known = np.arange(len(s.scores)) % 2 == 0
    rows = measure(partial(s.scores, known=known), s.rollouts, k=K)
    of_known = known[~s.scores.terminal]
    truth = exact["forward_kl"].to_numpy(float)[: len(rows)]
    assert rows["forward_kl"].isna().all()
    for end in ("forward_kl_low", "forward_kl_high"):
        np.testing.assert_array_equal(rows[end][of_known], truth[of_known])
    assert (rows["forward_kl_low"] < rows["forward_kl_high"])[~of_known].all()


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_summary_has_mean_bounds_and_the_outer_ends_of_their_intervals(bounded):
    summary = summarize(bounded)
    rows = bounded[(bounded["label"] == "step 10") & (bounded["states"] == "on-policy")]
    row = one(summary, metric="forward_kl", label="step 10", states="on-policy")
    prompts = rows["prompt_index"].to_numpy()
    ends = []
    for column in ("forward_kl_low", "forward_kl_high"):
        values = rows[column].to_numpy(float)
        ends.append(interval_of(*influences_of(values, prompts, sorted({*prompts}))))
    (low, low_end, _), (high, _, high_end) = ends
    assert math.isnan(row["value"])
    assert (row["bound_low"], row["bound_high"]) == pytest.approx((low, high))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((max(low_end, 0.0), high_end))
    assert (row["n_states"], row["n_prompts"], row["n_undefined"]) == (len(rows), len(np.unique(prompts)), 0)
    assert math.isnan(row["band_low"])


def test_without_an_upper_bound_neither_the_interval_has_one(bounded):
    row = one(summarize(bounded), metric="reverse_kl", label="step 10", states="on-policy")
    assert (row["bound_high"], row["ci_high"]) == (math.inf, math.inf)
    assert math.isfinite(row["ci_low"])
    assert row["ci_low"] < row["bound_low"]


def test_exact_rows_have_no_bounds(exact):
    assert summarize(exact)[["bound_low", "bound_high"]].isna().all(axis=None)


def test_the_estimate_is_one_of_the_primary_metrics_where_reverse_kl_has_bounds(exact, bounded, run):
    rollouts = pd.concat([rollout_table(measure(*s.pair, k=K), s.rollouts) for s in run], ignore_index=True)
    whole, partly = (difference_table(of, rollouts) for of in (exact, bounded))
    primary = {m.name for m in CATALOGUE if m.primary}
    adjusted = [{*of.loc[of["p_adjusted"].notna(), "metric"]} for of in (whole, partly)]
    assert adjusted[0] == primary
    assert adjusted[1] == primary - {"reverse_kl"} | {"tail_sampled_reverse_kl"}
    of = {name: partly[(partly["metric"] == name) & (partly["states"] == "on-policy")].iloc[0] for name in primary}
    assert (of["forward_kl"]["p_value"] == 1.0) == (
        of["forward_kl"]["bound_low"] <= 0 <= of["forward_kl"]["bound_high"]
    )


def test_the_p_value_between_bounds_is_that_of_the_one_next_to_0():
    low, high = (stats.clustered_mean(np.array([1.0, 2.0, 4.0, 3.0, 2.5]) + of, np.arange(5)) for of in (0.0, 9.0))
    assert outer(low, high)["p_value"] == low.p_value < 0.05
    below = [replace(of, value=-of.value) for of in (high, low)]
    assert outer(*below)["p_value"] == low.p_value
    assert outer(below[0], high)["p_value"] == 1.0
    assert math.isnan(outer(low, replace(high, value=math.inf))["p_value"])


def test_drawn_tokens_make_an_estimate_of_states_that_others_sampled(run):
    made = run[-1]
    scores = partial(made.scores)
    at = made.scores.teacher_at_student_topk_logprobs[:, :TOP]  # which were asked for
    asked = replace(scores, teacher_at_student_topk_logprobs=at)
    assert scores.provenance["states"] == "start"
    assert measure(scores, made.rollouts, k=K)["tail_sampled_reverse_kl"].isna().all()
    ids = scores.teacher_topk_ids[:, 3]  # one of the teacher's top, so that the tail adds nothing
    drawn = {"ids": ids, "student_logprobs": np.full(len(ids), -1.0), "teacher_logprobs": np.full(len(ids), -3.0)}
    scores = asked
    found = measure(replace(scores, drawn=drawn), made.rollouts, k=K)
    of_top = np.zeros(len(ids))
    for i in range(len(ids)):  # over the union of both kept sets, by id
        p = dict(zip(scores.student_topk_ids[i], scores.student_topk_logprobs[i], strict=True))
        q = dict(zip(scores.student_topk_ids[i], scores.teacher_at_student_topk_logprobs[i], strict=True))
        p |= dict(zip(scores.teacher_topk_ids[i], scores.student_at_teacher_topk_logprobs[i], strict=True))
        q |= dict(zip(scores.teacher_topk_ids[i], scores.teacher_topk_logprobs[i], strict=True))
        of_top[i] = sum(math.exp(p[v]) * (float(p[v]) - float(q[v])) for v in p)
    kept = ~scores.terminal
    np.testing.assert_allclose(found["tail_sampled_reverse_kl"], of_top[kept], atol=1e-6)
    elsewhere = drawn | {"ids": np.full(len(ids), 10**6)}
    found = measure(replace(scores, drawn=elsewhere), made.rollouts, k=K)
    np.testing.assert_allclose(found["tail_sampled_reverse_kl"], of_top[kept] + 2.0, atol=1e-6)
    assert found["sampled_reverse_kl"].isna().all()


def test_a_difference_lies_between_the_least_and_the_greatest_there_can_be(exact, bounded, run):
    rollouts = pd.concat([rollout_table(measure(*s.pair, k=K), s.rollouts) for s in run], ignore_index=True)
    where = {"metric": "forward_kl", "states": "on-policy"}
    plain, row = (one(difference_table(of, rollouts), **where) for of in (exact, bounded))
    assert math.isnan(row["value"])
    assert row["bound_low"] == pytest.approx(plain["value"] - BELOW - ABOVE)
    assert row["bound_high"] == pytest.approx(plain["value"] + BELOW + ABOVE)
    assert row["ci_low"] == pytest.approx(plain["ci_low"] - BELOW - ABOVE)
    assert row["ci_high"] == pytest.approx(plain["ci_high"] + BELOW + ABOVE)
    assert (row["n_states"], row["n_prompts"]) == (plain["n_states"], plain["n_prompts"])
    assert row["p_value"] == row["p_adjusted"] == 1.0, "it may be none"
    assert math.isnan(plain["bound_low"])


def test_all_tables_of_a_run_are_made(run):
    tables = assemble(((partial(s.scores), s.rollouts) for s in run), k=K)
    assert tables.summary["bound_low"].notna().any()
    # nothing else has a mean of what is not known
    for table in (tables.depth, tables.split, tables.averages, tables.strata):
        of = table[table["metric"].isin(["forward_kl", "reverse_kl", "teacher_entropy"])]
        assert of["value"].isna().all()
