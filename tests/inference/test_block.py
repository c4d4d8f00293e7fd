"""Every field of a block is what metrics/ makes of the same logits in float64, masked ids and cut ones included."""

from __future__ import annotations

import math

import pytest
import torch

from opd_diag import metrics
from opd_diag.inference.block import BlockPlan, Blocks
from opd_diag.inference.head import Head

from .pairs import Pair, pair

V = 300
GRID = (1, 2, 4, 8, 16, 32, 64, 128)
K = 32

CLEAR = 2e-5
"""Log-probabilities closer than this may change places by rounding."""

CURVE = tuple(f"curve_{name}" for name in metrics.Concentration._fields)

ORDERED = {
    *(f"{name}_topk_{what}" for name in ("student", "teacher") for what in ("ids", "logprobs")),
    *("teacher_at_student_topk_logprobs", "student_at_teacher_topk_logprobs", *CURVE),
}
"""Fields in which neighbours may change places."""

LOOSE = {"gradient_squared_norm": 1e-4}
"""Relative tolerance where it is not 1e-6."""


def plan_of(vocabulary=V, *, temperatures=(1.0, 1.0), stop_ids=(2,)) -> BlockPlan:
    grid = tuple(k for k in GRID if k <= vocabulary)
    return BlockPlan(vocabulary, *temperatures, tuple(stop_ids), grid, min(K, vocabulary))


def sampled_of(states, vocabulary=V):
    ids = torch.randint(0, vocabulary, (states,), generator=torch.Generator().manual_seed(3))
    ids[::4] = -1
    return ids


def scored(of: Pair, plan: BlockPlan, sampled=None):
    blocks = Blocks(*of.heads, plan)
    sampled = sampled_of(len(of.hidden[0]), plan.vocabulary) if sampled is None else sampled
    return blocks.score(*of.hidden, sampled)


