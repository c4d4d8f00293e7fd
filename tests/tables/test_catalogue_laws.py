"""Laws that every metric of the catalogue obeys, whatever it measures, on pairs of models that hypothesis draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, WEIGHTS

from .distributions import PAIRS, PERTURBATIONS, K, N, V, distributions, extremes, scored, top_first
from .formulas import formulas

TOLERANCE = 1e-6
MARGIN = 1e-3
LAWS = ("aligned", "bounds", "moves", "stays", "relabelling", "better", "k", "floor")
FEW = settings(max_examples=12)
"""Each example is 60 states and every metric."""

MOVED_BY = {
    "topk ids": {"topk ids", "topk probabilities", "crossed probabilities", "whole distributions", "sampled tokens"},
    "topk probabilities": {"topk probabilities", "crossed probabilities", "whole distributions", "sampled tokens"},
    "crossed probabilities": {"crossed probabilities", "whole distributions", "sampled tokens"},
    "whole distributions": {"crossed probabilities", "whole distributions", "sampled tokens"},
}
"""What else a perturbation changes: other probabilities at the best ids are another distribution, too."""

WITHOUT_GRADIENT = ("certain student", "certain teacher", "uniform", "all but equal")
"""Extremes where reverse KL is infinite, or has nothing to push."""


def nothing_is_shared(pair, k):
    tops = [top_first_stable(logprobs, k) for logprobs in pair]
    return np.array([not set(a) & set(b) for a, b in zip(*tops, strict=True)])


def nothing_is_shared_with_probability(pair, k):
    """Nothing is shared, or a model excludes all of it: it cannot be renormalised."""
    tops = [top_first_stable(logprobs, k) for logprobs in pair]
    found = []
    for p, q, *ids in zip(*pair, *tops, strict=True):
        shared = np.array(sorted(set(ids[0]) & set(ids[1])), dtype=int)
        found.append(bool(np.isinf(p[shared]).all() or np.isinf(q[shared]).all()))
    return np.array(found)


def the_teacher_excludes_all(pair, k):
    student, teacher = pair
    return np.array([np.isinf(teacher[i][ids]).all() for i, ids in enumerate(top_first_stable(student, k))])


def there_is_no_noise(pair, k):
    """Two candidates or fewer, one that a model excludes, log-ratios that spread by 1e-3 or less, or no noise left."""
    found = []
    for p, q, *tops in zip(*pair, *(top_first_stable(logprobs, k) for logprobs in pair), strict=True):
        ids = np.array(sorted({*tops[0], *tops[1], SAMPLED}))
        if len(ids) <= 2 or np.isinf([p[ids], q[ids]]).any():
            found.append(True)
            continue
        drawn = np.exp(p[ids]) / np.exp(p[ids]).sum()
        weights, ratio = 1 - drawn, p[ids] - q[ids]
        both = (weights * (ratio - np.average(ratio, weights=weights)) ** 2).sum()
        signal = (drawn * (ratio - (drawn * ratio).sum()) ** 2).sum()
        found.append(both < 1.01 * 1e-3**2 * weights.sum() or both - signal < 1e-6 * both)
    return np.array(found)


def top_first_stable(logprobs, k):
    return np.argsort(-logprobs, axis=-1, kind="stable")[:, :k]


SAMPLED = 1
"""The id sampled at every state of the extremes."""

SOMETIMES_UNDEFINED = {
    **dict.fromkeys(("overlap_token_advantage", "probe_overlap_token_advantage"), nothing_is_shared_with_probability),
    **dict.fromkeys(("thunlp_overlap_token_advantage", "verl_overlap_token_advantage"), nothing_is_shared),
    **dict.fromkeys(("topk_reverse_kl", "trl_topk_jensen_shannon"), the_teacher_excludes_all),
    "signal_to_noise": there_is_no_noise,
}
"""Metrics that some state does not define, and where, from both whole distributions."""


def subject_to(law):
    return [m for m in CATALOGUE if law not in m.exempt]


def undefined_when_aligned(metric):
    return isinstance(metric.aligned, float) and math.isnan(metric.aligned)


def change(metric, before, after, k):
    """Largest change at any state; NaN on both sides is no change, on one side an infinite one."""
    first, second = metric.function(before, k), metric.function(after, k)
    assert first.shape == second.shape == (N,), metric.name
    both = (np.isnan(first) & np.isnan(second)) | (first == second)
    return float(np.nan_to_num(np.abs(second - first)[~both], nan=math.inf).max(initial=0.0))


def most(metric, before, afters):
    return max(change(metric, before, after, k) for after in afters for k in (1, 4, K))


def perturbed(pair, kind, sides=("student", "teacher")):
    """Scores after each perturbation of that kind of each model."""
    return [
        scored(f(pair.student), pair.teacher, pair.sampled)
        if side == "student"
        else scored(pair.student, f(pair.teacher), pair.sampled)
        for f in PERTURBATIONS[kind]
        for side in sides
    ]


def other_samples(pair):
    """The same scores with one token sampled on which both agree to the last digit, and with the student's worst."""
    agreed = replace(pair.scores, teacher_sampled_logprobs=pair.scores.student_sampled_logprobs)
    return agreed, scored(pair.student, pair.teacher, top_first(pair.student)[:, -1])


