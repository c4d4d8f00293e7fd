"""Baselines against plain computations, and what they must and must not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from opd_diag import tables
from opd_diag.errors import StoreError
from opd_diag.tables.baselines import (
    BASELINE_COLUMNS,
    BASELINES_FILE,
    OVERLAPS,
    baseline_table,
    load_baselines,
    save_baselines,
)

from .made_up import VOCABULARY, a_run, of_distributions, rollout, scored

K = 8


def known_vocabulary(part):
    """The part with its vocabulary in the provenance, as a replay writes it."""
    provenance = part.scores.provenance | {"common_vocabulary": VOCABULARY}
    return replace(part, scores=replace(part.scores, provenance=provenance))


def of(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    return table[table["baseline"] == baseline].set_index("metric")


@pytest.fixture(scope="module")
def part():
    rollouts = [rollout(p, i, 6 + p, stop_reason="length") for p in range(5) for i in (0, 1)]
    return known_vocabulary(scored(rollouts))


@pytest.fixture(scope="module")
def table(part) -> pd.DataFrame:
    return baseline_table([part.pair], k=K, floors={"overlap_ratio": 0.02, "student_overlap_mass": 0.01})


def test_chance_is_k_over_v(part, table):
    chance, live = of(table, "chance"), ~part.scores.terminal
    own = {"student": part.p[live], "teacher": part.q[live]}
    masses = {who: np.sort(of, axis=1)[:, -K:].sum(1).mean() for who, of in own.items()}
    assert chance.loc["overlap_ratio", "value"] == pytest.approx(K / VOCABULARY)
    for who, mass in masses.items():
        assert chance.loc[f"{who}_overlap_mass", "value"] == pytest.approx(K / VOCABULARY * mass, abs=1e-6)
    assert np.isnan(chance.loc["overlap_ratio", "ci_low"])
    assert chance.loc["student_overlap_mass", "ci_low"] < chance.loc["student_overlap_mass", "ci_high"]


def test_random_teachers_meet_chance():
    """The teacher's ids drawn anew at random are what the baseline says they are."""
    rng, rollouts = np.random.default_rng(0), [rollout(p, 0, 200) for p in range(10)]
    made = known_vocabulary(scored(rollouts))
    ids = np.argsort(rng.random((len(made.scores), VOCABULARY)), axis=1)[:, : made.scores.k_kept].astype(np.int32)
    rows = tables.measure(replace(made.scores, teacher_topk_ids=ids), rollouts, k=K)
    chance = of(baseline_table([made.pair], k=K), "chance")
    for metric in ("overlap_ratio", "student_overlap_mass"):
        assert rows[metric].mean() == pytest.approx(chance.loc[metric, "value"], abs=0.01)


def test_shuffled_teacher_is_the_mean_over_other_positions_of_the_prompt():
    """Against all pairs of positions, which the draws stand for."""
    rollouts = [rollout(p, i, 150) for p in range(2) for i in (0, 1)]
    made = known_vocabulary(scored(rollouts))
    top = {who: np.argsort(-d, axis=1)[:, :K] for who, d in (("s", made.p), ("t", made.q))}
    prompts = np.array([rollouts[r].prompt_index for r in made.scores.rollout])
    expected = []
    for i in range(0, len(prompts), 10):
        others = np.flatnonzero((prompts == prompts[i]) & (made.scores.position != made.scores.position[i]))
        shared = [np.intersect1d(top["s"][i], top["t"][j]) for j in others]
        expected.append([
            np.mean([len(s) / K for s in shared]), np.mean([made.p[i, s].sum() for s in shared]),
            np.mean([made.q[j, s].sum() for s, j in zip(shared, others, strict=True)]),
        ])  # fmt: skip
    found = of(baseline_table([made.pair], k=K), "shuffled teacher")
    assert found["value"][list(OVERLAPS)].to_numpy() == pytest.approx(np.mean(expected, axis=0), abs=0.02)


