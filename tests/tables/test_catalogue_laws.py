"""Laws that every metric of the catalogue obeys, whatever it measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, WEIGHTS

from .distributions import PERTURBATIONS, K, N, V, distributions, extremes, formulas, top_first

TOLERANCE = 1e-6
LAWS = ("aligned", "bounds", "moves", "stays", "relabelling", "better", "k")


def subject_to(law):
    return [pytest.param(m, id=m.name) for m in CATALOGUE if law not in m.exempt]


MOVED_BY = {
    "topk ids": {"topk ids", "topk probabilities", "whole distributions", "sampled tokens"},
    "topk probabilities": {"topk probabilities", "whole distributions", "sampled tokens"},
    "whole distributions": {"whole distributions"},
}
"""What else a perturbation changes: other probabilities at the best ids are another distribution, too."""


def perturbed(kind, scores_from, side):
    """Scores before and after one model is perturbed; the sampled token is the student's second best."""
    student, teacher = distributions(seed=11, distance=1.0)
    sampled = top_first(student)[:, 1]
    changed = PERTURBATIONS[kind](student if side == "student" else teacher)
    after = (changed, teacher) if side == "student" else (student, changed)
    return scores_from(student, teacher, sampled), scores_from(*after, sampled)


def undefined_when_aligned(metric):
    return isinstance(metric.aligned, float) and math.isnan(metric.aligned)


WITHOUT_GRADIENT = ("certain student", "certain teacher", "uniform", "all but equal")
"""Extremes where reverse KL is infinite, or has nothing to push."""


def change(metric, before, after):
    """Largest change at any state; NaN on both sides is no change, on one side an infinite one."""
    first, second = metric.function(before, K), metric.function(after, K)
    assert first.shape == second.shape == (N,)
    both = np.isnan(first) & np.isnan(second)
    return float(np.nan_to_num(np.abs(second - first), nan=math.inf)[~both].max(initial=0.0))


@pytest.mark.parametrize("metric", subject_to("aligned"))
def test_equals_its_aligned_value_for_identical_models(metric, scores_from):
    student, _ = distributions()
    scores = scores_from(student, student.clone())
    columns = {
        "student_topk_mass": np.exp(scores.student_topk_logprobs[:, :K].astype(np.float64)).sum(-1),
        "student_entropy": scores.student_entropy.astype(np.float64),
    }
    expected = columns[metric.aligned] if isinstance(metric.aligned, str) else np.full(N, metric.aligned)
    assert metric.function(scores, K) == pytest.approx(expected, abs=TOLERANCE, nan_ok=True)


@pytest.mark.parametrize("metric", subject_to("aligned"))
def test_leaves_its_aligned_value_for_different_models(metric, scores_from):
    student, teacher = distributions()
    values = metric.function(scores_from(student, teacher), K)
    if undefined_when_aligned(metric):
        assert not np.isnan(values).any()
        return
    if isinstance(metric.aligned, str):
        aligned = metric.function(scores_from(student, student), K)
        if metric.name == "student_entropy":  # it never depends on the teacher
            assert values == pytest.approx(aligned)
            return
    else:
        aligned = np.full(N, metric.aligned)
    assert np.nanmean(np.abs(values - aligned)) > 0.01


@pytest.mark.parametrize("case", extremes())
@pytest.mark.parametrize("metric", subject_to("bounds"))
def test_stays_in_bounds(metric, case, scores_from):
    scores = scores_from(*extremes()[case])
    for k in (1, 2, K, 32):
        values = metric.function(scores, k)
        defined = values[~np.isnan(values)]
        if undefined_when_aligned(metric):
            assert len(defined) == (0 if case in WITHOUT_GRADIENT else N)
        else:
            assert len(defined) == N or metric.name == "overlap_token_advantage"  # undefined where nothing is shared
        assert (defined >= metric.low - TOLERANCE).all()
        assert (defined <= metric.high + TOLERANCE).all()


@pytest.mark.parametrize("metric", subject_to("bounds"))
def test_values_are_float64_of_one_a_state(metric, scores_from):
    values = metric.function(scores_from(*distributions()), K)
    assert values.dtype == np.float64
    assert values.shape == (N,)


MOVING = [
    pytest.param(m, kind, id=f"{m.name}-{kind}")
    for m in CATALOGUE
    for kind in PERTURBATIONS
    if kind in m.depends_on and "moves" not in m.exempt
]
STAYING = [
    pytest.param(m, kind, id=f"{m.name}-{kind}")
    for m in CATALOGUE
    for kind in PERTURBATIONS
    if not set(m.depends_on) & MOVED_BY[kind] and "stays" not in m.exempt
]


@pytest.mark.parametrize(("metric", "kind"), MOVING)
def test_moves_by_a_margin_when_what_it_depends_on_changes(metric, kind, scores_from):
    moved = [change(metric, *perturbed(kind, scores_from, side)) for side in ("student", "teacher")]
    if metric.name == "teacher_entropy":
        assert moved[0] == 0.0
    if metric.name == "student_entropy":
        assert moved[1] == 0.0
    assert max(moved) > 0.01


