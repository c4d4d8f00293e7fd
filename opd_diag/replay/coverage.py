"""Which of the teacher's states lie near a state of a checkpoint, in the teacher's own final hidden space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from opd_diag import metrics
from opd_diag.inference import Model, Place, teacher_hidden
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout
from opd_diag.tables.coverage import coverage_rows

COVERAGE_VERSION = 1
"""Raised whenever the same inputs would give other rows."""

MOST_STATES = 1024
"""States of either side that are looked at: neighbours are searched for among all pairs of them."""


def equal_places(teachers: Sequence[Rollout], own: Sequence[Rollout]) -> tuple[list[Place], list[Place]]:
    """Choose as many of the teacher's states as of the checkpoint's, evenly spread.

    First responses come before second ones, so that no more responses are run than are needed.
    """
    sides = [_first_states(rollouts) for rollouts in (teachers, own)]
    n = min(MOST_STATES, *(len(places) for places in sides))
    return _spread(sides[0], n), _spread(sides[1], n)


def covered_states(
    teacher: Model,
    teachers: Sequence[Rollout],
    own: Sequence[Rollout],
    places: tuple[list[Place], list[Place]],
    left: Tensor | None = None,
) -> np.ndarray:
    """Give, for each of the teacher's chosen states, whether it is covered (:func:`opd_diag.metrics.covered`).

    `left` are the teacher's hidden states at the chosen ones of `own`, where the scoring left them.

    Returns
    -------
    ndarray
        (n,) float64: 1, 0, or NaN where too few prompts tell.
    """
    if not places[0]:
        return np.empty(0)
    near = teacher_hidden(teacher, own, places[1]) if left is None else left
    hidden = [teacher_hidden(teacher, teachers, places[0]), near]
    prompts = [[of[row].prompt_index for row, _ in where] for of, where in zip((teachers, own), places, strict=True)]
    return metrics.covered(hidden[0], prompts[0], hidden[1], prompts[1]).double().numpy()


def coverage_of(
    checkpoint: Checkpoint, teacher: str, teachers: Sequence[Rollout], places: Sequence[Place], covered: np.ndarray
) -> pd.DataFrame:
    """Write it as rows, one a teacher state; columns as in :mod:`opd_diag.tables`."""
    rollouts = [teachers[row] for row, _ in places]
    table = pd.DataFrame(
        {
            "step": pd.array([checkpoint.step] * len(places), dtype="Int64"),
            "label": checkpoint.label,
            "teacher": teacher,
            "prompt_index": [r.prompt_index for r in rollouts],
            "prompt_id": [r.prompt_id for r in rollouts],
            "rollout_index": [r.rollout_index for r in rollouts],
            "position": [position for _, position in places],
            "is_covered": covered,
        }
    )
    return coverage_rows(table)


def _first_states(rollouts: Sequence[Rollout]) -> list[Place]:
    """Give the states of first responses, then of second ones, until there are enough."""
    places: list[Place] = []
    for index in sorted({r.rollout_index for r in rollouts}):
        if len(places) < MOST_STATES:
            places += [
                (row, p) for row, r in enumerate(rollouts) if r.rollout_index == index for p in r.state_positions
            ]
    return places


def _spread(places: list[Place], n: int) -> list[Place]:
    return [places[i] for i in np.linspace(0, len(places) - 1, n).round().astype(int)] if n else []
