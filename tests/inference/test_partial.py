"""Fields of states of which a server said something: held against distributions that are known in full."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from opd_diag.inference.outline import DRAWN, ENDS
from opd_diag.inference.partial import BOUNDED, UNBOUNDED, PartialPlan, Rows, partial_fields, repeated, whole_fields
from opd_diag.records.scores import OF_WHOLE

M, V, TOP, K, STOPS = 14, 40, 12, 8, (2, 5)
LOST = ("teacher_entropy", "reverse_kl", "forward_kl", "jensen_shannon", "common_mass", "gradient_squared_norm",
        "centred_reverse_kl", "teacher_cut_mass")  # fmt: skip
TERMINAL = M - 1


def plan_of(*, vocabulary=V, ks=(1, 4, TOP), slack=0.0):
    return PartialPlan(vocabulary, 1.0, 1.0, STOPS, grid=(1, 2, 4, K), k_kept=K, ks=ks, slack=slack)


def logprobs(shape, seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


@pytest.fixture(scope="module")
def student():
    return logprobs((M, V), 0)


@pytest.fixture(scope="module")
def teacher():
    return (logprobs((M, V), 0) + logprobs((M, V), 1, spread=1.0)).log_softmax(-1).numpy()


@pytest.fixture(scope="module")
def sampled():
    ids = np.random.default_rng(0).integers(V, size=M)
    ids[TERMINAL] = -1
    return ids


def best_first(values):
    """Ids by falling value, of equal values the lower first."""
    return np.array([sorted(range(len(row)), key=lambda v, row=row: (-row[v], v)) for row in values])


def rows(teacher, sampled, *, top=TOP, asked=None):
    """What a server would say of these states."""
    ids = best_first(teacher)[:, :top]
    own = [math.nan if one < 0 else teacher[i, one] for i, one in enumerate(sampled)]
    at = None if asked is None else np.where(asked < 0, np.nan, np.take_along_axis(teacher, np.maximum(asked, 0), 1))
    return Rows(ids, np.take_along_axis(teacher, ids, 1), sampled, np.array(own), asked, at)


def whole_of(student, said, plan):
    return {name: of.numpy() for name, of in whole_fields(student, said, plan).items()}


def top_of(student, said, plan):
    return {name: of.numpy() for name, of in partial_fields(student, said, plan).items()}


def truth_of(p, q):
    """Divergences and the like of each row, by their definitions in numpy."""
    a, b = np.exp(p), np.exp(q)
    middle = np.log((a + b) / 2)
    ratio = p - q
    kl = (a * ratio).sum(-1)
    slope = a * (ratio - kl[:, None])
    return {
        "student_entropy": -(a * p).sum(-1),
        "teacher_entropy": -(b * q).sum(-1),
        "reverse_kl": kl,
        "forward_kl": -(b * ratio).sum(-1),
        "jensen_shannon": ((a * (p - middle)).sum(-1) + (b * (q - middle)).sum(-1)) / 2,
        "common_mass": np.minimum(a, b).sum(-1),
        "gradient_squared_norm": (slope**2).sum(-1),
        "student_stop_logprobs": np.log(a[:, STOPS].sum(-1)),
        "teacher_stop_logprobs": np.log(b[:, STOPS].sum(-1)),
    }


def at(values, ids):
    return np.take_along_axis(values, ids, 1)


@pytest.fixture(scope="module")
def whole(student, teacher, sampled):
    """The fields of whole distributions."""
    return whole_of(student, rows(teacher, sampled, top=V), plan_of(ks=()))


@pytest.fixture(scope="module")
def fields(student, teacher, sampled):
    """Those of the top K."""
    return top_of(student, rows(teacher, sampled), plan_of())


class TestTheWholeVocabulary:
    def test_every_quantity_is_that_of_both_distributions(self, whole, student, teacher):
        for name, truth in truth_of(student.numpy(), teacher).items():
            np.testing.assert_allclose(whole[name], truth, rtol=2e-6, err_msg=name)
        assert (whole["teacher_cut_mass"] == 0).all()
        assert not any(name.startswith(ENDS) for name in whole)

    def test_what_is_kept_is_exact_at_either_models_best(self, whole, student, teacher):
        p = student.numpy()
        ours, theirs = best_first(p)[:, :K], best_first(teacher)[:, :K]
        expected = {
            "student_topk_ids": ours, "teacher_topk_ids": theirs,
            "student_topk_logprobs": at(p, ours), "teacher_at_student_topk_logprobs": at(teacher, ours),
            "teacher_topk_logprobs": at(teacher, theirs), "student_at_teacher_topk_logprobs": at(p, theirs),
        }  # fmt: skip
        for name, truth in expected.items():
            np.testing.assert_allclose(whole[name], truth, rtol=2e-6, err_msg=name)

    def test_a_terminal_state_has_no_sampled_token(self, whole, sampled):
        assert whole["terminal"].tolist() == [False] * TERMINAL + [True]
        assert whole["sampled_ids"].tolist() == sampled.tolist()
        for name in ("student_sampled_logprobs", "teacher_sampled_logprobs"):
            assert np.flatnonzero(np.isnan(whole[name])).tolist() == [TERMINAL], name

    def test_ids_that_only_the_teacher_has_are_cut_off_and_their_mass_is_told(self, student, sampled):
        larger = logprobs((M, V + 6), 3).numpy()
        fields = whole_of(student, rows(larger, sampled, top=V + 6), plan_of(ks=()))
        kept = np.exp(larger[:, :V])
        np.testing.assert_allclose(fields["teacher_cut_mass"], np.exp(larger[:, V:]).sum(-1), rtol=1e-5)
        q = np.log(kept / kept.sum(-1, keepdims=True))
        for name, truth in truth_of(student.numpy(), q).items():
            np.testing.assert_allclose(fields[name], truth, rtol=2e-6, err_msg=name)

    def test_an_id_that_the_teacher_holds_impossible(self, student, teacher, sampled):
        q = teacher.copy()
        q[:, 7] = -math.inf
        q -= np.log(np.exp(q).sum(-1, keepdims=True))
        fields = whole_of(student, rows(q, sampled, top=V), plan_of(ks=()))
        assert np.isposinf(fields["reverse_kl"]).all()
        b = np.exp(q)
        forward = np.where(b > 0, b * np.where(b > 0, q - student.numpy(), 0), 0).sum(-1)
        np.testing.assert_allclose(fields["forward_kl"], forward, rtol=2e-6)


class TestTheTopK:
    def test_what_the_top_k_and_the_student_decide_is_exact(self, fields, student, teacher, sampled):
        p = student.numpy()
        ours, theirs = best_first(p)[:, :K], best_first(teacher)[:, :K]
        own = np.maximum(sampled, 0)[:, None]
        truth = truth_of(p, teacher)
        expected = {
            "student_topk_ids": ours, "teacher_topk_ids": theirs, "student_topk_logprobs": at(p, ours),
            "teacher_topk_logprobs": at(teacher, theirs), "student_at_teacher_topk_logprobs": at(p, theirs),
            "student_entropy": truth["student_entropy"], "student_stop_logprobs": truth["student_stop_logprobs"],
        }  # fmt: skip
        for name, of in expected.items():
            np.testing.assert_allclose(fields[name], of, rtol=2e-6, err_msg=name)
        for name, of in (("student_sampled_logprobs", p), ("teacher_sampled_logprobs", teacher)):
            np.testing.assert_allclose(fields[name][:TERMINAL], at(of, own)[:TERMINAL, 0], rtol=2e-6, err_msg=name)
            assert math.isnan(fields[name][TERMINAL]), name

    def test_the_curve_counts_and_weighs_what_both_top_k_share(self, fields, student, teacher):
        p = student.numpy()
        for j, k in enumerate(plan_of().grid):
            ours, theirs = best_first(p)[:, :k], best_first(teacher)[:, :k]
            shared = [sorted({*a} & {*b}) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
            assert fields["curve_shared"][:, j].tolist() == [len(ids) for ids in shared]
            for side, of in (("student", p), ("teacher", teacher)):
                masses = [np.exp(of[i, ids]).sum() for i, ids in enumerate(shared)]
                np.testing.assert_allclose(fields[f"curve_{side}_shared_mass"][:, j], masses, rtol=1e-5)

    def test_the_teacher_at_the_students_ids_is_what_came_back_and_nan_elsewhere(
        self, fields, student, teacher, sampled
    ):
        ours, theirs = best_first(student.numpy())[:, :K], best_first(teacher)[:, :TOP]
        came = np.array([[v in {*theirs[i], sampled[i]} for v in ours[i]] for i in range(M)])
        assert 0 < came.sum() < came.size
        expected = np.where(came, at(teacher, ours), np.nan)
        np.testing.assert_allclose(fields["teacher_at_student_topk_logprobs"], expected, rtol=2e-6)

    @pytest.mark.parametrize("name", LOST)
    def test_what_the_rest_decides_is_nan(self, fields, name):
        assert np.isnan(fields[name]).all()

    def test_the_truth_lies_between_the_bounds_for_every_k(self, fields, student, teacher):
        truth = truth_of(student.numpy(), teacher)
        for name in BOUNDED:
            ends = fields[ENDS + name]
            assert ends.shape == (M, 3, 2)
            assert (ends[..., 0] <= truth[name][:, None] + 1e-5).all(), name
            assert (truth[name][:, None] - 1e-5 <= ends[..., 1]).all(), name
            assert (ends[..., 0] < ends[..., 1]).all(), name

    def test_of_two_sums_over_all_ids_nothing_is_known_but_the_least(self, fields):
        for name, low in (("gradient_squared_norm", 0.0), ("centred_reverse_kl", -math.inf)):
            assert UNBOUNDED[name] == low
            assert (fields[ENDS + name] == [low, math.inf]).all()

    def test_stopping_is_exact_where_all_stop_ids_came_back_and_bounded_elsewhere(self, fields, teacher, sampled):
        theirs = best_first(teacher)[:, :TOP]
        came = np.array([{*STOPS} <= {*theirs[i], sampled[i]} for i in range(M)])
        assert 0 < came.sum() < M
        truth = np.log(np.exp(teacher[:, STOPS]).sum(-1))
        np.testing.assert_allclose(fields["teacher_stop_logprobs"], np.where(came, truth, np.nan), rtol=1e-5)
        low, high = fields[ENDS + "teacher_stop_logprobs"][:, -1].T
        np.testing.assert_allclose(low[came], high[came])
        assert ((low <= truth + 1e-5) & (truth - 1e-5 <= high)).all()
        assert (low < high)[~came].all()

    def test_every_field_of_a_whole_answer_is_there_with_bounds_of_what_takes_all(self, fields, whole):
        left_out = {"student_normaliser", "teacher_normaliser"}
        assert {name for name in fields if not name.startswith(ENDS)} == {*whole} - left_out
        assert {name.removeprefix(ENDS) for name in fields if name.startswith(ENDS)} == {*OF_WHOLE}
        for name in {*whole} - left_out:
            assert fields[name].dtype == whole[name].dtype, name
            assert fields[name].shape == whole[name].shape, name


def test_bounds_by_hand():
    """Student .4 .3 .2 .1; of the teacher .5 and .25 are known, so that the other two share .25, neither above it."""
    student = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    said = Rows(np.array([[0, 1]]), np.log([[0.5, 0.25]]), np.array([0]), np.log([0.5]))
    plan = PartialPlan(4, 1.0, 1.0, (3,), grid=(1, 2), k_kept=2, ks=(2,), slack=0.0)
    fields = top_of(student, said, plan)
    sure = 0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.3)
    expected = {
        "forward_kl": (sure + 0.25 * math.log(0.25 / 0.3), sure + 0.25 * math.log(0.25 / 0.1)),
        "common_mass": (0.4 + 0.25 + 0.1, 0.4 + 0.25 + 0.25),
        "teacher_entropy": (math.log(8) / 2, math.log(2) / 2 + math.log(4) / 4 + math.log(8) / 4),
        "teacher_stop_logprobs": (-math.inf, math.log(0.25)),
    }  # fmt: skip
    for name, ends in expected.items():
        assert fields[ENDS + name][0, -1].tolist() == pytest.approx(ends), name
        assert math.isnan(fields[name][0]), name


def test_a_top_k_of_the_whole_vocabulary_leaves_nothing_open_but_two_sums(student, teacher, sampled):
    fields = top_of(student, rows(teacher, sampled, top=V), plan_of(ks=(4, V)))
    truth = truth_of(student.numpy(), teacher)
    for name in (*BOUNDED, "teacher_stop_logprobs"):
        np.testing.assert_allclose(fields[name], truth[name], rtol=1e-5, err_msg=name)
    for name in UNBOUNDED:
        assert np.isnan(fields[name]).all()


def test_ids_that_are_asked_for_are_known_and_narrow_the_bounds(student, teacher, sampled):
    ours = best_first(student.numpy())[:, :K]
    asked = np.concatenate([ours, np.broadcast_to(STOPS, (M, 2))], 1)
    asked = np.where(repeated(asked), -1, asked)
    fields = top_of(student, rows(teacher, sampled, asked=asked), plan_of())
    np.testing.assert_allclose(fields["teacher_at_student_topk_logprobs"], at(teacher, ours), rtol=2e-6)
    truth = truth_of(student.numpy(), teacher)
    np.testing.assert_allclose(fields["teacher_stop_logprobs"], truth["teacher_stop_logprobs"], rtol=1e-5)
    ends, wider = (f[ENDS + "forward_kl"][:, -1] for f in (fields, top_of(student, rows(teacher, sampled), plan_of())))
    assert (ends[:, 0] >= wider[:, 0] - 1e-6).all()
    assert (ends[:, 1] <= wider[:, 1] + 1e-6).all()
    assert (ends[:, 1] - ends[:, 0]).mean() < 0.9 * (wider[:, 1] - wider[:, 0]).mean()
    assert (ends[:, 0] <= truth["forward_kl"] + 1e-5).all()
    assert (truth["forward_kl"] - 1e-5 <= ends[:, 1]).all()


def test_what_is_drawn_is_said_of_both_models(student, teacher, sampled):
    drawn = np.random.default_rng(1).integers(V, size=M)
    said = replace(
        rows(teacher, sampled, asked=np.concatenate([drawn[:, None], drawn[:, None] * 0 - 1], 1)), drawn_ids=drawn
    )
    fields = top_of(student, said, plan_of())
    assert fields[DRAWN + "ids"].tolist() == drawn.tolist()
    for name, of in (("student_logprobs", student.numpy()), ("teacher_logprobs", teacher)):
        np.testing.assert_allclose(fields[DRAWN + name], at(of, drawn[:, None])[:, 0], rtol=2e-6)
    assert not any(name.startswith(DRAWN) for name in top_of(student, rows(teacher, sampled), plan_of()))


class TestBeyondTheTopK:
    ROWS = Rows(
        topk_ids=np.array([[3, 5], [1, 2], [4, 6]]),
        topk_logprobs=np.log([[0.5, 0.2]] * 3),
        sampled=np.array([5, 7, -1]),
        sampled_logprobs=np.array([-0.1, -0.2, np.nan]),
        at_ids=np.array([[7, 3, -1, 9], [7, 8, 1, -1], [-1, 4, 0, 9]]),
        at_logprobs=np.array([[-1.0, -2.0, np.nan, -3.0], [-0.2, -4.0, -5.0, np.nan], [np.nan, -6.0, -7.0, -8.0]]),
    )

    def test_each_id_is_there_once_and_none_of_the_top_k(self):
        ids, values = self.ROWS.beyond()
        assert ids.tolist() == [[-1, 7, -1, -1, 9], [7, -1, 8, -1, -1], [-1, -1, -1, 0, 9]]
        assert values.tolist() == [[0, -1.0, 0, 0, -3.0], [-0.2, 0, -4.0, 0, 0], [0, 0, 0, -7.0, -8.0]]

    def test_where_nothing_was_asked_the_sampled_id_alone(self):
        ids, values = Rows(
            self.ROWS.topk_ids, self.ROWS.topk_logprobs, self.ROWS.sampled, self.ROWS.sampled_logprobs
        ).beyond()
        assert ids.tolist() == [[-1], [7], [-1]]
        assert values.tolist() == [[0], [-0.2], [0]]


@pytest.mark.parametrize(
    ("ids", "again"),
    [
        ([[7]], [[0]]), ([[2, 2, 2]], [[0, 1, 1]]), ([[-1, -1]], [[0, 1]]),
        ([[4, 1, 4], [1, 1, 4]], [[0, 0, 1], [0, 1, 0]]),
    ],
)  # fmt: skip
def test_what_stands_in_an_earlier_place_is_repeated(ids, again):
    assert repeated(np.array(ids)).tolist() == np.array(again, dtype=bool).tolist()


def test_repeated_marks_later_places():
    ids = np.array([[3, 5, 3, 3, 5], [1, 2, 3, 4, 5]])
    assert repeated(ids).tolist() == [[False, False, True, True, True], [False] * 5]