@given(pair=PAIRS)
@FEW
def test_equals_its_aligned_value_for_identical_models(pair):
    scores = scored(pair.student, pair.student.clone(), pair.sampled)
    for metric in subject_to("aligned"):
        found = metric.function(scores, K)
        expected = BY_NAME[metric.aligned].function(scores, K) if isinstance(metric.aligned, str) else metric.aligned
        assert found == pytest.approx(np.broadcast_to(expected, N), abs=TOLERANCE, nan_ok=True), metric.name
        assert np.isnan(found).all() == undefined_when_aligned(metric), metric.name


@given(pair=PAIRS)
@FEW
def test_leaves_its_aligned_value_for_different_models(pair):
    scores, alike = pair.scores, scored(pair.student, pair.student, pair.sampled)
    for metric in subject_to("aligned"):
        values = metric.function(scores, K)
        if undefined_when_aligned(metric):
            assert not np.isnan(values).all(), metric.name
        elif metric.of_one_model and metric.name.startswith("student"):  # it never depends on the teacher
            assert values == pytest.approx(metric.function(alike, K)), metric.name
        elif "floor" not in metric.exempt:
            assert np.nanmean(np.abs(values - metric.function(alike, K))) > MARGIN, metric.name


@given(pair=PAIRS, k=st.sampled_from([1, 2, 5, K, 32]))
@FEW
def test_stays_in_bounds_and_is_float64_of_one_a_state(pair, k):
    scores = pair.scores
    for metric in subject_to("bounds"):
        values = metric.function(scores, k)
        assert (values.dtype, values.shape) == (np.float64, (N,)), metric.name
        defined = values[~np.isnan(values)]
        assert (defined >= metric.low - TOLERANCE).all(), metric.name
        assert (defined <= metric.high + TOLERANCE).all(), metric.name


@pytest.mark.parametrize("case", extremes())
@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in subject_to("bounds")])
def test_stays_in_bounds_at_the_extremes(metric, case, scores_from):
    scores = scores_from(*extremes()[case])
    for k in (1, 2, K, 32):
        values = metric.function(scores, k)
        defined = values[~np.isnan(values)]
        if metric.name.endswith("gradient_ratio"):
            assert len(defined) == (0 if case in WITHOUT_GRADIENT else N)
        elif metric.name in SOMETIMES_UNDEFINED:
            pair = [logprobs.double().numpy() for logprobs in extremes()[case]]
            assert np.isnan(values).tolist() == SOMETIMES_UNDEFINED[metric.name](pair, k).tolist()
        else:
            assert len(defined) == N
        assert (defined >= metric.low - TOLERANCE).all()
        assert (defined <= metric.high + TOLERANCE).all()


