"""The second pass is what the definitions give, tile by tile or not; its gradients are those of autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import random_rollouts, wrapped
from torch.utils._python_dispatch import TorchDispatchMode

from opd_diag import metrics
from opd_diag.inference import fitting, hidden_at, second_pass
from opd_diag.inference.head import OwnLogits
from opd_diag.records.fits import TEMPERATURES

from .pairs import pair

GRID = torch.tensor(TEMPERATURES, dtype=torch.float64)


def run(made, temperatures=(1.0, 1.0), vocabulary=1000):
    return second_pass(made.heads, made.hidden, vocabulary, temperatures)


def assert_by_definition(found, made, temperatures=(1.0, 1.0), vocabulary=1000, rtol=1e-5, atol=1e-6):
    """Whole matrices of float64 log-probabilities; soft-caps are left to autograd."""
    s, t = (x.log_softmax(-1) for x in made.logits64(temperatures, vocabulary))
    curve = metrics.tempered_reverse_kl(s, t, GRID)
    np.testing.assert_allclose(found.tempered_reverse_kl, curve.reverse_kl, rtol=rtol, atol=atol)
    np.testing.assert_allclose(found.tempered_slope, curve.slope, rtol=rtol, atol=10 * atol)
    products = metrics.gradient_products(metrics.reverse_kl_gradient(s, t), made.hidden[0])
    scale = float(products.diagonal().mean())
    np.testing.assert_allclose(found.products, products, rtol=10 * rtol, atol=10 * rtol * scale)
    assert scale > 0


@pytest.mark.parametrize("kind", ["ordinary", "noise 0.1", "noise 3", "wide", "offset 300", "peaked 12", "opposed 9"])
def test_it_is_what_the_definitions_give(kind):
    made = pair(kind)
    assert_by_definition(run(made), made, atol=3e-5 if kind.startswith("offset") else 2e-6)


@pytest.mark.parametrize("temperatures", [(0.7, 1.0), (1.0, 1.6), (1.3, 0.8)])
def test_on_top_of_the_temperatures_that_are_scored(temperatures):
    made = pair("noise 1")
    assert_by_definition(run(made, temperatures), made, temperatures)


def test_ids_that_only_one_model_has_are_cut():
    made = pair("noise 1")
    assert_by_definition(run(made, vocabulary=777), made, vocabulary=777)


def test_a_tempered_teacher_is_found_out():
    made = pair("identical")
    student, teacher = made.heads
    sharp = replace(student, weight=student.weight * 1.7, bias=student.bias * 1.7)
    found = second_pass((sharp, teacher), made.hidden, 1000, (1.0, 1.0))
    curve = (found.tempered_reverse_kl.mean(0), found.tempered_slope.mean(0))
    fit = metrics.fitted_temperature(*curve, GRID)
    assert fit.temperature.item() == pytest.approx(1.7, rel=1e-3)
    assert fit.reverse_kl.item() < 5e-5 < found.tempered_reverse_kl[:, TEMPERATURES.index(1.0)].mean()


@pytest.mark.parametrize(("width", "rows"), [(64, 1), (100, 7), (999, 40), (5000, 1000)])
def test_tiles_change_nothing(monkeypatch, width, rows):
    made = pair("noise 1", states=23)
    whole = run(made)
    monkeypatch.setattr(fitting, "WIDTH", width)
    monkeypatch.setattr(fitting, "ROWS", rows)
    for name in ("tempered_reverse_kl", "tempered_slope", "products", "least_squared_norms"):
        # tiles of another width are other matrix products, whose logits differ in the last digit of float32
        np.testing.assert_allclose(getattr(run(made), name), getattr(whole, name), rtol=1e-4, atol=2e-5)


def test_states_do_not_depend_on_each_other():
    made = pair("noise 1", states=30)
    few = second_pass(made.heads, tuple(h[10:14] for h in made.hidden), 1000, (1.0, 1.0))
    whole = run(made)
    np.testing.assert_allclose(few.tempered_reverse_kl, whole.tempered_reverse_kl[10:14], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(few.products, whole.products[10:14, 10:14], rtol=1e-3, atol=1e-5)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else (made,):
            if isinstance(x, torch.Tensor) and x.storage_offset() == 0 and func is not torch.ops.aten.slice.Tensor:
                self.elements = max(self.elements, x.numel())
        return made


def test_memory_does_not_grow_with_the_vocabulary():
    largest = []
    for vocabulary in (4000, 16000):
        made = pair("noise 1", states=20, vocabulary=vocabulary)
        with Largest() as seen:
            run(made, vocabulary=vocabulary)
        largest.append(seen.elements)
    assert largest[0] == largest[1] > 0


def test_masked_ids_count_nothing_and_an_excluding_teacher_is_no_number():
    made = pair("noise 1", states=12)
    student, teacher = made.heads
    masked = student.bias.clone()
    masked[[3, 500]] = -torch.inf
    both = teacher.bias.clone()
    both[3] = -torch.inf
    heads = replace(student, bias=masked), replace(teacher, bias=both)
    found = second_pass(heads, made.hidden, 1000, (1.0, 1.0))
    made.heads = heads
    s, t = (x.log_softmax(-1) for x in made.logits64())
    np.testing.assert_allclose(
        found.tempered_reverse_kl, metrics.tempered_reverse_kl(s, t, GRID).reverse_kl, rtol=1e-5, atol=1e-6
    )
    assert found.products.isfinite().all()
    excluded = second_pass((student, heads[1]), made.hidden, 1000, (1.0, 1.0))
    assert not excluded.tempered_reverse_kl.isfinite().any()
    assert not excluded.products.diagonal().isfinite().any()


@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {}), ("gemma2", {"final_logit_softcapping": 3.0}), ("granite", {"logits_scaling": 2.5}), ("gpt2", {})],
)
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_products_are_those_of_the_gradients_that_autograd_gives_the_output_matrix(family, changes, temperature):
    """One G a state, of the whole matrix; a constant factor, as of a scale or temperature, drops out."""
    student, teacher = wrapped(family, seed=1, **changes), wrapped("qwen3", seed=2)
    rollouts = random_rollouts(((4, 6), (7, 5), (3, 8)))
    places = [(0, 0), (0, 5), (1, 2), (2, 3), (2, 7)]
    hidden = hidden_at(student, rollouts, places), hidden_at(teacher, rollouts, places, as_teacher=True)
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    found = second_pass((student.head, teacher.head), hidden, vocabulary, (temperature, 1.0)).products

    body, layer = student.hf.base_model, student.hf.get_output_embeddings()
    weight = layer.weight.detach().clone().requires_grad_()
    gradients = []
    for row, position in places:
        ids = torch.tensor([[*rollouts[row].prompt_ids, *rollouts[row].response_ids]])
        at = len(rollouts[row].prompt_ids) + position - 1
        with torch.no_grad():
            theirs = teacher.hf(ids).logits[0, at, :vocabulary].log_softmax(-1)
            state = body(ids).last_hidden_state[0, at]
        logits = state @ weight.T + (0 if layer.bias is None else layer.bias)
        if "logits_scaling" in changes:
            logits = logits / changes["logits_scaling"]
        if "final_logit_softcapping" in changes:
            cap = changes["final_logit_softcapping"]
            logits = cap * (logits / cap).tanh()
        with torch.no_grad():  # it is the model's head, not one of the test's making
            torch.testing.assert_close(logits, student.hf(ids).logits[0, at], rtol=1e-4, atol=1e-4)
        ours = (logits[:vocabulary] / temperature).log_softmax(-1)
        (gradient,) = torch.autograd.grad((ours.exp() * (ours - theirs)).sum(), weight)
        gradients.append(gradient.double().flatten())
    expected = torch.stack(gradients) @ torch.stack(gradients).T
    factor = float(found.diagonal().mean() / expected.diagonal().mean())
    np.testing.assert_allclose(found, factor * expected, rtol=1e-3, atol=1e-4 * float(found.diagonal().mean()))
    constant = temperature * changes.get("logits_scaling", 1.0)
    assert factor == pytest.approx(constant**2, rel=1e-3)


def test_logits_of_a_models_own_have_no_output_matrix():
    made = pair("noise 1", states=6)
    logits = tuple(head.logits(h) for head, h in zip(made.heads, made.hidden, strict=True))
    own = OwnLogits(1000, torch.device("cpu"))
    found = second_pass((own, own), logits, 1000, (1.0, 1.0))
    np.testing.assert_allclose(found.tempered_reverse_kl, run(made).tempered_reverse_kl, rtol=1e-5, atol=1e-5)
    assert found.products.isnan().all()
    mixed = second_pass((made.heads[0], own), (made.hidden[0], logits[1]), 1000, (1.0, 1.0))
    np.testing.assert_allclose(mixed.products, run(made).products, rtol=1e-3, atol=1e-4)


def test_of_equal_models_all_gradients_are_rounding():
    made = pair("identical")
    student = made.heads[0]
    found = second_pass((student, student), (made.hidden[0], made.hidden[0]), 1000, (1.0, 1.0))
    assert (found.products.diagonal() <= found.least_squared_norms).all()
    assert (run(pair("noise 1")).products.diagonal() > found.least_squared_norms).all()
