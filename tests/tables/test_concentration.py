"""The concentration curve as a table, against sets and sums over whole distributions."""

from __future__ import annotations

import numpy as np
import pytest

from opd_diag.tables import concentration_table

from .made_up import naive_band, naive_mean, rollout, scored, shared_at

CURVES = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass")
COLUMNS = [
    "step", "label", "teacher", "states", "k", *(f"{c}{end}" for c in CURVES for end in ("", "_ci_low", "_ci_high")),
    *(f"{c}_{end}" for c in CURVES[:3] for end in ("band_low", "band_high")), "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip


def naive_curve(p, q, k):
    shared = shared_at(p, q, k)
    return {
        "overlap_ratio": len(shared) / k,
        "student_overlap_mass": p[shared].sum(),
        "teacher_overlap_mass": q[shared].sum(),
        "student_topk_mass": np.sort(p)[::-1][:k].sum(),
        "teacher_topk_mass": np.sort(q)[::-1][:k].sum(),
    }


def test_against_whole_distributions():
    made = scored(
        [
            rollout(0, 0, 3),
            rollout(0, 1, 2, stop_reason="length"),
            rollout(4, 0, 5),
            rollout(2, 0, 1),
            rollout(3, 0, 2),
            rollout(6, 0, 4),
        ]
    )
    table = concentration_table(*made.pair)
    assert list(table.columns) == COLUMNS
    assert list(table["k"]) == [1, 2, 4, 8, 16, 32]
    kept = np.flatnonzero(~made.scores.terminal)
    clusters = [made.rollouts[row].prompt_index for row in made.scores.rollout[kept]]
    for row in table.to_dict("records"):
        curves = [naive_curve(made.p[state], made.q[state], row["k"]) for state in kept]
        for name in CURVES:
            value, low, high = naive_mean([c[name] for c in curves], clusters)
            found = [row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"]]
            assert found == pytest.approx([value, max(low, 0), min(high, 1)], abs=1e-6), (row["k"], name)
        assert (row["n_states"], row["n_rollouts"], row["n_prompts"]) == (17, 6, 5)
        assert (row["step"], row["label"], row["teacher"], row["states"]) == (10, "step 10", "big", "on-policy")


def test_bands_hold_the_curve_at_every_k_at_once():
    made = scored([rollout(prompt, 0, 3 + prompt % 3) for prompt in range(7)])
    table = concentration_table(*made.pair)
    clusters = [made.rollouts[row].prompt_index for row in made.scores.rollout]
    pairs = list(zip(made.p, made.q, strict=True))
    for name in ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass"):
        low, high = naive_band(
            [([naive_curve(p, q, k)[name] for p, q in pairs], clusters) for k in table["k"]], clusters
        )
        assert table[f"{name}_band_low"].to_numpy() == pytest.approx(np.maximum(low, 0), abs=1e-6)
        assert table[f"{name}_band_high"].to_numpy() == pytest.approx(np.minimum(high, 1), abs=1e-6)
        assert (table[f"{name}_band_low"] < table[f"{name}_ci_low"]).any()


def test_the_grid_ends_where_the_vocabulary_does():
    made = scored([rollout(0, 0, 1), rollout(1, 0, 1)], vocabulary=10)
    table = concentration_table(*made.pair)
    assert list(table["k"]) == [1, 2, 4, 8]


def test_one_prompt_has_no_interval():
    table = concentration_table(*scored([rollout(length=4)], step=None, label="final").pair)
    assert table["overlap_ratio"].notna().all()
    assert table[["overlap_ratio_ci_low", "teacher_topk_mass_ci_high"]].isna().all(axis=None)
    assert table["step"].isna().all()
    assert table["step"].dtype == "Int64"
