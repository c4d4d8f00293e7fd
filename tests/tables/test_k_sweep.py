"""Mean bounds at every K of a server's answer, and the least K that would do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.k_sweep import SWEEP_COLUMNS, SWEPT, sufficient, sweep_table

from .made_up import a_run

TOPS = (1, 8, 20)


def with_bounds(scores, seed):
    """The scores with random bounds; (N, 3, 2) of each metric of the sweep."""
    random = np.random.default_rng(seed)
    low = random.uniform(0.0, 1.0, (len(SWEPT), len(scores), len(TOPS)))
    ends = np.stack([low, low + random.uniform(0.0, 1.0, low.shape)], axis=-1).astype(np.float32)
    bounds = dict(zip(SWEPT, ends, strict=True))
    bounds["reverse_kl"][..., 1] = math.inf
    return replace(scores, bounds=bounds, bound_ks=TOPS)


@pytest.fixture(scope="module")
def scored():
    return [(with_bounds(s.scores, seed), s.rollouts) for seed, s in enumerate(a_run())]


@pytest.fixture(scope="module")
def sweep(scored):
    return sweep_table(scored)


def test_one_row_a_checkpoint_state_set_metric_and_k(sweep):
    assert [*sweep.columns] == SWEEP_COLUMNS
    assert [*sweep.columns] == [
        "step",
        "label",
        "teacher",
        "states",
        "metric",
        "top",
        "bound_low",
        "bound_high",
        "n_states",
    ]
    keys = [*sweep[["label", "states", "metric", "top"]].itertuples(index=False, name=None)]
    assert keys == [
        (label, states, metric, top)
        for label in ("step 10", "step 20")
        for states in ("on-policy", "start")
        for metric in SWEPT
        for top in TOPS
    ]
    assert {*sweep["step"]} == {10, 20}
    assert {*sweep["teacher"]} == {"big"}
    assert [str(sweep[name].dtype) for name in ("step", "top", "n_states")] == ["Int64", "int64", "int64"]


def test_bounds_are_means_over_the_states_that_are_not_terminal(sweep, scored):
    for scores, _ in scored:
        label, states = scores.provenance["student"]["label"], scores.provenance["states"]
        chosen = [i for i in range(len(scores)) if not scores.terminal[i]]
        assert len(chosen) < len(scores)
        rows = sweep[(sweep["label"] == label) & (sweep["states"] == states)]
        assert {*rows["n_states"]} == {len(chosen)}
        for metric in SWEPT:
            for j, top in enumerate(TOPS):
                (row,) = rows[(rows["metric"] == metric) & (rows["top"] == top)].itertuples()
                low, high = (
                    math.fsum(map(float, scores.bounds[metric][chosen, j, end])) / len(chosen) for end in (0, 1)
                )
                assert (row.bound_low, row.bound_high) == pytest.approx((low, high))


def test_what_has_no_upper_bound_at_one_state_has_none(scored):
    scores, rollouts = scored[0]
    ends = scores.bounds["forward_kl"].copy()
    ends[int(np.flatnonzero(~scores.terminal)[2]), 1, 1] = math.inf
    table = sweep_table([(replace(scores, bounds=dict(scores.bounds) | {"forward_kl": ends}), rollouts)])
    of = table[table["metric"] == "forward_kl"].set_index("top")["bound_high"]
    assert np.isinf(of).to_dict() == {1: False, 8: True, 20: False}
    assert np.isposinf(table[table["metric"] == "reverse_kl"]["bound_high"]).all()


def test_a_checkpoint_without_a_step(scored):
    scores, rollouts = scored[0]
    about = dict(scores.provenance) | {"student": scores.provenance["student"] | {"step": None}}
    table = sweep_table([(replace(scores, provenance=about), rollouts)])
    assert table["step"].isna().all()
    assert str(table["step"].dtype) == "Int64"


def test_where_whole_distributions_were_seen_there_is_none():
    table = sweep_table((s.scores, s.rollouts) for s in a_run())
    assert table.empty
    assert [*table.columns] == SWEEP_COLUMNS


class TestTheLeastK:
    ROWS = pd.DataFrame(
        [
            ("a", "on-policy", "forward_kl", top, 0.5, 0.5 + width)
            for top, width in ((4, 0.3), (8, 0.1), (16, 0.02), (32, 0.01))
        ]
        + [("b", "start", "forward_kl", top, 0.2, 0.2 + w) for top, w in ((4, 0.01), (8, 0.25), (16, 0.05), (32, 0.0))]
        + [("a", "on-policy", "reverse_kl", top, 0.2, math.inf) for top in (4, 8)],
        columns=["label", "states", "metric", "top", "bound_low", "bound_high"],
    )

    @pytest.mark.parametrize(
        ("width", "least"), [(0.4, 4), (0.2999, 8), (0.2, 16), (0.06, 16), (0.03, 32), (0.011, 32), (0.009, None)]
    )
    def test_it_must_do_on_every_checkpoint_and_state_set(self, width, least):
        assert sufficient(self.ROWS, "forward_kl", width) == least
        assert sufficient(self.ROWS.sample(frac=1, random_state=0), "forward_kl", width) == least

    def test_none_does_where_nothing_bounds_it_or_nothing_is_known(self):
        assert sufficient(self.ROWS, "reverse_kl", 1e9) is None
        assert sufficient(self.ROWS, "common_mass", 1.0) is None