@pytest.mark.parametrize("name", SOMETIMES_UNDEFINED)
def test_each_reason_to_be_undefined_occurs_at_some_extreme_and_not_at_all(name):
    found = []
    for pair in extremes().values():
        arrays = [logprobs.double().numpy() for logprobs in pair]
        found += [SOMETIMES_UNDEFINED[name](arrays, k) for k in (1, 2, K, 32)]
    assert 0 < np.mean(found) < 1


@given(pair=PAIRS)
@FEW
def test_moves_by_a_margin_when_what_it_depends_on_changes(pair):
    before, afters = pair.scores, {kind: perturbed(pair, kind) for kind in PERTURBATIONS}
    for metric in subject_to("moves"):
        moved = {kind: most(metric, before, afters[kind]) for kind in PERTURBATIONS if kind in metric.depends_on}
        if metric.symbol.startswith("$1["):  # an indicator: no single change need move it across its bound
            assert max(moved.values(), default=1.0) == 1.0, metric.name
        else:
            assert min(moved.values(), default=1.0) > MARGIN, (metric.name, moved)


@given(pair=PAIRS)
@FEW
def test_moves_with_the_sampled_tokens_if_it_depends_on_them_and_only_then(pair):
    before, afters = pair.scores, other_samples(pair)
    for metric in subject_to("moves"):
        moved = max(most(metric, before, afters), most(metric, afters[0], afters[1:]))
        if "sampled tokens" in metric.depends_on:
            assert moved > MARGIN, metric.name
        else:
            assert moved == 0.0, metric.name


@given(pair=PAIRS)
@FEW
def test_stays_when_nothing_it_depends_on_changes(pair):
    before = pair.scores
    for kind in PERTURBATIONS:
        afters = perturbed(pair, kind)
        for metric in subject_to("stays"):
            if not set(metric.depends_on) & MOVED_BY[kind]:
                assert most(metric, before, afters) <= TOLERANCE, (metric.name, kind)


@given(pair=PAIRS)
@FEW
def test_is_about_one_model_alone_if_it_says_so(pair):
    before = pair.scores
    for metric in CATALOGUE:
        if metric.of_one_model:
            other = "teacher" if metric.name.startswith("student_") else "student"
            own = "student" if other == "teacher" else "teacher"
            for kind in metric.depends_on:
                assert most(metric, before, perturbed(pair, kind, sides=(other,))) == 0.0, metric.name
                assert most(metric, before, perturbed(pair, kind, sides=(own,))) > MARGIN, metric.name


@given(pair=PAIRS, seed=st.integers(0, 1000))
@FEW
def test_relabelling_the_vocabulary_changes_nothing(pair, seed):
    new_id = torch.randperm(pair.student.shape[1], generator=torch.Generator().manual_seed(seed))
    relabelled = torch.empty_like(pair.student), torch.empty_like(pair.teacher)
    relabelled[0][:, new_id], relabelled[1][:, new_id] = pair.student, pair.teacher
    before, after = pair.scores, scored(*relabelled, new_id[pair.sampled])
    assert not np.array_equal(before.student_topk_ids, after.student_topk_ids)
    for metric in subject_to("relabelling"):
        for k in (1, K):
            first, second = metric.function(before, k), metric.function(after, k)
            assert second == pytest.approx(first, abs=1e-5, rel=1e-5, nan_ok=True), metric.name


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in subject_to("better") if m.better != "none"])
def test_gets_better_as_the_student_approaches_the_teacher(metric, scores_from):
    student, teacher = distributions(seed=6, distance=3.0)
    means = []
    for share in (0.3, 0.6, 0.95):
        mixed = ((1 - share) * student + share * teacher).log_softmax(-1)
        sampled = torch.multinomial(mixed.exp(), 1, generator=torch.Generator().manual_seed(0))[:, 0]
        means.append(np.nanmean(metric.function(scores_from(mixed, teacher, sampled), K)))
    sign = 1 if metric.better == "up" else -1
    assert sign * means[0] < sign * means[1] < sign * means[2]
    assert abs(means[2] - means[0]) > 0.01