def one_hot_run(lengths, *, same: bool):
    """Both models sure of one token: of position `p`, or the same everywhere."""
    rollouts = [rollout(p, i, n) for p, n in enumerate(lengths) for i in (0, 1)]
    places = [(row, position) for row, r in enumerate(rollouts) for position in r.state_positions]
    logits = torch.zeros(len(places), VOCABULARY, dtype=torch.float64)
    for i, (_, position) in enumerate(places):
        logits[i, 5 if same else position] = 30.0
    sure, sampled = logits.log_softmax(-1), [1] * len(places)
    ends = np.zeros(len(places), dtype=bool)
    made = of_distributions(rollouts, places, ends, sure, sure, sampled, step=0, label="a", states="on-policy")
    return known_vocabulary(made)


def test_other_positions_are_never_the_same_position_of_another_rollout():
    """Two rollouts share their first state: held against each other, agreement would be found where there is none."""
    found = of(baseline_table([one_hot_run([5, 9], same=False).pair], k=1), "shuffled teacher")
    assert found["value"].to_numpy() == pytest.approx([0, 0, 0])
    found = of(baseline_table([one_hot_run([5, 9], same=True).pair], k=1), "shuffled teacher")
    assert found["value"].to_numpy() == pytest.approx([1, 1, 1])


def test_a_prompt_with_one_position_is_left_out():
    found = of(baseline_table([one_hot_run([1, 4], same=True).pair], k=1), "shuffled teacher")
    assert found["n_states"].tolist() == [8] * 3
    assert found["n_prompts"].tolist() == [1] * 3
    alone = of(baseline_table([one_hot_run([1], same=True).pair], k=1), "shuffled teacher")
    assert alone["value"].isna().all()
    assert alone["n_states"].tolist() == [0] * 3


def test_other_precision_is_agreement_less_the_floor(part, table):
    live = ~part.scores.terminal
    mass = np.sort(part.p[live], axis=1)[:, -K:].sum(1).mean()
    found = of(table, "other precision")
    assert list(found.index) == ["overlap_ratio", "student_overlap_mass"]  # no floor, no row
    assert found["value"].to_numpy() == pytest.approx([0.98, mass - 0.01], abs=1e-6)
    assert found[["ci_low", "ci_high"]].isna().all(axis=None)
    assert of(baseline_table([part.pair], k=K), "other precision").empty


def test_counts_leave_out_terminal_states(part, table):
    assert part.scores.terminal.any()
    assert {*table["n_states"]} == {int((~part.scores.terminal).sum())}
    assert {*table["n_prompts"]} == {5}


def test_same_states_same_draws(part):
    first, second = (baseline_table([part.pair], k=K) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_without_a_vocabulary_there_is_no_chance():
    made = scored([rollout(0, 0, 4)])
    assert {*baseline_table([made.pair], k=K)["baseline"]} == {"shuffled teacher"}


def test_a_run_has_rows_for_every_checkpoint_and_state_set_and_they_are_kept(tmp_path):
    parts = [known_vocabulary(p) for p in a_run(steps=(0, 5), on_teacher=True)]
    made = tables.assemble((p.pair for p in parts), k=K, floors={"overlap_ratio": 0.1}).baselines
    assert list(made.columns) == BASELINE_COLUMNS
    keys = [(p.scores.provenance["student"]["label"], p.scores.provenance["states"]) for p in parts]
    assert list(dict.fromkeys(zip(made["label"], made["states"], strict=True))) == keys
    assert len(made) == len(keys) * 7
    assert save_baselines(tmp_path, made) == BASELINES_FILE
    pd.testing.assert_frame_equal(load_baselines(tmp_path), made)


def test_no_file_no_rows_and_a_damaged_one_is_one_sentence(tmp_path):
    assert load_baselines(tmp_path).empty
    assert list(load_baselines(tmp_path).columns) == BASELINE_COLUMNS
    (tmp_path / BASELINES_FILE).write_bytes(b"nothing of ours")
    with pytest.raises(StoreError, match=r"baselines.parquet is no readable table of baselines.*Run report again"):
        load_baselines(tmp_path)
