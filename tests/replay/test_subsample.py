"""Which states get a second pass, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from models import random_rollouts, wrapped

from opd_diag import metrics
from opd_diag.inference import hidden_at, score, second_pass
from opd_diag.inference.head import OwnLogits
from opd_diag.inference.hidden import HiddenStates
from opd_diag.inference.shards import Shard
from opd_diag.records.fits import FIT_FIELDS, TEMPERATURES, Fits
from opd_diag.replay import subsample as rules
from opd_diag.replay.subsample import fits_of, subsample
from opd_diag.tables import load_tables
from opd_diag.tables.fits import FIT_METRICS, fit_differences, fit_rows

ABOUT = {"label": "step 3", "step": 3, "states": "start"}


def responses(lengths, per_prompt=2, seed=0):
    """Rollouts of the given lengths, `per_prompt` to each prompt."""
    made = random_rollouts([(4, n) for n in lengths], seed=seed)
    return [replace(r, prompt_index=i // per_prompt, rollout_index=i % per_prompt) for i, r in enumerate(made)]


def named(chosen):
    """(prompt, rollout, position) of each state."""
    rollouts, places = chosen
    return [(rollouts[row].prompt_index, rollouts[row].rollout_index, p) for row, p in places]


def _of_fits(table):
    return table[table["metric"].isin(FIT_METRICS)]


def made(student, teacher, chosen, **options):
    return fits_of(student, teacher, chosen, temperatures=(1.0, 1.0), about=ABOUT, **options)


class TestChoice:
    def test_one_response_a_prompt_and_all_states_where_there_are_few(self):
        rollouts = responses([5, 6, 7, 8, 3, 2])
        chosen = subsample(rollouts, seed=0)
        states = named(chosen)
        assert len({prompt for prompt, _, _ in states}) == 3 == len({(p, r) for p, r, _ in states})
        for prompt, index, _ in states:
            whole = next(r for r in rollouts if (r.prompt_index, r.rollout_index) == (prompt, index))
            assert [p for a, _, p in states if a == prompt] == list(whole.state_positions)

    def test_it_depends_on_the_seed_alone(self):
        rollouts = responses([30] * 40)
        assert named(subsample(rollouts, 1)) == named(subsample(list(rollouts), 1))
        assert len({tuple(named(subsample(rollouts, seed))) for seed in range(5)}) == 5

    def test_it_is_limited_in_responses_and_states(self, monkeypatch):
        monkeypatch.setattr(rules, "MOST_ROLLOUTS", 10)
        monkeypatch.setattr(rules, "MOST_STATES", 25)
        states = named(subsample(responses([9, 40] * 30), 0))
        assert len(states) == len(set(states)) == 25
        assert 8 <= len({prompt for prompt, _, _ in states}) <= 10

    def test_a_prompt_is_drawn_whatever_others_there_are(self, monkeypatch):
        """Checkpoints differ in which prompts they answer with nothing; the others stay paired."""
        monkeypatch.setattr(rules, "MOST_ROLLOUTS", 12)
        rollouts = responses([20] * 60)
        whole = {(p, r) for p, r, _ in named(subsample(rollouts, 0))}
        silent = next(iter(whole))[0]
        fewer = {
            (p, r)
            for p, r, _ in named(
                subsample([replace(r, response_ids=()) if r.prompt_index == silent else r for r in rollouts], 0)
            )
        }
        assert silent not in {p for p, _ in fewer}
        assert len(fewer) == len(whole) == 12
        assert len(whole & fewer) == 11

    def test_every_state_is_as_likely_as_any_other(self, monkeypatch):
        monkeypatch.setattr(rules, "MOST_STATES", 10)
        rollouts = responses([3, 17, 30], per_prompt=1)
        counts = np.zeros(50)
        for seed in range(600):
            for prompt, _, position in named(subsample(rollouts, seed)):
                counts[[0, 3, 20][prompt] + position] += 1
        assert counts.sum() == 6000
        assert (abs(counts - 120) < 5 * np.sqrt(120 * 0.8)).all()

    def test_responses_end_at_their_last_chosen_state(self, monkeypatch):
        monkeypatch.setattr(rules, "MOST_STATES", 6)
        rollouts, places = subsample(responses([40] * 6), 0)
        for row, rollout in enumerate(rollouts):
            assert len(rollout.response_ids) == 1 + max(p for r, p in places if r == row)

    def test_tool_output_and_empty_responses_are_no_states(self):
        rollouts = [replace(r, generated=(True, False, True)) for r in responses([3, 3], per_prompt=1)]
        rollouts.append(replace(rollouts[0], prompt_index=2, response_ids=(), generated=None))
        assert named(subsample(rollouts, 0)) == [(0, 0, 0), (0, 0, 2), (1, 0, 0), (1, 0, 2)]


@pytest.fixture(scope="module")
def models():
    return wrapped("llama", seed=1), wrapped("qwen3", seed=2)


class TestFits:
    def test_at_one_it_is_what_was_scored(self, models):
        rollouts = [replace(r, teacher_prompt_ids=(3, *r.prompt_ids)) for r in responses([9, 5, 12, 7, 6, 8])]
        fits = made(*models, subsample(rollouts, 0))
        scores = score(*models, rollouts)
        at = {
            (rollouts[row].prompt_index, rollouts[row].rollout_index, p): kl
            for row, p, kl in zip(scores.rollout, scores.position, scores.reverse_kl, strict=True)
        }
        expected = [at[place] for place in zip(fits.prompt_index, fits.rollout_index, fits.position, strict=True)]
        found = fits.tempered_reverse_kl[:, TEMPERATURES.index(1.0)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.mean() > 0.01

    def test_sums_by_prompt_are_those_of_the_pairs(self, models):
        student, teacher = models
        chosen = rollouts, places = subsample(responses([9, 5, 12, 7, 6, 8]), 0)
        fits = made(student, teacher, chosen)
        hidden = hidden_at(student, rollouts, places), hidden_at(teacher, rollouts, places, as_teacher=True)
        heads = student.head, teacher.head
        products = second_pass(heads, hidden, min(h.vocabulary for h in heads), (1.0, 1.0)).products.numpy()
        assert fits.prompts.tolist() == [0, 1, 2]
        for i in range(3):
            ours = fits.prompt_index == i
            assert fits.gradient_squared_norms[i] == pytest.approx(products.diagonal()[ours].sum())
            for j in range(3):
                theirs = fits.prompt_index == j
                assert fits.gradient_products[i, j] == pytest.approx(products[np.ix_(ours, theirs)].sum(), rel=1e-9)
        assert fits.has_gradient.all()
        assert fits.about == ABOUT

    def test_states_without_a_gradient_add_nothing(self, models, monkeypatch):
        chosen = subsample(responses([9, 5, 12, 7]), 0)
        whole = made(*models, chosen)

        def broken(*inputs):
            found = second_pass(*inputs)
            products = found.products.clone()
            products[0], products[:, 0] = torch.nan, torch.nan
            return replace(found, products=products)

        monkeypatch.setattr(rules, "second_pass", broken)
        fits = made(*models, chosen)
        assert fits.has_gradient.tolist() == [False] + [True] * (len(fits) - 1)
        assert np.isfinite(fits.gradient_products).all()
        assert 0 < fits.gradient_squared_norms[0] < whole.gradient_squared_norms[0]
        assert fits.gradient_squared_norms[1] == whole.gradient_squared_norms[1]
        assert fits.least_squared_norms[0] < whole.least_squared_norms[0]

    def test_a_student_that_gives_its_logits_alone_has_no_gradient_but_a_temperature(self, models):
        student = replace(models[0], head=OwnLogits(models[0].vocabulary, torch.device("cpu")))
        chosen = subsample(responses([4, 3, 5]), 0)
        fits, linear = made(student, models[1], chosen), made(*models, chosen)
        assert not fits.has_gradient.any()
        np.testing.assert_allclose(fits.tempered_reverse_kl, linear.tempered_reverse_kl, atol=1e-5)
        assert linear.has_gradient.all()

    @pytest.mark.parametrize("linear", [True, False])
    def test_a_set_whose_responses_are_all_empty_has_fits_of_no_states(self, models, tmp_path, linear):
        head = models[0].head if linear else OwnLogits(models[0].vocabulary, torch.device("cpu"))
        chosen = subsample(responses([0, 0, 0]), 0)
        assert chosen == ([], [])
        made(replace(models[0], head=head), models[1], chosen).save(tmp_path / "empty.safetensors")
        fits = Fits.load(tmp_path / "empty.safetensors")
        assert len(fits) == 0
        assert fits.tempered_reverse_kl.shape == (0, len(TEMPERATURES))
        assert fits.gradient_products.shape == (0, 0)
        assert fits.prompt_index.dtype == fits.position.dtype == np.int64
        full = made(*models, subsample(responses([5, 4, 6]), 0))
        for found in (fit_rows(fits), fit_rows(full)):
            assert [row["metric"] for row in found] == list(FIT_METRICS)
        assert [(row["n_states"], row["n_undefined"]) for row in fit_rows(fits)] == [(0, 0)] * len(FIT_METRICS)
        assert all(np.isnan([row["value"], row["ci_low"]]).all() for row in fit_rows(fits))
        assert all(np.isnan(found.value) for found in fit_differences(full, fits).values())

    def test_the_teachers_states_are_asked_for_once(self, models):
        student, teacher = models
        kept: dict[str, HiddenStates] = {}
        chosen = subsample(responses([9, 5, 12, 7]), 0)

        def keep(shard: Shard, make):
            key = str(shard)
            kept[key] = kept[key] if key in kept else make()
            return kept[key]

        first = made(student, teacher, chosen, keep_teacher=keep)
        before = teacher.forwarded.tokens
        second = made(student, teacher, chosen, keep_teacher=keep)
        assert teacher.forwarded.tokens == before
        assert len(kept) == 1
        for name in FIT_FIELDS:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
            np.testing.assert_array_equal(getattr(first, name), getattr(made(student, teacher, chosen), name))

    def test_a_student_that_is_its_teacher_sharpened(self, models):
        student, teacher = models[0], models[0]
        fits = fits_of(
            student, teacher, subsample(responses([9, 8, 12, 7]), 0), temperatures=(1 / 1.6, 1.0), about=ABOUT
        )
        curve = (torch.from_numpy(x.mean(0)) for x in (fits.tempered_reverse_kl, fits.tempered_slope))
        fit = metrics.fitted_temperature(*curve, torch.tensor(TEMPERATURES, dtype=torch.float64))
        assert fit.temperature.item() == pytest.approx(1.6, rel=1e-3)


@pytest.fixture(scope="module")
def reported(tiny_run, tmp_path_factory):
    """(report, OUT_DIR) of two checkpoints on all four sets of states."""
    from opd_diag.diagnosis import diagnose
    from opd_diag.report import Report
    from opd_diag.report.json_file import write_report_json

    out = tmp_path_factory.mktemp("fits") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "write", lambda of: write_report_json(of.out_dir / "report.json", of))
        states = "on-policy,start,teacher,back"
        return diagnose(tiny_run.run_dir, out=out, checkpoints="30", max_new_tokens=8, states=states), out


class TestReports:
    def test_every_set_but_back_has_them_and_all_checkpoints_the_same_states(self, reported):
        report, out = reported
        fits = report.tables.fits
        sets = ["on-policy", "start", "teacher"]
        assert fits[["label", "states"]].values.tolist() == [[c, s] for c in ("step 0", "step 30") for s in sets]
        assert (fits["n_states"] > 20).all()
        assert (fits["n_prompts"] > 5).all()
        for states in ("start", "teacher"):
            first, last = (Fits.load(out / "fits" / f"step-0000{s}.{states}.safetensors") for s in ("00", "30"))
            for name in ("prompt_index", "rollout_index", "position"):
                np.testing.assert_array_equal(getattr(first, name), getattr(last, name))
            assert (first.tempered_reverse_kl != last.tempered_reverse_kl).any()

    def test_the_first_checkpoints_own_states_are_the_start(self, reported):
        own, start = (Fits.load(reported[1] / "fits" / f"step-000000.{s}.safetensors") for s in ("on-policy", "start"))
        for name in FIT_FIELDS:
            np.testing.assert_array_equal(getattr(own, name), getattr(start, name))
        assert (own.states, start.states) == ("on-policy", "start")

    def test_they_need_no_model_again(self, reported):
        report, out = reported
        found = load_tables(out, report.tables.concentration)
        pd.testing.assert_frame_equal(found.fits, report.tables.fits)
        for name in ("summary", "differences"):
            rows = [_of_fits(getattr(tables, name)) for tables in (found, report.tables)]
            assert len(rows[0]) == {"summary": 18, "differences": 9}[name]
            for column in ("value", "ci_low", "ci_high", "n_prompts"):
                np.testing.assert_array_equal(rows[0][column], rows[1][column])
            assert (
                rows[0]["value"].notna().sum() >= len(rows[0]) / 3
            )  # random students want more than a temperature of 4
