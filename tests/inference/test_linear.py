"""Products in float32 are those of torch by another way; whatever else is asked for is torch's own to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import linear as plain

from opd_diag.inference import linear as module
from opd_diag.inference.linear import fast_linear, linear

needs_onednn = pytest.mark.skipif(not module.AVAILABLE, reason="this build of torch has no oneDNN")


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def fast(monkeypatch):
    """Shapes of the inputs that went through oneDNN."""
    if not module.AVAILABLE:
        pytest.skip("this build of torch has no oneDNN")
    shapes, real = [], torch.ops.mkldnn._linear_pointwise

    def spy(x, *rest):
        shapes.append(tuple(x.shape))
        return real(x, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    return shapes


@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (24,), (2, 5, 24), (1, 1, 24), (2, 3, 1, 24), (300, 24)])
@pytest.mark.parametrize("n", [1, 3, 64, 1000])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_equal_to_torch(fast, shape, n, biased):
    x, weight, bias = normal(*shape), normal(n, 24, seed=1), normal(n, seed=2) if biased else None
    found = linear(x, weight, bias)
    truth = plain(x.double(), weight.double(), None if bias is None else bias.double())
    assert found.dtype == torch.float32
    assert fast == [shape]
    torch.testing.assert_close(found.double(), truth, atol=1e-5, rtol=1e-6)


def test_a_long_sum_loses_no_more_than_torch(fast):
    x, weight = normal(40, 4096), normal(50, 4096, seed=1)
    truth = x.double() @ weight.double().T
    found, theirs = linear(x, weight), plain(x, weight)
    assert fast == [(40, 4096)]
    assert (found - truth).abs().max() < 3 * (theirs - truth).abs().max() + 1e-5


@pytest.mark.parametrize("how", ["transposed", "every other row", "expanded"])
def test_inputs_that_lie_anyhow(fast, how):
    x = {
        "transposed": normal(24, 9).T,
        "every other row": normal(18, 24)[::2],
        "expanded": normal(1, 24).expand(9, 24),
    }[how]
    weight = normal(50, 24, seed=1)
    torch.testing.assert_close(linear(x, weight), plain(x, weight), atol=1e-5, rtol=1e-6)
    assert fast == [(9, 24)]


def test_rows_of_a_larger_matrix_are_taken_as_they_lie(fast):
    x, weight = normal(9, 24), normal(200, 24, seed=1)
    torch.testing.assert_close(linear(x, weight[64:131]), plain(x, weight)[:, 64:131], atol=1e-5, rtol=1e-6)
    assert fast == [(9, 24)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_precisions_are_torchs_own(fast, dtype):
    x, weight, bias = (normal(*s, seed=i, dtype=dtype) for i, s in enumerate(((9, 24), (50, 24), (50,))))
    assert torch.equal(linear(x, weight, bias), plain(x, weight, bias))
    assert fast == []


def test_a_weight_that_does_not_lie_in_rows_is_torchs_own(fast):
    x, weight = normal(9, 24), normal(24, 50, seed=1).T
    assert torch.equal(linear(x, weight), plain(x, weight))
    assert fast == []


def test_nothing_in_is_nothing_out(fast):
    assert linear(normal(0, 24), normal(50, 24), normal(50)).shape == (0, 50)
    assert fast == []


def test_where_it_is_not_built_in_torch_computes(monkeypatch, fast):
    monkeypatch.setattr(module, "AVAILABLE", False)
    layer, x = nn.Linear(24, 50), normal(9, 24)
    with torch.no_grad():
        assert torch.equal(linear(x, layer.weight, layer.bias), plain(x, layer.weight, layer.bias))
        with fast_linear():
            assert torch.equal(layer(x), plain(x, layer.weight, layer.bias))
    assert fast == []


class TestInside:
    def test_layers_of_modules_go_through_it(self, fast):
        layers, x = nn.Sequential(nn.Linear(24, 30), nn.GELU(), nn.Linear(30, 7, bias=False)), normal(2, 9, 24)
        with torch.no_grad():
            outside = layers(x)
            assert fast == []
            with fast_linear():
                inside = layers(x)
            assert fast == [(2, 9, 24), (2, 9, 30)]
            assert torch.equal(layers(x), outside)
        assert len(fast) == 2
        torch.testing.assert_close(inside, outside, atol=1e-5, rtol=1e-6)

    @pytest.mark.parametrize("words", ["input", "weight", "bias"])
    def test_arguments_by_name(self, fast, words):
        values = {"input": normal(9, 24), "weight": normal(50, 24, seed=1), "bias": normal(50, seed=2)}
        by_place = [values[name] for name in values if name < words or name != words][: list(values).index(words)]
        by_name = {name: values[name] for name in list(values)[len(by_place) :]}
        with fast_linear():
            found = nn.functional.linear(*by_place, **by_name)
        torch.testing.assert_close(found, plain(**values), atol=1e-5, rtol=1e-6)
        assert fast == [(9, 24)]

    def test_other_functions_are_what_they_were(self):
        x = normal(9, 24)
        with fast_linear():
            assert torch.equal(torch.softmax(x, -1), x.softmax(-1))
            assert torch.equal(x @ x.T, torch.matmul(x, x.T))

    def test_an_error_ends_it(self, fast):
        with pytest.raises(KeyError), fast_linear():
            raise KeyError("in between")
        nn.Linear(24, 7).requires_grad_(False)(normal(9, 24))
        assert fast == []

    def test_one_in_another(self, fast):
        layer, x = nn.Linear(24, 7).requires_grad_(False), normal(9, 24)
        with fast_linear():
            with fast_linear():
                layer(x)
            layer(x)
        assert fast == [(9, 24)] * 2
        layer(x)
        assert len(fast) == 2


class TestGradients:
    def test_the_mode_is_left_alone(self):
        assert torch.is_grad_enabled()
        with fast_linear():
            assert torch.is_grad_enabled()
            with torch.no_grad():
                assert not torch.is_grad_enabled()
            assert torch.is_grad_enabled()
        assert torch.is_grad_enabled()
        with torch.no_grad(), fast_linear():
            assert not torch.is_grad_enabled()

    @pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1, 2)], ids=["x", "weight", "bias", "all"])
    def test_who_wants_them_gets_them(self, wanted):
        def gradients(function):
            tensors = [normal(9, 24), normal(7, 24, seed=1), normal(7, seed=2)]
            for i in wanted:
                tensors[i].requires_grad_()
            function(*tensors).square().sum().backward()
            return [tensors[i].grad for i in wanted]

        def inside(*tensors):
            with fast_linear():
                return nn.functional.linear(*tensors)

        expected = gradients(plain)
        for function in (linear, inside):
            for found, truth in zip(gradients(function), expected, strict=True):
                assert torch.equal(found, truth)

    def test_weights_that_could_be_trained_are_no_hindrance_where_nobody_trains(self, fast):
        layer = nn.Linear(24, 7)
        with torch.inference_mode(), fast_linear():
            layer(normal(9, 24))
        assert fast == [(9, 24)]