@given(pair=PAIRS)
@FEW
def test_depends_on_k_as_it_says(pair):
    scores = pair.scores
    for metric in subject_to("k"):
        at = [metric.function(scores, k) for k in (1, 2, K)]
        moved = max(np.nanmax(np.abs(np.nan_to_num(a - at[-1], posinf=math.inf))) for a in at[:-1])
        if metric.depends_on_k:
            assert moved > MARGIN, metric.name
        else:
            assert moved == 0.0, metric.name


@given(pair=PAIRS)
@FEW
def test_shared_mass_does_not_fall_as_k_grows(pair):
    scores = pair.scores
    for name in ("student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teachable_mass"):
        masses = np.stack([BY_NAME[name].function(scores, k) for k in range(1, 33)], axis=-1)
        assert (np.diff(masses) >= -1e-12).all(), name
        assert masses[:, -1].mean() > masses[:, 1].mean(), name
    shared = np.stack([k * BY_NAME["overlap_ratio"].function(scores, k) for k in range(1, 33)], axis=-1)
    assert (np.diff(shared) > -1e-5).all()


@pytest.mark.parametrize("case", extremes())
def test_shared_mass_does_not_fall_as_k_grows_at_the_extremes(case, scores_from):
    scores = scores_from(*extremes()[case])
    for name in ("student_overlap_mass", "teacher_overlap_mass"):
        masses = np.stack([BY_NAME[name].function(scores, k) for k in range(1, 33)], axis=-1)
        assert (np.diff(masses) >= -1e-12).all(), name


def test_metrics_at_k_agree_with_the_concentration_curve(scores_from):
    scores = scores_from(*distributions())
    for g, k in enumerate(scores.grid):
        if k > scores.k_kept:
            break
        for name, curve in (
            ("overlap_ratio", scores.curve_shared[:, g] / k),
            ("student_overlap_mass", scores.curve_student_shared_mass[:, g]),
            ("teacher_overlap_mass", scores.curve_teacher_shared_mass[:, g]),
            ("student_topk_mass", scores.curve_student_mass[:, g]),
            ("teacher_topk_mass", scores.curve_teacher_mass[:, g]),
        ):
            assert BY_NAME[name].function(scores, k) == pytest.approx(curve, abs=TOLERANCE)


