"""The one pass is metrics/ in float64, on logits that are hard on sums; and its top is numpy's sort."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.inference import onepass
from opd_diag.inference.head import Head
from opd_diag.inference.onepass import OnePass, Sums, Top

from .pairs import Pair, pair

NATS = ("student_entropy", "teacher_entropy", "reverse_kl", "forward_kl", "jensen_shannon", "centred_reverse_kl")
NORMALISERS = ("student_normaliser", "teacher_normaliser")
SQUARED = "gradient_squared_norm"


def passed(of: Pair, *, temperatures=(1.0, 1.0), k=1, vocabulary=None, rows=None) -> tuple[Sums, Top, Top]:
    """Run the pass over all states, so many at a time."""
    vocabulary = vocabulary or len(of.heads[0].weight)
    one = OnePass(*of.heads, vocabulary, temperatures, k)
    parts = []
    for start in range(0, len(of.hidden[0]), rows or one.rows):
        block = [hidden[start : start + (rows or one.rows)] for hidden in of.hidden]
        tops = one.load(*block)
        parts.append((one.sums(), *tops))
    return tuple(
        type(some[0])(**{f.name: torch.cat([getattr(part, f.name) for part in some]) for f in fields(some[0])})
        for some in zip(*parts, strict=True)
    )


def truth(logits) -> dict[str, Tensor]:
    """By the definitions, from logits of both in float64."""
    p, q = (x.log_softmax(-1) for x in logits)
    return {
        "student_normaliser": logits[0].logsumexp(-1),
        "teacher_normaliser": logits[1].logsumexp(-1),
        "student_entropy": metrics.entropy(p),
        "teacher_entropy": metrics.entropy(q),
        "reverse_kl": metrics.reverse_kl(p, q),
        "forward_kl": metrics.forward_kl(p, q),
        "jensen_shannon": metrics.jensen_shannon(p, q),
        "common_mass": metrics.common_mass(p, q),
        "gradient_squared_norm": metrics.gradient_squared_norm(p, q),
        "centred_reverse_kl": metrics.centred_reverse_kl(p, q),
    }


def same_logits(of: Pair, temperatures=(1.0, 1.0)):
    """The float32 logits that the pass itself makes, in float64: of blocks and tiles of the same sizes."""
    cut = cut_of(of)
    found = []
    for head, hidden, t in zip(of.heads, of.hidden, temperatures, strict=True):
        tiles = range(0, len(head.weight), cut.width)
        blocks = [
            torch.cat([head.tile(block, a, min(a + cut.width, len(head.weight))) for a in tiles], 1)
            for block in hidden.split(cut.rows)
        ]
        found.append((torch.cat(blocks) / t).double())
    return found


def cut_of(of: Pair) -> OnePass:
    return OnePass(*of.heads, len(of.heads[0].weight))


def assert_close(found: Sums, expected: dict[str, Tensor], *, nats: float, gradient: float, rtol: float = 0.0) -> None:
    assert {f.name for f in fields(Sums)} == set(expected)
    for name, value in expected.items():
        ours = getattr(found, name)
        assert ours.dtype == torch.float64, name
        assert ours.shape == value.shape, name
        if name == SQUARED:
            torch.testing.assert_close(ours, value, rtol=gradient, atol=1e-12, msg=lambda text: f"{SQUARED}: {text}")
        else:
            torch.testing.assert_close(ours, value, rtol=rtol, atol=nats, msg=lambda text, n=name: f"{n}: {text}")


KINDS = [
    *("ordinary", "peaked 5", "peaked 12", "peaked 20", "peaked 30", "opposed 12", "opposed 30", "wide", "flat"),
    *("offset 100", "offset 300", "peaked-offset 100", "noise 1e-4", "noise 1e-7", "identical"),
]
FAINT = ("noise", "identical")
"""Kinds whose gradients are below what float32 logits can tell."""


class TestTheSums:
    @pytest.mark.parametrize("vocabulary", [1000, 4097])
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_the_same_logits(self, kind, vocabulary):
        """What summing alone may lose."""
        of = pair(kind, vocabulary=vocabulary)
        expected = truth(same_logits(of))
        normalisers = {name: expected[name] for name in NORMALISERS}
        found, *_ = passed(of)
        assert_close(found, expected, nats=3e-6, gradient=1e-5 if not kind.startswith(FAINT) else 10)
        for name, value in normalisers.items():
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-9, atol=1e-6)

    @pytest.mark.parametrize("vocabulary", [1000, 4097])
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wide"])
    def test_of_the_same_hidden_states(self, kind, vocabulary):
        """What logits in float32 lose as well: within 1e-5 nats, but 2e-5 where an offset leaves them fewer digits."""
        of = pair(kind, vocabulary=vocabulary)
        found, *_ = passed(of)
        expected = truth(of.logits64())
        nats = 3e-5 if kind.endswith(" 300") else 1e-5
        assert_close(found, expected, nats=nats, gradient=1e-4 if not kind.startswith(FAINT) else 1e6)

    def test_where_logits_are_wide(self):
        """KL of 20 nats and more, from logits of 60."""
        of = pair("wide")
        expected = truth(of.logits64())
        assert expected["reverse_kl"].max() > 10
        assert_close(passed(of)[0], expected, nats=3e-5, gradient=1e-4, rtol=2e-6)

    @pytest.mark.parametrize("height", [12, 20, 25])
    def test_of_peaked_states_to_five_digits(self, height):
        """Entropies, KL and gradient of 1 - 1e-4 to 1 - 1e-9 are tiny, and still have digits."""
        of = pair(f"peaked {height}")
        expected = truth(same_logits(of))
        p = of.logits64()[0].softmax(-1)
        assert (1 - p.amax(-1)).min() < {12: 1e-4, 20: 1e-7, 25: 1e-9}[height]
        found, *_ = passed(of)
        for name in (*NATS[:4], "centred_reverse_kl"):
            torch.testing.assert_close(getattr(found, name), expected[name], rtol=1e-5, atol=1e-13, msg=name)
        torch.testing.assert_close(found.gradient_squared_norm, expected[SQUARED], rtol=1e-5, atol=0)

    def test_gradients_of_the_same_hidden_states_where_the_student_is_certain(self):
        of = pair("peaked 16", states=200)
        certain = of.logits64()[0].softmax(-1).amax(-1) > 0.9999
        assert certain.sum() > 40
        found, expected = passed(of)[0].gradient_squared_norm, truth(of.logits64())[SQUARED]
        torch.testing.assert_close(found[certain], expected[certain], rtol=1e-4, atol=0)

    @pytest.mark.parametrize("kind", ["identical", "noise 1e-7", "noise 1e-4", "peaked 30"])
    def test_nothing_is_negative(self, kind):
        found, *_ = passed(pair(kind, states=300))
        for name in (*NATS[:5], SQUARED):
            assert getattr(found, name).min() >= 0, name
        assert found.common_mass.max() <= 1
        assert found.jensen_shannon.max() <= math.log(2)

    def test_identical_models(self):
        of = pair("identical", states=100)
        of = Pair((of.hidden[0],) * 2, (of.heads[0],) * 2)
        found, student, teacher = passed(of, k=8)
        for name in ("reverse_kl", "forward_kl", "centred_reverse_kl", SQUARED):
            assert (getattr(found, name) == 0).all(), name
        assert found.jensen_shannon.max() < 2e-6
        assert found.common_mass.min() > 1 - 1e-6
        assert torch.equal(found.student_entropy, found.teacher_entropy)
        assert torch.equal(student.ids, teacher.ids)
        assert torch.equal(student.logits, student.others)

    def test_nearly_equal_models_are_told_from_identical_ones(self):
        """A KL of 1e-8 nats is lost among the tokens; its gradient is not."""
        found, *_ = passed(pair("noise 1e-4"))
        expected = truth(pair("noise 1e-4").logits64())
        torch.testing.assert_close(found.gradient_squared_norm, expected[SQUARED], rtol=0.3, atol=0)
        assert found.reverse_kl.max() < 1e-6

    def test_models_apart(self):
        found, *_ = passed(pair("opposed 30"))
        assert found.jensen_shannon.min() > math.log(2) - 1e-6
        assert found.common_mass.max() < 1e-4
        assert found.reverse_kl.min() > 10

    def test_a_uniform_pair(self):
        of = pair(vocabulary=1000, bias=False)
        zero = Pair(tuple(0 * hidden for hidden in of.hidden), of.heads)
        found, *_ = passed(zero)
        for name, value in truth(zero.logits64()).items():
            torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=2e-6, msg=name)


class TestHeads:
    @pytest.mark.parametrize(
        "traits", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 30.0}, {"bias": False}], ids=str
    )
    def test_what_heads_do_after_their_product(self, traits):
        of = pair("peaked 5", **traits)
        plain = passed(pair("peaked 5", bias=traits.get("bias", True) is False))[0].reverse_kl
        found, *_ = passed(of)
        assert_close(found, truth(of.logits64()), nats=1e-5, gradient=1e-4)
        assert (found.reverse_kl - plain).abs().max() > 0.01

    @pytest.mark.parametrize("temperatures", [(0.5, 1.0), (1.0, 2.0), (0.7, 0.3)])
    def test_temperatures(self, temperatures):
        of = pair()
        found, *_ = passed(of, temperatures=temperatures)
        assert_close(found, truth(of.logits64(temperatures)), nats=1e-5, gradient=1e-4)

    def test_a_temperature_leaves_the_weights_alone(self):
        of = pair()
        before = [head.weight.clone() for head in of.heads]
        first, *_ = passed(of, temperatures=(0.5, 2.0))
        again, *_ = passed(of, temperatures=(0.5, 2.0))
        assert torch.equal(first.reverse_kl, again.reverse_kl)
        assert all(torch.equal(a, head.weight) for a, head in zip(before, of.heads, strict=True))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_hidden_states_in_sixteen_bits_are_exact_values(self, dtype):
        of = pair()
        of = Pair(tuple(hidden.to(dtype) for hidden in of.hidden), of.heads)
        assert_close(passed(of)[0], truth(of.logits64()), nats=1e-5, gradient=1e-4)

    @pytest.mark.parametrize("common", [999, 700, 64, 40, 1])
    def test_only_the_ids_in_common(self, common):
        """As of a teacher with padding rows: what lies behind them is not looked at."""
        of = pair("peaked 5")
        for head in of.heads:
            head.bias[common:] += 50
        found, student, teacher = passed(of, vocabulary=common, k=min(8, common))
        assert_close(found, truth(of.logits64(vocabulary=common)), nats=1e-5, gradient=1e-4)
        assert max(student.ids.max(), teacher.ids.max()) < common

    @pytest.mark.parametrize("vocabulary", [1, 2, 5, 40, 63, 64, 65, 127, 128, 129, 640])
    def test_small_vocabularies(self, vocabulary):
        of = pair(vocabulary=vocabulary)
        found, student, teacher = passed(of, k=vocabulary)
        assert_close(found, truth(of.logits64()), nats=1e-5, gradient=1e-4)
        for top in (student, teacher):
            assert top.ids.sort(-1).values.tolist() == [list(range(vocabulary))] * 40


class TestSizes:
    """Nothing depends on how states and ids are cut."""

    @pytest.fixture
    def sizes(self, monkeypatch):
        def choose(*, rows=256, tile=2**18, buffer=40 * 2**20):
            monkeypatch.setitem(onepass.ROWS, "cpu", rows)
            monkeypatch.setattr(onepass, "TILE_ELEMENTS", tile)
            monkeypatch.setattr(onepass, "BUFFER_BYTES", buffer)

        return choose

    @pytest.mark.parametrize(
        ("rows", "tile", "width"),
        [(256, 1, 64), (8, 8 * 64, 64), (8, 8 * 200, 192), (40, 40 * 960, 960), (1, 10**6, 10**6)],
    )
    @pytest.mark.parametrize("kind", ["peaked 12", "offset 100"])
    def test_tiles(self, sizes, rows, tile, width, kind):
        of = pair(kind)
        sizes(rows=rows, tile=tile)
        assert cut_of(of).width == width // 64 * 64
        found, student, teacher = passed(of, k=20)
        assert_close(found, truth(of.logits64()), nats=1e-5, gradient=1e-4)
        assert_tops(of, (student, teacher), 20)

    @pytest.mark.parametrize(
        ("rows", "buffer", "expected"), [(256, 4 * 1000 * 7, 7), (256, 4 * 1000 * 8 - 1, 7), (256, 1, 1), (5, 10**9, 5)]
    )
    def test_rows_of_a_block_keep_the_budget(self, sizes, rows, buffer, expected):
        of = pair()
        sizes(rows=rows, buffer=buffer)
        assert OnePass(*of.heads, 1000).rows == expected
        assert_close(passed(of)[0], truth(of.logits64()), nats=1e-5, gradient=1e-4)

    @pytest.mark.parametrize("rows", [1, 7, 39])
    @pytest.mark.parametrize("kind", ["ordinary", "peaked 20", "opposed 12", "noise 1e-4"])
    def test_how_states_are_grouped(self, kind, rows):
        of = pair(kind)
        together, *tops = passed(of, k=8)
        apart, *others = passed(of, k=8, rows=rows)
        for name in (*NORMALISERS, *NATS, "common_mass"):
            torch.testing.assert_close(getattr(apart, name), getattr(together, name), rtol=0, atol=5e-6, msg=name)
        for one, many in zip(others, tops, strict=True):
            torch.testing.assert_close(one.logits, many.logits, rtol=0, atol=1e-5)
            assert (one.ids == many.ids).float().mean() > 0.99

    def test_a_state_alone(self):
        of = pair(states=1)
        found, *_ = passed(of)
        assert found.reverse_kl.shape == (1,)
        assert_close(found, truth(of.logits64()), nats=1e-5, gradient=1e-4)

    def test_buffers_hold_nothing_of_the_block_before(self):
        first, second = pair("peaked 30", states=40), pair(states=9, seed=50)
        second = Pair(second.hidden, first.heads)
        one = OnePass(*first.heads, 1000, k=8)
        one.load(*first.hidden)
        one.sums()
        tops = one.load(*second.hidden)
        fresh, *expected = passed(second, k=8)
        found = one.sums()
        for field in fields(Sums):
            assert torch.equal(getattr(found, field.name), getattr(fresh, field.name)), field.name
        for top, other in zip(tops, expected, strict=True):
            assert all(torch.equal(getattr(top, f.name), getattr(other, f.name)) for f in fields(Top))

    def test_the_hidden_states_are_left_alone(self):
        of = pair()
        before = [hidden.clone() for hidden in of.hidden]
        passed(of)
        assert all(torch.equal(a, b) for a, b in zip(before, of.hidden, strict=True))


def assert_tops(of: Pair, tops, k, temperatures=(1.0, 1.0)) -> None:
    """Hold both tops against numpy's stable sort of the same logits, and the tie at the edge against counting."""
    logits = [x.float().numpy() for x in same_logits(of, temperatures)]
    for top, own, other in zip(tops, logits, logits[::-1], strict=True):
        order = np.argsort(-own, axis=-1, kind="stable")[:, :k]
        np.testing.assert_array_equal(top.ids.numpy(), order)
        np.testing.assert_array_equal(top.logits.numpy(), np.take_along_axis(own, order, -1))
        np.testing.assert_array_equal(top.others.numpy(), np.take_along_axis(other, order, -1))
        last = np.take_along_axis(own, order[:, -1:], -1)
        np.testing.assert_array_equal(top.tied.numpy(), (own >= last).sum(-1) > k)