def expected_of(of: Pair, plan: BlockPlan, sampled=None):
    """From whole distributions in float64, by the definitions."""
    sampled = sampled_of(len(of.hidden[0]), plan.vocabulary) if sampled is None else sampled
    whole = of.logits64(plan.temperatures)
    p, q = (logits[:, : plan.vocabulary].log_softmax(-1) for logits in whole)
    values = {
        "sampled_ids": sampled.int(),
        "terminal": sampled == -1,
        "student_entropy": metrics.entropy(p),
        "teacher_entropy": metrics.entropy(q),
        "reverse_kl": metrics.reverse_kl(p, q),
        "forward_kl": metrics.forward_kl(p, q),
        "jensen_shannon": metrics.jensen_shannon(p, q),
        "common_mass": metrics.common_mass(p, q),
        "gradient_squared_norm": metrics.gradient_squared_norm(p, q),
        "centred_reverse_kl": metrics.centred_reverse_kl(p, q),
    }
    tops = []
    for name, own, other, logits in (("student", p, q, whole[0]), ("teacher", q, p, whole[1])):
        at = own.gather(-1, sampled.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        values[f"{name}_sampled_logprobs"] = torch.where(sampled < 0, math.nan, at)
        values[f"{name}_stop_logprobs"] = metrics.stop_logprobs(own, plan.stop_ids)
        values[f"{name}_cut_mass"] = logits.softmax(-1)[:, plan.vocabulary :].sum(-1)
        best, ids = metrics.topk(own, plan.k_found)
        tops += [(ids, best, other.gather(-1, ids))]
        crossed = {"student": "teacher_at_student_topk_logprobs", "teacher": "student_at_teacher_topk_logprobs"}[name]
        values[f"{name}_topk_ids"] = ids[:, : plan.k_kept].int()
        values[f"{name}_topk_logprobs"] = best[:, : plan.k_kept]
        values[crossed] = tops[-1][2][:, : plan.k_kept]
    curve = metrics.concentration(metrics.Kept(*tops[0], *tops[1][:2]), plan.grid)
    values |= {f"curve_{name}": getattr(curve, name) for name in curve._fields}
    return values


def unsure(logprobs):
    """Where in the order of probability neighbours are closer than rounding, but not equal: (m, V), V - 1 of them."""
    ranked = logprobs.sort(-1, descending=True).values
    gaps = (ranked[:, :-1] - ranked[:, 1:]).nan_to_num(0.0)  # both masked: equal
    return torch.nn.functional.pad((gaps > 0) & (gaps < CLEAR), (0, 1))


def clear_of(of: Pair, plan: BlockPlan):
    """Give, of the fields that depend on an order, where it is sure."""
    whole = of.logits64(plan.temperatures)
    ours, theirs = (unsure(logits[:, : plan.vocabulary]) for logits in whole)
    last = torch.tensor(plan.grid) - 1
    clear = {name: ~(ours | theirs)[:, last] for name in CURVE}
    for name, after, crossed in (("student", ours, "teacher_at_student"), ("teacher", theirs, "student_at_teacher")):
        before = torch.nn.functional.pad(after, (1, -1))
        clear[f"{name}_topk_ids"] = clear[f"{crossed}_topk_logprobs"] = ~(before | after)[:, : plan.k_kept]
    assert all(where.float().mean() > 0.99 for where in clear.values())
    return clear


def assert_block(of: Pair, plan: BlockPlan, sampled=None, *, atol=1e-5):
    """Hold every field against the definitions; give what was found."""
    found, expected, clear = scored(of, plan, sampled), expected_of(of, plan, sampled), clear_of(of, plan)
    assert set(found) == {*expected, "tied"}
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        where = clear.get(name, torch.ones(value.shape, dtype=torch.bool))
        ours, value = found[name][where], value[where]
        if not value.is_floating_point():
            assert torch.equal(ours.to(value.dtype), value), name
            continue
        torch.testing.assert_close(
            ours.double(), value, atol=atol if name not in LOOSE else 1e-12, rtol=LOOSE.get(name, 1e-6),
            equal_nan=True, msg=lambda text, n=name: f"{n}: {text}",
        )  # fmt: skip
    assert found["tied"].shape == (len(of.hidden[0]),)
    return found


def masked(of: Pair, student=(), teacher=()) -> Pair:
    """Give -inf to some ids."""
    heads = []
    for head, ids in zip(of.heads, (student, teacher), strict=True):
        bias = head.bias.clone()
        bias[list(ids)] = -math.inf
        heads.append(Head(head.weight, bias, head.scale, head.softcap))
    return Pair(of.hidden, tuple(heads))


class TestEveryField:
    @pytest.mark.parametrize("kind", ["ordinary", "peaked 12", "peaked 20", "opposed 12", "offset 100"])
    def test_of_hard_logits(self, kind):
        assert_block(pair(kind, vocabulary=V), plan_of())

    @pytest.mark.parametrize("temperatures", [(0.5, 1.0), (1.0, 2.0)])
    def test_at_temperatures(self, temperatures):
        assert_block(pair("peaked 5", vocabulary=V), plan_of(temperatures=temperatures))

    @pytest.mark.parametrize("vocabulary", [6, 20, 33, 64, 100, 129, 1000])
    def test_of_every_size(self, vocabulary):
        found = assert_block(pair(vocabulary=vocabulary), plan_of(vocabulary))
        assert found["student_topk_ids"].shape == (40, min(32, vocabulary))

    @pytest.mark.parametrize("stop_ids", [(), (2,), (0, 2, 299)])
    def test_whatever_stops(self, stop_ids):
        found = assert_block(pair(vocabulary=V), plan_of(stop_ids=stop_ids))
        assert (found["student_stop_logprobs"] == -math.inf).all() == (not stop_ids)

    def test_a_stop_token_that_is_certain(self):
        found = assert_block(pair("peaked 30", vocabulary=V), plan_of(stop_ids=(5, 7)))
        assert (found["student_stop_logprobs"] <= 0).all()

    @pytest.mark.parametrize("sampled", [-1, 0, V - 1])
    def test_whatever_was_sampled(self, sampled):
        found = assert_block(pair(vocabulary=V), plan_of(), torch.full((40,), sampled))
        assert found["student_sampled_logprobs"].isnan().all() == (sampled == -1)

    def test_types(self):
        found = scored(pair(vocabulary=V), plan_of())
        double = {"gradient_squared_norm", "centred_reverse_kl"}
        assert {n for n, v in found.items() if v.dtype == torch.float64} == double
        assert {n for n, v in found.items() if v.dtype == torch.bool} == {"terminal", "tied"}
        whole = {"sampled_ids", "student_topk_ids", "teacher_topk_ids", "curve_shared"}
        assert {n for n, v in found.items() if v.dtype == torch.int32} == whole


class TestVocabulariesOfDifferentSize:
    @pytest.mark.parametrize("larger", ["student", "teacher", "both"])
    @pytest.mark.parametrize("common", [64, 250, 299])
    def test_the_mass_that_is_cut(self, larger, common):
        of = pair(vocabulary=V)
        sizes = {"student": (V, common), "teacher": (common, V), "both": (V, V)}[larger]
        heads = [Head(h.weight[:n], h.bias[:n], 1.0, None) for h, n in zip(of.heads, sizes, strict=True)]
        found = assert_block(Pair(of.hidden, tuple(heads)), plan_of(common, temperatures=(0.7, 1.3)))
        for name, size in zip(("student", "teacher"), sizes, strict=True):
            assert (found[f"{name}_cut_mass"] > 0).all() == (size > common)
            assert (found[f"{name}_cut_mass"] < 1).all()

    @pytest.mark.parametrize("height", [-200.0, 60.0])
    def test_nearly_nothing_or_nearly_all_is_cut(self, height):
        of = pair(vocabulary=V)
        for head in of.heads:
            head.bias[280:] += height
        found = assert_block(of, plan_of(280))
        torch.testing.assert_close(found["student_cut_mass"], torch.full((40,), float(height > 0)), atol=1e-6, rtol=0)

    def test_more_cut_ids_than_a_tile_holds(self):
        of = pair(vocabulary=5000)
        assert Blocks(*of.heads, plan_of(100)).one_pass.width < 4900
        assert_block(of, plan_of(100))

    def test_ids_that_are_cut_and_masked(self):
        found = assert_block(masked(pair(vocabulary=V), range(250, 300), range(280, 300)), plan_of(250))
        assert (found["student_cut_mass"] == 0).all()
        assert (found["teacher_cut_mass"] > 0).all()


class TestMaskedIds:
    """Logits of minus infinity are no error: those ids are never drawn."""

    def test_on_both_sides(self):
        ids = [*range(40, 60), 2, 299]
        found = assert_block(masked(pair(vocabulary=V), ids, ids), plan_of(stop_ids=(2, 3)))
        for name, values in found.items():
            if name not in ("student_sampled_logprobs", "teacher_sampled_logprobs"):
                assert not values.isnan().any(), name
        assert found["reverse_kl"].isfinite().all()
        assert found["gradient_squared_norm"].isfinite().all()

    def test_without_the_masked_ids_nothing_changes(self):
        """As if the vocabulary had ended before them."""
        of, ids = pair(vocabulary=V), range(260, 300)
        found = scored(masked(of, ids, ids), plan_of(), torch.full((40,), 7))
        short = Pair(of.hidden, tuple(Head(h.weight[:260], h.bias[:260], 1.0, None) for h in of.heads))
        expected = scored(short, plan_of(260), torch.full((40,), 7))
        for name in set(found) - ORDERED:
            torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5, msg=name)
        for name in ("student_topk_ids", "teacher_topk_ids"):
            assert (found[name] == expected[name]).float().mean() > 0.99

    @pytest.mark.parametrize("side", ["student", "teacher"])
    def test_on_one_side(self, side):
        """What one model can say and the other cannot is infinitely far."""
        found = assert_block(masked(pair(vocabulary=V), **{side: [9, 77]}), plan_of())
        infinite, finite = ("forward_kl", "reverse_kl") if side == "student" else ("reverse_kl", "forward_kl")
        assert (found[infinite] == math.inf).all()
        assert found[finite].isfinite().all()
        assert found["jensen_shannon"].isfinite().all()
        assert (found["common_mass"] > 0.1).all()

    def test_all_but_one(self):
        ids = [i for i in range(V) if i != 50]
        found = assert_block(masked(pair(vocabulary=V), ids, ids), plan_of())
        for name in ("student_entropy", "reverse_kl", "forward_kl", "jensen_shannon", "gradient_squared_norm"):
            assert (found[name] == 0).all(), name
        assert (found["common_mass"] == 1).all()
        assert (found["student_topk_ids"][:, 0] == 50).all()
        assert (found["student_topk_logprobs"][:, 0] == 0).all()

    def test_another_one_each(self):
        first, second = ([i for i in range(V) if i != kept] for kept in (50, 51))
        found = assert_block(masked(pair(vocabulary=V), first, second), plan_of())
        assert (found["reverse_kl"] == math.inf).all()
        torch.testing.assert_close(found["jensen_shannon"], torch.full((40,), math.log(2)))
        assert (found["common_mass"] == 0).all()

    def test_in_some_states_only(self):
        """A hidden state may mask by a weight of its own; the states beside it are as they were, to the bit."""
        of = pair(vocabulary=V)
        clean = scored(of, plan_of())
        with_one = Pair(tuple(_wider(h) for h in of.hidden), tuple(_with_switch(head, 33) for head in of.heads))
        for hidden in with_one.hidden:
            hidden[[4, 11], -1] = 1e38
        found = scored(with_one, plan_of())
        assert with_one.heads[0].logits(with_one.hidden[0])[4, 33] == -math.inf
        others = [i for i in range(40) if i not in (4, 11)]
        for name in set(found) - ORDERED:
            ours, theirs = found[name][others], clean[name][others]
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, equal_nan=True, msg=name)
        assert found["reverse_kl"].isfinite().all()
        one_id_less = masked(Pair(tuple(h[[4, 11]] for h in of.hidden), of.heads), [33], [33])
        expected = expected_of(one_id_less, plan_of(), sampled_of(40)[[4, 11]])
        torch.testing.assert_close(found["reverse_kl"][[4, 11]].double(), expected["reverse_kl"], atol=1e-5, rtol=1e-6)


