"""The precision floor: what the metrics of a model against itself are, where they should say that nothing differs.

The same weights are scored against themselves twice: in another precision, and in another batch shape. What the metrics
then are is rounding. A value that is not clearly larger than that says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opd_diag.errors import ModelError
from opd_diag.inference import Model, OtherPrecision, Twin, device_type, reference_dtype, score
from opd_diag.records.files import write_json
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.records.settings import K_KEPT, Settings
from opd_diag.replay.lazy import LazyModel
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, Metric, Values

PRECISION_VERSION = 2
"""Raised whenever the same model and rollouts would give another floor."""

MOST_STATES = 512
"""States that the floor is measured on."""

MOST_OF_ONE = 128
"""States of one response: several responses must run together, or there is no batch to speak of."""

Distances = dict[str, float]
"""By the name of a metric, its mean distance from what it is between equal models; NaN where not measured."""


@dataclass(frozen=True)
class Floor:
    """How far a model is from itself."""

    model: str
    """As tables and messages call it."""
    dtype: str
    """Precision of its body in this report."""
    other_dtype: str
    """Precision that it was compared with."""
    n_states: int
    tokens: int
    """Through the body for this, padding included."""
    precision: Distances
    """Between the two precisions; empty where the architecture runs in one only."""
    batches: Distances
    """Between sequences run together, as scoring does, and one at a time."""
    note: str | None = None
    """Why a part is missing."""


Floors = dict[int, Floor]
"""By k, the tokens compared."""

Progress = Callable[[str, int, int], None]
"""(what is being done, tokens done, tokens in all)."""


def measured_floors(
    model: Model, rollouts: Sequence[Rollout], *, temperature: float, progress: Progress | None = None
) -> Floors:
    """Score a model against itself.

    Parameters
    ----------
    model
        Student or teacher.
    rollouts
        From :func:`rollouts_for_floor`.
    temperature
        Of the scored distribution.
    progress
        Called with (part, tokens done, tokens in all).

    Returns
    -------
    dict
        Its floor for every k: another k needs no model, here as elsewhere.
    """
    reference = reference_dtype(model.dtype)
    nothing = Floor(model.name, _called(model.dtype), _called(reference), 0, 0, {}, {})
    every_k = range(1, min(K_KEPT, model.vocabulary) + 1)
    if not rollouts:
        return dict.fromkeys(every_k, replace(nothing, note="No response begins with a state."))
    own, single = Twin.of(model), Twin.of(model, packs=False)
    other = OtherPrecision.of(model, body_dtype=reference)
    tell = progress or (lambda what, done, total: None)

    def against(twin: Model, what: str) -> Scores:
        told = partial(tell, what)
        return score(
            own, twin, rollouts, student_temperature=temperature, teacher_temperature=temperature, progress=told
        )

    alone = against(single, "batch shapes")
    precise, note = _where_possible(lambda: against(other, "precisions"))
    measured = replace(
        nothing,
        n_states=int((~alone.terminal).sum()),
        tokens=sum(twin.forwarded.tokens for twin in (own, single, other)),
        note=note,
    )
    batches = distances_by_k(alone, every_k)
    precision = {k: {} for k in every_k} if precise is None else distances_by_k(precise, every_k)
    return {k: replace(measured, precision=precision[k], batches=batches[k]) for k in every_k}


def rollouts_for_floor(rollouts: Sequence[Rollout], *, as_teacher: bool) -> list[Rollout]:
    """Take the beginnings of the first responses, some `MOST_STATES` tokens, with the prompts that one model sees."""
    taken: list[Rollout] = []
    room = MOST_STATES
    for rollout in rollouts:
        kept = min(len(rollout.response_ids), MOST_OF_ONE, room)
        prompt = rollout.teacher_prompt_ids if as_teacher else rollout.prompt_ids
        beginning = _beginning(rollout, kept, prompt)
        if beginning.state_positions:
            taken.append(beginning)
            room -= kept
    return taken


def decides_floor(
    model: LazyModel, rollouts: Sequence[Rollout], *, settings: Settings, temperature: float
) -> list[object]:
    """Give all that the floor of a model is made from."""
    return [
        ["precision", PRECISION_VERSION, SCORES_VERSION, model.key, model.checkpoint.label, model.checkpoint.step],
        [settings.dtype, device_type(settings.device), torch.__version__, temperature],
        [[r.prompt_ids, r.response_ids, r.generated] for r in rollouts],
    ]


def save_floors(path: Path, floors: Floors) -> None:
    """Write floors as JSON; NaN becomes null."""
    plain = {k: asdict(floor) for k, floor in floors.items()}
    write_json(
        path, {k: _with_distances(r, lambda value: None if math.isnan(value) else value) for k, r in plain.items()}
    )


def load_floors(path: Path) -> Floors:
    """Read what :func:`save_floors` wrote."""
    records = json.loads(path.read_text(encoding="utf-8"))
    known = {
        int(k): _with_distances(r, lambda value: math.nan if value is None else float(value))
        for k, r in records.items()
    }
    return {k: Floor(**record) for k, record in known.items()}


def _with_distances(record: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = {part: {k: change(v) for k, v in record[part].items()} for part in ("precision", "batches")}
    return record | changed


def larger(floors: Iterable[Floor]) -> Distances:
    """Give, for each metric, the larger of all parts that were measured; NaN where none was."""
    parts = [part for floor in floors for part in (floor.precision, floor.batches)]
    known = {name: [part[name] for part in parts if not math.isnan(part.get(name, math.nan))] for name in _names(parts)}
    return {name: max(values, default=math.nan) for name, values in known.items()}


def distances_by_k(scores: Scores, every_k: Iterable[int]) -> dict[int, Distances]:
    """Give :func:`distances` for many k; what does not depend on k is measured once."""
    fixed = {m.name: _mean_distance(m, scores, 1) for m in CATALOGUE if not m.depends_on_k}
    return {
        k: {m.name: fixed[m.name] if m.name in fixed else _mean_distance(m, scores, k) for m in CATALOGUE}
        for k in every_k
    }


def distances(scores: Scores, k: int) -> Distances:
    """Give each metric's mean distance from what it is between equal models, over the states that define it."""
    return distances_by_k(scores, [min(k, scores.k_kept)])[min(k, scores.k_kept)]