class TestTheTop:
    @pytest.mark.parametrize("k", [1, 2, 32, 128])
    @pytest.mark.parametrize("vocabulary", [130, 1000, 4097, 20_011])
    def test_is_numpys(self, vocabulary, k):
        of = pair(vocabulary=vocabulary)
        _, *tops = passed(of, k=k)
        assert_tops(of, tops, k)

    def test_at_temperatures(self):
        of = pair()
        _, *tops = passed(of, k=32, temperatures=(0.5, 1.7))
        assert_tops(of, tops, 32, (0.5, 1.7))

    @pytest.mark.parametrize("k", [1, 5, 32])
    @pytest.mark.parametrize("vocabulary", [100, 1000, 20_011])
    def test_ties_go_to_the_lower_id_and_are_counted(self, vocabulary, k):
        """Small whole numbers: most logits have equals, in every tile."""
        of = pair(vocabulary=vocabulary)
        whole = [hidden.mul(2).round() for hidden in of.hidden]
        of = Pair(tuple(whole), tuple(Head(h.weight.round(), None, 1.0, None) for h in of.heads))
        _, *tops = passed(of, k=k)
        assert_tops(of, tops, k)
        assert any(top.tied.any() for top in tops)
        assert not all(top.tied.all() for top in tops)

    @pytest.mark.parametrize(("equal", "tied"), [(range(2, 5), False), (range(2, 6), True), ([2, 700, 3], False)])
    def test_a_tie_counts_where_one_of_the_equals_is_left_out(self, equal, tied):
        of = pair(states=3, bias=False)
        bias = torch.zeros(1000)
        bias[[900, 1]] = 9.0
        bias[list(equal)] = 5.0
        zero = Pair(tuple(0 * hidden for hidden in of.hidden), tuple(Head(h.weight, bias, 1.0, None) for h in of.heads))
        _, student, teacher = passed(zero, k=5)
        for top in (student, teacher):
            assert top.ids.tolist() == [[1, 900, *sorted(equal)[:3]]] * 3
            assert top.tied.tolist() == [tied] * 3

    def test_values_at_chosen_ids(self):
        of = pair()
        one = OnePass(*of.heads, 1000)
        ids = torch.randint(0, 1000, (40, 3), generator=torch.Generator().manual_seed(1))
        one.load(*of.hidden)
        for found, logits in zip(one.at(ids), of.logits64(), strict=True):
            torch.testing.assert_close(found.double(), logits.gather(-1, ids), atol=1e-5, rtol=0)

    def test_more_than_there_are_is_refused(self):
        of = pair(vocabulary=40)
        with pytest.raises(ValueError, match="k must be 1 to the vocabulary size 40, found 41"):
            passed(of, k=41)


class TestWhatItCannotDo:
    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
    def test_is_not_a_number_and_spoils_no_other_state(self, side, value):
        """`block` does these states by the definitions."""
        of = pair()
        clean, *_ = passed(of)
        hidden = [h.clone() for h in of.hidden]
        hidden[side][7] = math.nan if math.isnan(value) else 0.0
        if not math.isnan(value):  # 0 · inf is not a number either; a weight of one sign makes the logit infinite
            hidden[side][7, 0] = value
        found, *_ = passed(Pair(tuple(hidden), of.heads))
        others = [i for i in range(40) if i != 7]
        assert not getattr(found, NATS[side]).isfinite()[7]
        assert not found.reverse_kl.isfinite()[7]
        for field in fields(Sums):
            assert torch.equal(getattr(found, field.name)[others], getattr(clean, field.name)[others]), field.name