def _wider(hidden):
    return torch.cat([hidden, torch.zeros(len(hidden), 1)], 1)


def _with_switch(head, id_):
    column = torch.zeros(len(head.weight), 1)
    column[id_] = -10.0
    return Head(torch.cat([head.weight, column], 1), head.bias, 1.0, None)


class TestWhatIsNotANumber:
    """Scoring refuses a state whose entropy is not a number (tests/inference/test_scoring.py)."""

    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_the_entropy_of_that_model_alone_says_so(self, side, value):
        of = pair(vocabulary=V)
        clean = scored(of, plan_of())
        hidden = [h.clone() for h in of.hidden]
        hidden[side][[0, 7]] = math.nan
        if value == math.inf:
            hidden[side][[0, 7]] = 0.0
            hidden[side][[0, 7], 3] = math.inf
        found = scored(Pair(tuple(hidden), of.heads), plan_of())
        sick, well = ("student", "teacher") if side == 0 else ("teacher", "student")
        assert found[f"{sick}_entropy"].isnan().nonzero().squeeze(-1).tolist() == [0, 7]
        torch.testing.assert_close(found[f"{well}_entropy"], clean[f"{well}_entropy"], atol=1e-5, rtol=0)
        others = [i for i in range(40) if i not in (0, 7)]
        for name, values in found.items():
            torch.testing.assert_close(values[others], clean[name][others], atol=0, rtol=0, equal_nan=True, msg=name)

    def test_nothing_that_can_be_said(self):
        found = scored(masked(pair(vocabulary=V), range(V)), plan_of())
        assert found["student_entropy"].isnan().all()
        assert found["teacher_entropy"].isfinite().all()