def _mean_distance(metric: Metric, scores: Scores, k: int) -> float:
    if "floor" in metric.exempt or (isinstance(metric.aligned, float) and math.isnan(metric.aligned)):
        return math.nan
    return _mean(_distance(metric, scores, k)[~scores.terminal])


def _names(parts: Sequence[Distances]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _beginning(rollout: Rollout, kept: int, prompt: tuple[int, ...]) -> Rollout:
    return replace(
        rollout,
        prompt_ids=prompt,
        teacher_prompt_ids=prompt,
        response_ids=rollout.response_ids[:kept],
        generated=None if rollout.generated is None else rollout.generated[:kept],
        sampled_logprobs=None,
        stop_reason="unknown",  # no terminal states: no metric of the catalogue is about them
    )


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _where_possible(measure: Callable[[], Scores]) -> tuple[Scores | None, str | None]:
    try:
        return measure(), None
    except ModelError as error:
        return None, str(error)


def _distance(metric: Metric, scores: Scores, k: int) -> Values:
    if metric.of_one_model:  # the other one is its twin
        of = metric.name.partition("_")[2]
        student, teacher = (BY_NAME[f"{model}_{of}"].function(scores, k) for model in ("student", "teacher"))
        return np.abs(student - teacher)
    return np.abs(metric.function(scores, k) - aligned_values(metric, scores, k))


def aligned_values(metric: Metric, scores: Scores, k: int) -> Values | float:
    """Give what a metric is between equal models: one number, or one a state."""
    if metric.aligned == "student_topk_mass":
        mass: Values = np.exp(scores.student_topk_logprobs[:, :k].astype(float)).sum(-1)
        return mass
    return float(metric.aligned)


def _mean(values: Values) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
