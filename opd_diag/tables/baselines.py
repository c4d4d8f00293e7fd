"""What the overlap numbers would be without agreement, and what a model shows against itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

from opd_diag import metrics, stats
from opd_diag.errors import StoreError
from opd_diag.records.files import replaced_whole
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.states import IDENTITY, identity_of

BASELINES_FILE = "baselines.parquet"
"""Where OUT_DIR keeps the table: it needs scores, which a report alone may lack."""

BASELINE_COLUMNS = [
    *IDENTITY, "metric", "k", "baseline", "value", "ci_low", "ci_high", "n_states", "n_prompts",
]  # fmt: skip

OVERLAPS = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass")
"""Metrics with baselines."""

CHANCE, SHUFFLED, OTHER_PRECISION = "chance", "shuffled teacher", "other precision"

DRAWS = 4
"""Other positions that each state is held against."""

SEED = 20260413
"""Of those draws, with the prompt; so that checkpoints with equal states meet equal partners."""

_BLOCK = 8192
"""States compared at once: k² comparisons each."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


def baseline_table(
    scored: Iterable[tuple[Scores, Sequence[Rollout]]], *, k: int, floors: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Give what overlap ratio and both overlap masses are where they should say nothing, and where all.

    Three baselines, on the states that the summary's rows are about:

    - ``chance``: the teacher's top-k drawn at random from the vocabulary: k/V, and k/V of the mass of each top-k;
    - ``shuffled teacher``: each state is held against what the teacher says at another position of the same prompt
      (the mean of some draws), which keeps how often it says what. What is shared there is common words and format;
    - ``other precision``: a model against itself in another precision or batch shape, agreement less the floor.

    Parameters
    ----------
    scored
        Scores and what they are of, one pair a (step, state set), in the order of the checkpoints.
    k
        Tokens compared.
    floors
        Precision floor of each metric; None: not measured, and then that baseline has no rows.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; intervals are 95 %, clustered by prompt, and NaN for ``other precision``
        and for ``chance`` of the ratio, which is exact. A prompt with a single position has no other one: its states
        are left out of ``shuffled teacher``.
    """
    rows: list[dict[str, Any]] = []
    for scores, rollouts in scored:
        about, compared = {name: value for name, (value, _) in identity_of(scores).items()}, min(k, scores.k_kept)
        rows += [about | {"k": compared} | row for row in _rows(scores, rollouts, compared, floors or {})]
    return baseline_rows(pd.DataFrame(rows, columns=BASELINE_COLUMNS))


def baseline_rows(table: pd.DataFrame | None) -> pd.DataFrame:
    """Give the columns of a baseline table in order and type; of None, an empty table."""
    given = pd.DataFrame(columns=BASELINE_COLUMNS) if table is None else table
    floats = dict.fromkeys(("value", "ci_low", "ci_high"), "float64")
    whole = {"step": "Int64", "k": "Int64", "n_states": "int64", "n_prompts": "int64"}
    return given[BASELINE_COLUMNS].astype(floats | whole)


def save_baselines(out_dir: Path, baselines: pd.DataFrame) -> str:
    """Write the table, whole or not at all; give its name in `out_dir`."""
    with replaced_whole(out_dir / BASELINES_FILE) as part:
        baseline_rows(baselines).to_parquet(part, index=False)
    return BASELINES_FILE


def load_baselines(out_dir: Path) -> pd.DataFrame:
    """Read the table of a report; empty where it has none, as those of older versions.

    Raises
    ------
    StoreError
        The file is damaged.
    """
    path = out_dir / BASELINES_FILE
    if not path.is_file():
        return baseline_rows(None)
    try:
        return baseline_rows(pd.read_parquet(path))
    except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
        raise StoreError(f"{path} is no readable table of baselines: {error}. Run report again.") from error


def _rows(scores: Scores, rollouts: Sequence[Rollout], k: int, floors: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    scored = np.flatnonzero(~scores.terminal)
    prompts = np.array([r.prompt_index for r in rollouts], dtype=np.intp)[scores.rollout[scored]]
    masses = {who: _own_mass(getattr(scores, f"{who}_topk_logprobs")[scored, :k]) for who in ("student", "teacher")}
    for name, values in _by_chance(masses, k, scores.provenance.get("common_vocabulary")).items():
        yield _row(CHANCE, name, values, prompts)
    shuffled = _shuffled(scores, scored, _partners(prompts, scores.position[scored]), k)
    for name, values in zip(OVERLAPS, shuffled, strict=True):
        yield _row(SHUFFLED, name, values, prompts)
    for name in (name for name in OVERLAPS if not math.isnan(floors.get(name, math.nan))):
        aligned = np.ones(len(scored)) if name == "overlap_ratio" else masses["student"]
        row = _row(OTHER_PRECISION, name, aligned - floors[name], prompts)
        yield row | {"ci_low": math.nan, "ci_high": math.nan}


def _row(baseline: str, metric: str, values: Floats, prompts: Ints) -> dict[str, Any]:
    estimate = stats.clustered_mean(values, prompts)
    exact = bool(np.ptp(values) == 0) if len(values) else True  # a constant has no interval, not one of no width
    low, high = (math.nan, math.nan) if exact else (estimate.ci_low, estimate.ci_high)
    counts = {"n_states": estimate.n, "n_prompts": estimate.n_clusters}
    return {"baseline": baseline, "metric": metric, "value": estimate.value, "ci_low": low, "ci_high": high} | counts


def _own_mass(logprobs: npt.NDArray[Any]) -> Floats:
    mass: Floats = np.exp(logprobs.astype(np.float64)).sum(axis=-1)
    return mass


def _by_chance(masses: Mapping[str, Floats], k: int, vocabulary: int | None) -> dict[str, Floats]:
    """Expect of k tokens drawn at random: each is in the other top-k with probability k/V."""
    if vocabulary is None:
        return {}
    share = k / vocabulary
    ratio = np.full(len(masses["student"]), share)
    return {"overlap_ratio": ratio} | {f"{who}_overlap_mass": share * mass for who, mass in masses.items()}


def _partners(prompts: Ints, positions: npt.NDArray[Any]) -> Ints:
    """Draw for each state states of the same prompt at other positions, (N, DRAWS); -1 where there is none.

    Rollouts of one prompt have the same first state, so another rollout at the same position is no other position.
    """
    partners = np.full((len(prompts), DRAWS), -1, dtype=np.intp)
    for prompt in np.unique(prompts):
        of_prompt = np.flatnonzero(prompts == prompt)
        of_prompt = of_prompt[np.argsort(positions[of_prompt], kind="stable")]
        at = positions[of_prompt]
        first, after = np.searchsorted(at, at, side="left"), np.searchsorted(at, at, side="right")
        others = len(of_prompt) - (after - first)
        if not others.all():  # one position alone: then none of them has another
            continue
        random = np.random.default_rng([SEED, int(prompt)])
        drawn = (random.random((len(of_prompt), DRAWS)) * others[:, None]).astype(np.intp)
        drawn += np.where(drawn >= first[:, None], (after - first)[:, None], 0)
        partners[of_prompt] = of_prompt[drawn]
    return partners


def _shuffled(scores: Scores, scored: Ints, partners: Ints, k: int) -> tuple[Floats, Floats, Floats]:
    """Give the three overlaps of each state with the teacher's top-k at its partners; NaN without any."""
    found = np.full((len(OVERLAPS), len(scored)), math.nan)
    have = np.flatnonzero(partners[:, 0] >= 0)
    for block in np.array_split(have, max(1, -(-len(have) // _BLOCK))):
        drawn = [_overlaps(scores, scored[block], scored[partners[block, i]], k) for i in range(DRAWS)]
        found[:, block] = np.mean(drawn, axis=0)
    return found[0], found[1], found[2]


def _overlaps(scores: Scores, here: Ints, there: Ints, k: int) -> Floats:
    """Hold the student at some states against the teacher at others, (3, N)."""
    student, teacher = (torch.from_numpy(ids[:, :k]) for ids in (
        scores.student_topk_ids[here], scores.teacher_topk_ids[there]
    ))  # fmt: skip
    p = torch.from_numpy(scores.student_topk_logprobs[here, :k]).double()
    q = torch.from_numpy(scores.teacher_topk_logprobs[there, :k]).double()
    return np.stack([
        metrics.overlap_ratio(student, teacher).double().numpy(),
        metrics.student_overlap_mass(student, teacher, p).numpy(),
        metrics.student_overlap_mass(teacher, student, q).numpy(),  # the same sum with the roles changed
    ])  # fmt: skip