@pytest.mark.parametrize("metric", subject_to("moves"))
def test_moves_with_the_sampled_tokens_if_it_depends_on_them(metric, scores_from):
    student, teacher = distributions(seed=11)
    order = top_first(student)
    moved = change(metric, scores_from(student, teacher, order[:, 0]), scores_from(student, teacher, order[:, 3]))
    if "sampled tokens" in metric.depends_on:
        assert moved > 0.1
    else:
        assert moved == 0.0


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize(("metric", "kind"), STAYING)
def test_stays_when_nothing_it_depends_on_changes(metric, kind, side, scores_from):
    assert change(metric, *perturbed(kind, scores_from, side)) == 0.0


@pytest.mark.parametrize("metric", subject_to("relabelling"))
def test_relabelling_the_vocabulary_changes_nothing(metric, scores_from):
    student, teacher = distributions(seed=4)
    new_id = torch.randperm(V, generator=torch.Generator().manual_seed(4))
    sampled = torch.arange(N)
    before = scores_from(student, teacher, sampled)
    relabelled = torch.empty_like(student), torch.empty_like(teacher)
    relabelled[0][:, new_id], relabelled[1][:, new_id] = student, teacher
    after = scores_from(*relabelled, new_id[sampled])
    assert not np.array_equal(before.student_topk_ids, after.student_topk_ids)
    for k in (1, K):
        first, second = metric.function(before, k), metric.function(after, k)
        assert second == pytest.approx(first, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("metric", [p for p in subject_to("better") if p.values[0].better != "none"])
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


@pytest.mark.parametrize("metric", subject_to("k"))
def test_depends_on_k_as_it_says(metric, scores_from):
    scores = scores_from(*distributions())
    at = [metric.function(scores, k) for k in (2, 16)]
    if metric.depends_on_k:
        assert np.nanmean(np.abs(at[1] - at[0])) > 0.01
    else:
        assert np.array_equal(at[0], at[1])


@pytest.mark.parametrize("name", ["student_overlap_mass", "teacher_overlap_mass"])
def test_shared_mass_does_not_fall_as_k_grows(name, scores_from):
    for pair in (distributions(), *extremes().values()):
        scores = scores_from(*pair)
        masses = np.stack([BY_NAME[name].function(scores, k) for k in range(1, 33)], axis=-1)
        assert (np.diff(masses) >= -1e-12).all()
        shared = np.stack([k * BY_NAME["overlap_ratio"].function(scores, k) for k in range(1, 33)], axis=-1)
        assert (np.diff(shared) > -1e-5).all()
    scores = scores_from(*distributions())
    assert BY_NAME[name].function(scores, 32).mean() > BY_NAME[name].function(scores, 2).mean() + 0.1


def test_metrics_at_k_agree_with_the_concentration_curve(scores_from):
    scores = scores_from(*distributions())
    for g, k in enumerate(scores.grid):
        if k > scores.k_kept:
            break
        for name, curve in (
            ("overlap_ratio", scores.curve_shared[:, g] / k),
            ("student_overlap_mass", scores.curve_student_shared_mass[:, g]),
            ("teacher_overlap_mass", scores.curve_teacher_shared_mass[:, g]),
        ):
            assert BY_NAME[name].function(scores, k) == pytest.approx(curve, abs=TOLERANCE)


def test_identities_between_metrics(scores_from):
    scores = scores_from(*distributions())
    value = {m.name: m.function(scores, K) for m in CATALOGUE}
    assert value["entropy_gap"] == pytest.approx(np.abs(value["entropy_difference"]))
    assert value["entropy_difference"] == pytest.approx(value["student_entropy"] - value["teacher_entropy"], abs=1e-6)
    assert (value["student_overlap_mass"] > 0).tolist() == (value["overlap_ratio"] > 0).tolist()
    shares = [value[name] for name in BY_NAME if name.endswith("gradient_ratio")]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(np.ones(N))
    assert np.isnan(value["overlap_token_advantage"]).tolist() == (value["overlap_ratio"] == 0).tolist()


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


def test_the_names_are_those_of_the_contract():
    assert list(BY_NAME) == [m.name for m in CATALOGUE]
    assert set(BY_NAME) == {
        "overlap_ratio",
        "student_overlap_mass",
        "teacher_overlap_mass",
        "overlap_token_advantage",
        "entropy_gap",
        "entropy_difference",
        "student_entropy",
        "teacher_entropy",
        "reverse_kl",
        "forward_kl",
        "sampled_reverse_kl",
        "top1_agreement",
        "shared_gradient_ratio",
        "student_only_gradient_ratio",
        "teacher_only_gradient_ratio",
        "other_gradient_ratio",
    }


def test_every_entry_computes_its_formula(scores_from):
    student, teacher = distributions()
    sampled = torch.arange(N)
    scores = scores_from(student, teacher, sampled)
    rows = zip(student.double().exp().tolist(), teacher.double().exp().tolist(), sampled.tolist(), strict=True)
    expected = [formulas(*row) for row in rows]
    for metric in CATALOGUE:
        assert metric.function(scores, K) == pytest.approx([e[metric.name] for e in expected], abs=1e-5, nan_ok=True)