@given(pair=PAIRS, k=st.sampled_from([1, 2, 5, K, 32]))
@FEW
def test_identities_between_metrics(pair, k):
    scores = pair.scores
    value = {m.name: m.function(scores, k) for m in CATALOGUE}

    def equal(first, second):
        assert first == pytest.approx(second, abs=1e-6, rel=1e-6, nan_ok=True)

    equal(value["entropy_gap"], np.abs(value["entropy_difference"]))
    equal(value["entropy_difference"], value["student_entropy"] - value["teacher_entropy"])
    for model in ("student", "teacher"):
        equal(value[f"{model}_overlap_mass"], value[f"{model}_overlap_mass_ratio"] * value[f"{model}_topk_mass"])
    shares = [value[name] for name in BY_NAME if name.endswith("gradient_ratio")]
    assert len(shares) == 4
    equal(sum(shares), np.where(np.isnan(shares[0]), np.nan, 1.0))
    shared = WEIGHTS["shared_tokens"](scores, k)
    equal(shared, k * value["overlap_ratio"])
    for name in BY_NAME:
        if name.endswith("overlap_token_advantage"):
            assert np.isnan(value[name]).tolist() == (shared == 0).tolist(), name
    ordinary = np.arange(N) % 4 == 0  # where one is sharp, the probe's clamp at 1e-12 acts
    equal(value["probe_overlap_token_advantage"][ordinary], (shared * value["overlap_token_advantage"])[ordinary])
    equal(value["raw_topk_reverse_kl"], value["student_topk_mass"] * value["thunlp_topk_reverse_kl"])
    masses = np.log(value["student_topk_mass"]) - np.log(value["teachable_mass"])
    equal(value["thunlp_topk_reverse_kl"], value["topk_reverse_kl"] + masses)
    assert (value["negative_topk_kl_rate"] == (value["raw_topk_reverse_kl"] < 0)).all()
    assert (value["verl_topk_forward_kl"][value["verl_negative_rate"] == 1] == 0).all()
    assert (value["verl_clamped_rate"] >= value["verl_negative_rate"]).all()
    for name, whole in (("trl_topk_reverse_kl", "reverse_kl"), ("trl_topk_forward_kl", "forward_kl")):
        assert (value[name] >= 0).all()
        assert (value[name] <= value[whole] + 1e-5 * (1 + value[whole])).all(), name
    assert (value["jensen_shannon"] <= (value["reverse_kl"] + value["forward_kl"]) / 4 + 1e-6).all()
    assert (1 - value["common_mass"] <= np.sqrt(value["reverse_kl"] / 2) + 1e-6).all()  # Pinsker


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in CATALOGUE])
def test_entry_says_all_a_page_needs(metric):
    for text in (metric.title, metric.formula, metric.meaning, metric.caution, metric.reference):
        assert text
    assert metric.meaning.endswith(".")
    assert metric.caution.endswith(".")
    assert metric.symbol.startswith("$")
    assert metric.unit in ("ratio", "probability", "nats")
    assert metric.low < metric.high
    assert metric.depends_on
    assert set(metric.exempt) <= set(LAWS)
    assert metric.weight is None or metric.weight in WEIGHTS
    assert (metric.aggregation == "ratio of sums") == (metric.weight is not None)
    assert all(metric.exempt.values())
    assert not isinstance(metric.aligned, str) or metric.aligned in BY_NAME
    assert metric.of_one_model == (metric.name in ("student_entropy", "teacher_entropy") or "topk_mass" in metric.name)


def test_names_and_titles_are_told_apart():
    assert list(BY_NAME) == [m.name for m in CATALOGUE]
    for of in ("name", "title", "symbol", "meaning"):
        assert len({getattr(m, of) for m in CATALOGUE}) == len(CATALOGUE), of


def test_seven_are_primary():
    assert [m.name for m in CATALOGUE if m.primary] == [
        "overlap_ratio",
        "student_overlap_mass",
        "teacher_overlap_mass",
        "entropy_gap",
        "reverse_kl",
        "forward_kl",
        "overlap_token_advantage",
    ]


@given(pair=PAIRS, k=st.sampled_from([1, 3, K]))
@settings(max_examples=5)
def test_every_entry_computes_its_formula_on_drawn_pairs(pair, k):
    ordinary = np.arange(N) % 4 == 0  # plain floats have no logarithm of what is below 1e-300
    scores = pair.scores
    rows = zip(*(x[ordinary].double().exp().tolist() for x in pair[:2]), pair.sampled[ordinary].tolist(), strict=True)
    expected = [formulas(*row, k) for row in rows]
    for metric in CATALOGUE:
        found = metric.function(scores, k)[ordinary]
        assert found == pytest.approx([e[metric.name] for e in expected], abs=1e-5, rel=1e-4, nan_ok=True), metric.name


def test_every_entry_computes_its_formula(scores_from):
    student, teacher = distributions()
    sampled = torch.arange(N)
    scores = scores_from(student, teacher, sampled)
    rows = zip(student.double().exp().tolist(), teacher.double().exp().tolist(), sampled.tolist(), strict=True)
    expected = [formulas(*row, K) for row in rows]
    assert set(expected[0]) == set(BY_NAME)
    for metric in CATALOGUE:
        assert metric.function(scores, K) == pytest.approx([e[metric.name] for e in expected], abs=1e-5, nan_ok=True)
    assert scores.student_topk_ids.max() < V
