"""Some responses token by token: how far both models are apart at each, and what each of them would have written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from opd_diag.plots.quantities import quantity
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.report.shown_tokens import Colouring, TokenGroup, TokenView
from opd_diag.report.token_reader import Reader, advantages
from opd_diag.report.wording import STATES_NAMES

MOST_ROLLOUTS = 3
"""Responses shown of one checkpoint on one state set: the worst, the one with the farthest state, a middling one."""

WORST = 8
"""States listed, the farthest of those shown."""


def token_view(
    scored: Iterable[tuple[Scores, Sequence[Rollout]]], tokens: Mapping[int, Token], *, k: int
) -> TokenView | None:
    """Choose responses of the first and of the last checkpoint, and say of each token what both models make of it.

    Parameters
    ----------
    scored
        Scores and what they are of, in the order of the checkpoints.
    tokens
        What ids look like.
    k
        Tokens compared.

    Returns
    -------
    TokenView or None
        None where nothing was scored on own, the start's or the teacher's states.
    """
    sets = _shown_sets(list(scored))
    if not sets:
        return None
    colourings = _colourings([scores for _, scores, _ in sets], k)
    groups, states = [], []
    for number_, (title, scores, rollouts) in enumerate(sets):
        reader = Reader(scores, rollouts, tokens, colourings, min(k, scores.k_kept), number_)
        shown = [reader.rollout(row, why) for row, why in _chosen(scores)]
        groups.append(TokenGroup(title, shown))
        states += [(reader, title, row, at) for row, _ in _chosen(scores) for at in reader.states_of(row)]
    states.sort(key=lambda of: -_or_zero(float(of[0].scores.reverse_kl[of[3]])))
    return TokenView(colourings, groups, [reader.farthest(at, title) for reader, title, _, at in states[:WORST]])


def _shown_sets(scored: list[tuple[Scores, Sequence[Rollout]]]) -> list[tuple[str, Scores, Sequence[Rollout]]]:
    """Give the last checkpoint on every state set, then the first on its own; what has no states is left out."""
    by_label: dict[str, dict[str, tuple[Scores, Sequence[Rollout]]]] = {}
    for scores, rollouts in scored:
        states = str(scores.provenance["states"])
        under = scores.provenance.get("checkpoint", scores.provenance["student"])
        if states in ("on-policy", "start", "teacher") and (~scores.terminal).any():
            by_label.setdefault(str(under["label"]), {})[states] = scores, rollouts
    if not by_label:
        return []
    first, last = next(iter(by_label)), [*by_label][-1]
    found = [(f"{last}, {STATES_NAMES[s]}", *of) for s, of in by_label[last].items() if s != "start" or first != last]
    if first != last and "on-policy" in by_label[first]:
        found.append((f"{first}, {STATES_NAMES['on-policy']}", *by_label[first]["on-policy"]))
    return found


def _colourings(scores: Sequence[Scores], k: int) -> list[Colouring]:
    def highest(*columns: str) -> float:
        values = np.concatenate([np.abs(getattr(s, c)[~s.terminal]).ravel() for s in scores for c in columns])
        known = values[np.isfinite(values)]
        return float(np.quantile(known, 0.99)) if len(known) else 0.0

    gaps = np.concatenate([np.abs(advantages(s))[~s.terminal] for s in scores])
    known = gaps[np.isfinite(gaps)]
    advantage = float(np.quantile(known, 0.99)) if len(known) else 0.0
    entropy = highest("student_entropy", "teacher_entropy")
    return [
        Colouring("reverse_kl", "Reverse KL", "nats", "kl", highest("reverse_kl")),
        Colouring("log_ratio", "Advantage of the written token", "nats", "adv", advantage, signed=True),
        Colouring("student_entropy", quantity("student_entropy").title, "nats", "hs", entropy),
        Colouring("teacher_entropy", quantity("teacher_entropy").title, "nats", "ht", entropy),
        Colouring("overlap_ratio", f"Overlap ratio at k = {k}", "", "ov", 1.0, falling=True),
    ]


def _chosen(scores: Scores) -> list[tuple[int, str]]:
    """Choose responses: the one with the highest mean reverse KL, the one with the farthest state, the middling one.

    Only undefined states are left out: where reverse KL is infinite, so is the mean of the response.
    """
    kept = np.flatnonzero(~scores.terminal & ~np.isnan(scores.reverse_kl))
    if not len(kept):
        return []
    rows, at = np.unique(scores.rollout[kept], return_inverse=True)
    kl = scores.reverse_kl[kept].astype(np.float64)
    means = np.bincount(at, kl) / np.bincount(at)
    order = np.argsort(-means, kind="stable")
    wanted = [
        (int(rows[order[0]]), "highest mean reverse KL"),
        (int(rows[at[int(np.argmax(kl))]]), "the farthest single state"),
        (int(rows[order[len(order) // 2]]), "middling"),
    ]
    found: dict[int, str] = {}
    for row, why in wanted:
        found[row] = f"{found[row]}, {why}" if row in found else why
    return [*found.items()][:MOST_ROLLOUTS]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