class TestTies:
    @pytest.mark.parametrize(("equal", "tied"), [(32, False), (33, True), (128, True), (129, True)])
    @pytest.mark.parametrize("side", [0, 1])
    def test_are_counted_where_one_of_the_equals_is_left_out(self, equal, tied, side):
        of = pair(vocabulary=V)
        biases = [torch.linspace(0, 1, V) for _ in range(2)]
        biases[side][100 : 100 + equal] = 9.0
        heads = tuple(Head(0 * h.weight, bias, 1.0, None) for h, bias in zip(of.heads, biases, strict=True))
        found = assert_block(Pair(of.hidden, heads), plan_of())
        assert found["tied"].tolist() == [tied] * 40
        ids = found[("student_topk_ids", "teacher_topk_ids")[side]]
        assert ids.tolist() == [list(range(100, 132))] * 40

    @pytest.mark.parametrize(("equal", "tied"), [(88, False), (89, True)])
    @pytest.mark.parametrize("side", [0, 1])
    def test_at_the_end_of_the_curve_too(self, equal, tied, side):
        of = pair(vocabulary=V)
        biases = [torch.linspace(0, 1, V) for _ in range(2)]
        biases[side][:40] = torch.linspace(8, 9, 40)
        biases[side][100 : 100 + equal] = 5.0
        heads = tuple(Head(0 * h.weight, bias, 1.0, None) for h, bias in zip(of.heads, biases, strict=True))
        assert assert_block(Pair(of.hidden, heads), plan_of())["tied"].tolist() == [tied] * 40

    def test_of_masked_states_too(self):
        of = pair(vocabulary=V)
        bias = torch.linspace(0, 1, V)
        bias[100:229] = 9.0
        bias[7] = -math.inf
        heads = tuple(Head(0 * h.weight, bias, 1.0, None) for h in of.heads)
        assert assert_block(Pair(of.hidden, heads), plan_of())["tied"].all()

    def test_of_ordinary_states_there_are_none(self):
        assert not scored(pair(vocabulary=V), plan_of())["tied"].any()
