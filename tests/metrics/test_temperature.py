"""The temperature fit finds what was planted, and says so where it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from opd_diag import metrics
from opd_diag.records.fits import TEMPERATURES

GRID = torch.tensor(TEMPERATURES, dtype=torch.float64)


def logprobs(*shape, seed, spread=3.0):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    return made.log_softmax(-1)


def naive_kl(student, teacher, temperature):
    """One state, token by token."""
    weights = [math.exp(s / temperature) for s in student]
    p = [w / sum(weights) for w in weights]
    return sum(a * (math.log(a) - t) for a, t in zip(p, teacher, strict=True) if a > 0)


def fit(student, teacher):
    """Of the mean over states."""
    curve = metrics.tempered_reverse_kl(student, teacher, GRID)
    return metrics.fitted_temperature(curve.reverse_kl.mean(0), curve.slope.mean(0), GRID)


def test_each_temperature_is_what_the_definition_gives():
    student, teacher = logprobs(4, 30, seed=0), logprobs(4, 30, seed=1)
    found = metrics.tempered_reverse_kl(student, teacher, GRID).reverse_kl
    for state in range(4):
        for i, temperature in enumerate(TEMPERATURES):
            expected = naive_kl(student[state].tolist(), teacher[state].tolist(), temperature)
            assert found[state, i].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(found[:, TEMPERATURES.index(1.0)], metrics.reverse_kl(student, teacher).double())


def test_the_slope_is_the_derivative_by_the_logarithm():
    student, teacher = logprobs(3, 50, seed=2), logprobs(3, 50, seed=3)
    slope = metrics.tempered_reverse_kl(student, teacher, GRID).slope
    step = 1e-5
    up, down = (metrics.tempered_reverse_kl(student, teacher, GRID * math.exp(by)).reverse_kl for by in (step, -step))
    torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=1e-7, atol=1e-8)
    assert slope.abs().max() > 0.1


def test_ids_that_the_student_excludes_count_nothing():
    student, teacher = logprobs(2, 20, seed=4), logprobs(2, 20, seed=5)
    masked = torch.cat([student, torch.full((2, 3), -torch.inf, dtype=torch.float64)], -1)
    for theirs in (0.0, -torch.inf):  # whatever the teacher gives them
        more = torch.cat([teacher, torch.full((2, 3), theirs, dtype=torch.float64)], -1)
        for a, b in zip(
            metrics.tempered_reverse_kl(masked, more, GRID),
            metrics.tempered_reverse_kl(student, teacher, GRID),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_where_the_teacher_excludes_what_the_student_may_do_it_is_not_finite():
    student, teacher = logprobs(1, 5, seed=6), logprobs(1, 5, seed=7)
    teacher[0, 2] = -torch.inf
    curve = metrics.tempered_reverse_kl(student, teacher, GRID)
    assert not curve.reverse_kl.isfinite().any()
    assert fit(student, teacher).temperature.isnan()


@pytest.mark.parametrize("planted", [0.27, 0.5, 0.8, 0.95, 1.0, 1.1, 1.5, 2.3, 3.9])
@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0])
def test_a_student_that_is_the_teacher_at_another_temperature_is_found_out(planted, spread):
    teacher = logprobs(40, 200, seed=8, spread=spread)
    student = (teacher * planted).log_softmax(-1)  # its best temperature is `planted`: p^(1/planted) = q
    found = fit(student, teacher)
    before = metrics.reverse_kl(student, teacher).mean().item()
    assert found.temperature.item() == pytest.approx(planted, rel=5e-5)
    assert 0 <= found.reverse_kl.item() <= 2e-6
    assert before > 1e-4 or planted == 1.0
    assert found.beyond.item() == 0


def test_noise_at_equal_sharpness_is_no_temperature():
    """What remains is all of it: temperature explains nothing of a student that prefers other tokens."""
    common = logprobs(300, 100, seed=9)
    student, teacher = (
        (common + 0.5 * torch.randn(300, 100, generator=torch.Generator().manual_seed(s))).log_softmax(-1)
        for s in (10, 11)
    )
    found, before = fit(student, teacher), metrics.reverse_kl(student, teacher).mean().item()
    assert before > 0.1
    assert 1.0 <= found.temperature.item() < 1.12  # a little flatter is always a little nearer to noise
    assert found.reverse_kl.item() > 0.95 * before


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sharper", [0.6, 1.0, 1.7])
@pytest.mark.parametrize(("spread", "other"), [(4.0, 1.0), (8.0, 2.0)])
def test_between_the_temperatures_tried_it_is_what_a_search_finds(seed, sharper, spread, other):
    teacher = logprobs(50, 80, seed=seed, spread=spread)
    noise = other * torch.randn(50, 80, generator=torch.Generator().manual_seed(seed + 50))
    student = (sharper * (teacher + noise)).log_softmax(-1)

    def mean(log_temperature):
        at = torch.tensor([math.exp(log_temperature)], dtype=torch.float64)
        return metrics.tempered_reverse_kl(student, teacher, at).reverse_kl.mean().item()

    true = minimize_scalar(mean, bounds=(math.log(0.25), math.log(4)), method="bounded", options={"xatol": 1e-9})
    found = fit(student, teacher)
    assert found.temperature.item() == pytest.approx(math.exp(true.x), rel=5e-5)
    assert found.reverse_kl.item() == pytest.approx(true.fun, abs=2e-6)


@pytest.mark.parametrize(("planted", "beyond"), [(0.1, -1), (9.0, 1)])
def test_beyond_the_temperatures_tried_nothing_is_named_but_the_end(planted, beyond):
    teacher = logprobs(20, 100, seed=12)
    found = fit((teacher * planted).log_softmax(-1), teacher)
    assert found.temperature.isnan()
    assert found.reverse_kl.isnan()
    assert found.beyond.item() == beyond


def test_a_uniform_student_has_no_best_temperature():
    found = fit(torch.zeros(5, 30, dtype=torch.float64).log_softmax(-1), logprobs(5, 30, seed=13))
    assert found.temperature.isnan()
    assert found.beyond.item() == 0


def test_of_two_minima_the_lower_one_counts():
    """Values and slopes of sin(6u) + 0.3 u in u = log τ: minima near u = -1.3, -0.3 and 0.78."""
    u = GRID.log()
    found = metrics.fitted_temperature((6 * u).sin() + 0.3 * u + 2, 6 * (6 * u).cos() + 0.3, GRID)
    dense = torch.linspace(u[0], u[-1], 100001, dtype=torch.float64)
    true = dense[((6 * dense).sin() + 0.3 * dense).argmin()].item()
    assert found.temperature.log().item() == pytest.approx(true, abs=2e-2)


def test_many_at_once_are_each_alone():
    rows = [
        metrics.tempered_reverse_kl((logprobs(9, 40, seed=s) * by).log_softmax(-1), logprobs(9, 40, seed=s), GRID)
        for s, by in ((20, 0.1), (21, 0.7), (22, 1.9), (23, 8.0))
    ]
    values, slopes = (torch.stack([row[i].mean(0) for row in rows]) for i in range(2))
    together = metrics.fitted_temperature(values, slopes, GRID)
    for i in range(4):
        alone = metrics.fitted_temperature(values[i], slopes[i], GRID)
        np.testing.assert_array_equal([x[i] for x in together], list(alone))
    assert together.beyond.tolist() == [-1, 0, 0, 1]
