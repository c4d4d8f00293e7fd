"""The precision floor: what a model shows against itself, on which states, and how it is kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import random_rollouts, rollout, tiny_model, wrapped
from tables.conftest import scores_from

from opd_diag import metrics
from opd_diag.inference import wrap_model
from opd_diag.replay import open_store, precision, replay
from opd_diag.replay.precision import (
    MOST_OF_ONE,
    MOST_STATES,
    Floor,
    distances,
    larger,
    load_floors,
    measured_floors,
    rollouts_for_floor,
    save_floors,
)
from opd_diag.tables import METRIC_NAMES
from replay.test_parts import keys, planned, replayed

SOME = random_rollouts([(7, 30), (5, 40), (9, 12)])
DIVERGENCES = ("reverse_kl", "forward_kl", "entropy_gap", "student_entropy", "teacher_entropy", "sampled_reverse_kl")


def floor_of(model, rollouts=SOME, **options):
    k = options.pop("k", 16)
    return measured_floors(model, rollouts, **({"temperature": 1.0} | options))[k]


def made(name, **parts):
    return Floor(name, "float32", "float64", 1, 1, **({"precision": {}, "batches": {}} | parts))


class TestMeasuring:
    def test_float32_is_near_its_floor_and_sixteen_bits_far_above(self):
        full, half = (floor_of(wrap_model(tiny_model().to(d), name="m")) for d in (torch.float32, torch.bfloat16))
        assert (full.dtype, full.other_dtype, half.dtype, half.other_dtype) == (
            "float32", "float64", "bfloat16", "float32",
        )  # fmt: skip
        for name in DIVERGENCES:
            assert 0 < full.precision[name] < 1e-4
            assert half.precision[name] > 100 * full.precision[name]
        assert half.precision["overlap_ratio"] > 0
        assert full.n_states == 30 + 40 + 12
        assert full.note is None

    def test_batches_are_another_part(self):
        model = wrap_model(tiny_model("qwen3_moe"), name="m")  # the one family whose small products differ by shape
        part = floor_of(model).batches
        assert {name for name in DIVERGENCES if part[name] > 0}
        assert all(0 <= part[name] < 1e-4 for name in DIVERGENCES)

    def test_an_architecture_that_runs_in_one_precision_only_is_no_error(self):
        hf = tiny_model()
        hf.model.norm.register_forward_hook(lambda module, args, output: output.float())
        floor = floor_of(wrap_model(hf, name="m"))
        assert floor.precision == {}
        assert "cannot be run in float64" in floor.note
        assert set(floor.batches) == set(METRIC_NAMES)
        assert larger([floor]) == pytest.approx(floor.batches, nan_ok=True)

    def test_what_it_costs_is_counted_apart(self):
        model = wrapped()
        before = model.takes_packs and model.forwarded.tokens
        floor = floor_of(model)
        assert model.forwarded.tokens == before
        assert floor.tokens >= 4 * sum(len(r.prompt_ids) + len(r.response_ids) for r in SOME)

    def test_the_same_model_has_the_same_floor(self):
        assert floor_of(wrapped()) == floor_of(wrapped())

    def test_no_state_no_floor(self):
        floor = floor_of(wrapped(), [])
        assert (floor.n_states, floor.precision, floor.batches) == (0, {}, {})
        assert floor.note


class TestDistances:
    @pytest.fixture
    def pair(self):
        generator = torch.Generator().manual_seed(0)
        p = torch.randn(7, 40, generator=generator).log_softmax(-1)
        q = (p + 0.3 * torch.randn(7, 40, generator=generator)).log_softmax(-1)
        return p, q, scores_from(p, q)

    def test_each_is_a_mean_distance_from_agreement(self, pair):
        p, q, scores = pair
        found = distances(scores, 16)
        assert found["reverse_kl"] == pytest.approx(metrics.reverse_kl(p, q).mean().item())
        assert found["entropy_difference"] == found["entropy_gap"]  # signs do not cancel
        gap = (metrics.entropy(p) - metrics.entropy(q)).abs().mean().item()
        for name in ("entropy_gap", "student_entropy", "teacher_entropy"):
            assert found[name] == pytest.approx(gap, rel=1e-5)
        own = [np.sort(np.exp(x.double().numpy()), axis=-1)[:, -16:].sum(-1) for x in (p, q)]
        for name in ("student_topk_mass", "teacher_topk_mass"):
            assert found[name] == pytest.approx(np.abs(own[0] - own[1]).mean(), rel=1e-5)
        shared = metrics.overlap_ratio(scores_ids(scores.student_topk_ids), scores_ids(scores.teacher_topk_ids))
        assert found["overlap_ratio"] == pytest.approx(1 - shared.mean().item())

    def test_masses_are_held_against_the_students_own(self, pair):
        p, _, scores = pair
        found = distances(scores, 4)
        own = p.exp().sort(-1, descending=True).values[:, :4].sum(-1)
        kept = [
            np.isin(s, t) for s, t in zip(scores.student_topk_ids[:, :4], scores.teacher_topk_ids[:, :4], strict=True)
        ]
        shared = (np.exp(scores.student_topk_logprobs[:, :4]) * kept).sum(-1)
        assert found["student_overlap_mass"] == pytest.approx((own.numpy() - shared).mean(), rel=1e-5)

    def test_terminal_states_do_not_count(self, pair):
        p, q, scores = pair
        last = np.arange(7) == 6
        found = distances(replace(scores, terminal=last), 16)
        assert found["reverse_kl"] == pytest.approx(metrics.reverse_kl(p, q)[:6].mean().item())

    def test_what_is_undefined_between_equal_models_has_none(self, pair):
        found = distances(pair[2], 16)
        for metric in precision.CATALOGUE:
            undefined = isinstance(metric.aligned, float) and math.isnan(metric.aligned)
            assert math.isnan(found[metric.name]) == (undefined or "floor" in metric.exempt)

    def test_indicators_have_none(self, pair):
        found = distances(pair[2], 16)
        rates = [m.name for m in precision.CATALOGUE if m.name.endswith("_rate")]
        assert len(rates) == 5
        assert all(math.isnan(found[name]) for name in rates)


def scores_ids(ids):
    return torch.from_numpy(ids[:, :16].astype(np.int64))


class TestChoosing:
    def test_beginnings_of_the_first_responses_up_to_a_number_of_states(self):
        long = random_rollouts([(3, 10), *[(3, 400)] * 9])
        chosen = rollouts_for_floor(long, as_teacher=False)
        lengths = [len(r.response_ids) for r in chosen]
        assert lengths == [10, *[MOST_OF_ONE] * 3, MOST_STATES - 10 - 3 * MOST_OF_ONE]
        assert [r.response_ids for r in chosen] == [r.response_ids[:n] for r, n in zip(long, lengths, strict=False)]
        assert chosen == rollouts_for_floor(long, as_teacher=False)

    def test_each_model_sees_its_own_prompts_on_both_sides(self):
        one = rollout([3, 4], [5, 6], teacher_prompt_ids=[7, 8, 9])
        for as_teacher, prompt in ((False, (3, 4)), (True, (7, 8, 9))):
            (chosen,) = rollouts_for_floor([one], as_teacher=as_teacher)
            assert chosen.prompt_ids == chosen.teacher_prompt_ids == prompt

    def test_responses_without_a_state_are_left_out(self):
        tool = rollout([3], [5] * 200, generated=tuple([False] * 150 + [True] * 50))
        assert rollouts_for_floor([tool, rollout([3], [])], as_teacher=False) == []
        mixed = rollout([3], [5] * 200, generated=tuple([False, True] * 100))
        (chosen,) = rollouts_for_floor([tool, mixed], as_teacher=False)
        assert len(chosen.state_positions) == MOST_OF_ONE // 2


def test_the_larger_of_all_counts():
    floors = [
        made("step 0", precision={"a": 1.0, "b": math.nan, "c": math.nan}, batches={"a": 2.0, "b": 1.0}),
        made("teacher", precision={}, batches={"a": 1.5, "b": 3.0, "c": math.nan}),
    ]
    assert larger(floors) == pytest.approx({"a": 2.0, "b": 3.0, "c": math.nan}, nan_ok=True)
    assert larger([]) == {}


def test_is_kept_to_the_bit(tmp_path):
    floor = made("m", precision={"reverse_kl": 1 / 3, "shares": math.nan}, batches={"reverse_kl": 1e-9})
    save_floors(tmp_path / "floor.json", {4: floor})
    assert "NaN" not in (tmp_path / "floor.json").read_text(encoding="utf-8")
    again = load_floors(tmp_path / "floor.json")[4]
    assert math.isnan(again.precision.pop("shares"))
    floor.precision.pop("shares")
    assert again == floor


@pytest.fixture(scope="module")
def out(tiny_run, tmp_path_factory):
    """Give the folder of a replay."""
    folder = tmp_path_factory.mktemp("precision") / "out"
    replayed(tiny_run, folder)
    return folder


class TestInAReplay:
    def test_is_measured_for_the_first_checkpoint_and_the_teacher(self, tiny_run, out):
        floors = replayed(tiny_run, out).floors
        assert [f.model for f in floors] == ["step 0", "teacher"]
        assert all(0 < f.precision["reverse_kl"] < 1e-4 for f in floors)
        assert 0 < floors[0].n_states <= MOST_STATES

    def test_is_read_again_and_not_measured(self, tiny_run, out, monkeypatch):
        before = json.loads((out / ".checks/precision/teacher.json").read_text())
        monkeypatch.setattr("opd_diag.replay.parts.measured_floors", None)
        floors = replayed(tiny_run, out).floors
        assert floors[1].precision["reverse_kl"] == before["16"]["precision"]["reverse_kl"]

    @pytest.mark.parametrize("changed", [{"student_temperature": 2.0}, {"seed": 5}])
    def test_depends_on_what_decides_it(self, tiny_run, out, tmp_path, changed):
        replayed(tiny_run, tmp_path / "other", **changed)
        name = ".checks/precision/step-000000.json"
        assert keys(tmp_path / "other")[name] != keys(out)[name]

    def test_another_k_needs_no_model(self, tiny_run, out, tmp_path, monkeypatch):
        fresh = replayed(tiny_run, tmp_path / "four", k=4).floors
        monkeypatch.setattr("opd_diag.replay.parts.measured_floors", None)
        for before, after in zip(fresh, replayed(tiny_run, out, k=4).floors, strict=True):
            assert after.precision == pytest.approx(before.precision, nan_ok=True)
            assert after.batches == pytest.approx(before.batches, nan_ok=True)

    def test_a_shared_precision_floor_is_found_again(self, tiny_run, tmp_path, monkeypatch):
        replayed(tiny_run, tmp_path / "one", tmp_path / "shared")
        monkeypatch.setattr("opd_diag.replay.parts.measured_floors", None)
        again = replayed(tiny_run, tmp_path / "two", tmp_path / "shared")
        assert [f.model for f in again.floors] == ["step 0", "teacher"]

    def test_sixteen_bits_on_a_cpu_without_them_are_float32_by_one_decision(self, tiny_run, tmp_path, monkeypatch):
        monkeypatch.setattr("opd_diag.inference.precision.cpu_computes", lambda dtype: False)
        plan = planned(tiny_run, dtype="bfloat16", device="cpu")
        assert plan.settings.dtype == "float32"
        assert [n for n in plan.notes if "no instructions for bfloat16" in n]
        with open_store(tmp_path / "out", tiny_run.run_dir) as store:
            done = replay(plan, store)
        assert {s.scores.provenance["dtype"] for s in done.scored} == {"float32"}
        replayed(tiny_run, tmp_path / "plain", device="cpu")
        assert keys(tmp_path / "out") == keys(tmp_path / "plain")

    def test_sixteen_bits_where_they_are_computed(self, tiny_run, tmp_path, monkeypatch):
        monkeypatch.setattr("opd_diag.inference.precision.cpu_computes", lambda dtype: True)
        done = replayed(tiny_run, tmp_path / "out", dtype="bfloat16", device="cpu")
        assert {s.scores.provenance["dtype"] for s in done.scored} == {"bfloat16"}
        assert {s.scores.student_entropy.dtype.name for s in done.scored} == {"float32"}
        floors = done.floors
        assert all((f.dtype, f.other_dtype) == ("bfloat16", "float32") for f in floors)
        assert larger(floors)["reverse_kl"] > 1e-5
