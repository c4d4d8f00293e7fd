"""Which responses a page shows token by token: those that its pictures and lists lead to, and a middling one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.report.maps import MAPPED, map_name
from opd_diag.report.readings import called
from opd_diag.report.tails import tail_name
from opd_diag.tables.depth import peak_cell, positions
from opd_diag.tables.tails import percentile_place

READ = ("on-policy", "start", "teacher")
"""State sets whose tokens can be read."""

PROMPTS_READ = 3
"""Worst prompts of which a response is shown."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One checkpoint on one state set."""

    label: str
    step: int | None
    states: str
    scores: Scores
    rollouts: Sequence[Rollout]

    def length(self, row: int) -> int:
        """Count the tokens of a response."""
        return int(np.count_nonzero((self.scores.rollout == row) & ~self.scores.terminal))


@dataclass(frozen=True)
class Choice:
    """A response to show, and why."""

    row: int
    """Of the rollout in its part."""
    why: str
    at: int | None = None
    """State of it that must be among those shown."""
    picture: str = ""
    """That leads to this state; empty: none does."""
    text: str = ""
    """Of the link."""
    place: int = 0
    """Of the link among those of its picture."""


def parts_of(scored: Iterable[tuple[Scores, Sequence[Rollout]]]) -> list[Part]:
    """Give what can be read, in the order of the checkpoints; parts without a state are left out."""
    found = []
    for scores, rollouts in scored:
        under = scores.provenance.get("checkpoint", scores.provenance["student"])
        states = str(scores.provenance["states"])
        if states in READ and (~scores.terminal).any():
            found.append(Part(str(under["label"]), under["step"], states, scores, rollouts))
    return found


def shown_parts(parts: Sequence[Part], depth: pd.DataFrame | None) -> list[tuple[Part, list[Choice]]]:
    """Choose responses of the last checkpoint on every state set, of the first on its own, and of peaks elsewhere.

    Parameters
    ----------
    parts
        From :func:`parts_of`, at least one.
    depth
        Depth table of the run; None: no map leads anywhere.
    """
    first, last = parts[0].label, parts[-1].label
    by_key = {(part.label, part.states): part for part in parts if (part.label, part.states) != (first, "start")}
    own = (first, "on-policy")  # the start's states are the same ones
    keys = [key for key in by_key if key[0] == last] + [own] * (first != last and own in by_key)
    chosen = {key: _chosen(by_key[key], is_last=key[0] == last) for key in keys}
    for states in READ:
        for place, cell in enumerate(_peaks(depth, states, last)):
            key = own if (cell["label"], states) == (first, "start") else (str(cell["label"]), states)
            found = _highest_in(by_key[key], cell, states, place) if key in by_key else None
            if found is not None:
                chosen.setdefault(key, []).append(found)
    return [(by_key[key], choices) for key, choices in chosen.items()]


def _peaks(depth: pd.DataFrame | None, states: str, last: str) -> list[pd.Series]:
    """Give the highest cell of a map, and that of its last row."""
    if depth is None:
        return []
    found = [peak_cell(rows, MAPPED, states) for rows in (depth, depth[depth["label"] == last])]
    cells = {(cell["label"], cell["depth_low"]): cell for cell in found if cell is not None}
    return list(cells.values())


def _chosen(part: Part, *, is_last: bool) -> list[Choice]:
    """Choose the response with the highest mean, the farthest state, and that at p99; of own states a middling one.

    Only undefined states are left out: where reverse KL is infinite, so is the mean of the response.
    """
    rows, means = row_means(part.scores)
    if not len(rows):
        return []
    known = _known(part.scores)
    kl = part.scores.reverse_kl[known].astype(np.float64)
    order = np.argsort(-means, kind="stable")
    farthest, p99 = int(known[int(np.argmax(kl))]), int(known[percentile_place(kl, 99)])
    link = (p99, tail_name(part.states), f"p99 at {called(part.label, part.step)}", 0 if is_last else 1)
    found = [
        Choice(int(rows[order[0]]), "highest mean reverse KL"),
        Choice(int(part.scores.rollout[farthest]), "the farthest single state", farthest),
        Choice(int(part.scores.rollout[p99]), "the state at p99", *link),
    ]
    if is_last and part.states == "on-policy":
        worst = [_worst_of(rows, means, prompt.rows) for prompt in worst_prompts(part)[:PROMPTS_READ]]
        found += [Choice(row, "of a worst prompt") for row in worst]
    if part.states == "on-policy":
        found.append(Choice(int(rows[order[len(order) // 2]]), "middling"))
    return found


def _worst_of(rows: npt.NDArray[np.int64], means: Floats, among: Sequence[int]) -> int:
    of_prompt = np.isin(rows, among)
    return int(rows[of_prompt][int(np.argmax(means[of_prompt]))])


def _highest_in(part: Part, cell: pd.Series, states: str, place: int) -> Choice | None:
    """Choose the response that is farthest in one cell of a map, and its farthest state there."""
    known = _known(part.scores)
    position = part.scores.position[known]
    inside = known[(position >= cell["depth_low"]) & (position < cell["depth_high"])]
    if not len(inside):
        return None
    rows, means = _means(part.scores, inside)
    row = int(rows[int(np.argmax(means))])
    of_row = inside[part.scores.rollout[inside] == row]
    at = int(of_row[int(np.argmax(part.scores.reverse_kl[of_row]))])
    where, at_positions = called(part.label, part.step), positions(cell)
    text = f"highest of {where}, {at_positions}" if place else f"highest, {where}, {at_positions}"
    return Choice(row, f"farthest at {at_positions}", at, map_name(states), text, place)


@dataclass(frozen=True)
class PromptMean:
    """How far the models are apart on the responses to one prompt."""

    prompt_index: int
    value: float
    """Mean over the responses of their mean reverse KL, in nats."""
    rows: tuple[int, ...]
    """Of its rollouts."""


def worst_prompts(part: Part) -> list[PromptMean]:
    """Give the prompts of a part, those first on which both models are farthest apart; each response counts alike."""
    rows, means = row_means(part.scores)
    by_prompt: dict[int, list[tuple[int, float]]] = {}
    for row, mean in zip(rows, means, strict=True):
        by_prompt.setdefault(part.rollouts[int(row)].prompt_index, []).append((int(row), float(mean)))
    found = [
        PromptMean(prompt, float(np.mean([mean for _, mean in of])), tuple(row for row, _ in of))
        for prompt, of in by_prompt.items()
    ]
    return sorted(found, key=lambda prompt: -prompt.value)


def row_means(scores: Scores) -> tuple[npt.NDArray[np.int64], Floats]:
    """Give the responses that have a state where reverse KL is defined, and its mean over these states of each."""
    return _means(scores, _known(scores))


def _known(scores: Scores) -> npt.NDArray[np.int64]:
    return np.flatnonzero(~scores.terminal & ~np.isnan(scores.reverse_kl))


def _means(scores: Scores, at: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Floats]:
    rows, places = np.unique(scores.rollout[at], return_inverse=True)
    sums = np.bincount(places, scores.reverse_kl[at].astype(np.float64))
    return rows.astype(np.int64), np.asarray(sums / np.bincount(places))
