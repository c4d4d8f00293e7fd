"""Some responses token by token: how far both models are apart at each, and what each of them would have written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from opd_diag.plots.quantities import quantity
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.report.choosing import Choice, Part, parts_of, shown_parts, worst_prompts
from opd_diag.report.shown_tokens import Colouring, Lead, TokenGroup, TokenView, WorstPrompt
from opd_diag.report.token_reader import MOST_TOKENS, Reader, advantages, response_anchor
from opd_diag.report.wording import STATES_NAMES
from opd_diag.stats.rounding import number

MOST_SHOWN = 1800
"""Tokens shown of all responses together."""

MOST_BYTES = 3_000_000
"""Bytes of the page that they take at most. With what both models would have written a token takes 1.3 kB; where
tokens are long or made of letters of several bytes, up to 3 kB, and fewer are shown."""

WORST = 8
"""States listed, the farthest of those shown; and prompts."""


def token_view(
    scored: Iterable[tuple[Scores, Sequence[Rollout]]],
    tokens: Mapping[int, Token],
    *,
    k: int,
    depth: pd.DataFrame | None = None,
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
    depth
        Depth table of the run, whose peaks are to be read; None: none is.

    Returns
    -------
    TokenView or None
        None where nothing was scored on own, the start's or the teacher's states.
    """
    parts = parts_of(scored)
    if not parts:
        return None
    shown = shown_parts(parts, depth)
    parts, together = [part for part, _ in shown], [_by_row(choices) for _, choices in shown]
    colourings = _colourings([part.scores for part in parts], k)
    readers = [
        Reader(part.scores, part.rollouts, tokens, colourings, min(k, part.scores.k_kept), number_)
        for number_, part in enumerate(parts)
    ]
    groups = _read_within(readers, parts, together)
    states = []
    leads: dict[str, dict[int, Lead]] = {}
    for reader, group, (_, choices), by_row in zip(readers, groups, shown, together, strict=True):
        states += [
            (reader, group.title, at) for row, (_, wanted) in by_row.items() for at in reader.states_of(row, wanted)
        ]
        for choice in choices:
            if choice.picture and choice.at is not None:
                leads.setdefault(choice.picture, {})[choice.place] = Lead(choice.text, reader.anchor(choice.at))
    states.sort(key=lambda of: -_or_zero(float(of[0].scores.reverse_kl[of[2]])))
    own = next((i for i, part in enumerate(parts) if part.states == "on-policy"), None)
    return TokenView(
        colourings,
        groups,
        [reader.farthest(at, title) for reader, title, at in states[:WORST]],
        [] if own is None else _prompts(parts[own], groups[own], own),
        {picture: [of[place] for place in sorted(of)] for picture, of in leads.items()},
    )


def _by_row(choices: Sequence[Choice]) -> dict[int, tuple[str, list[int]]]:
    """Put the choices of one response together: why it is shown, and which states must be among those shown."""
    found: dict[int, tuple[dict[str, None], list[int]]] = {}
    for choice in choices:
        whys, wanted = found.setdefault(choice.row, ({}, []))
        whys[choice.why] = None
        if choice.at is not None:
            wanted.append(choice.at)
    return {row: (", ".join(whys), wanted) for row, (whys, wanted) in found.items()}


def _read_within(
    readers: Sequence[Reader], parts: Sequence[Part], together: Sequence[Mapping[int, tuple[str, list[int]]]]
) -> list[TokenGroup]:
    """Read the responses of every part; the readers show as much of each as `MOST_SHOWN` and `MOST_BYTES` allow."""
    lengths = [part.length(row) for part, rows in zip(parts, together, strict=True) for row in rows]
    shown = MOST_SHOWN
    while True:
        for reader in readers:
            reader.most = _most_of_each(lengths, shown)
        groups = [
            TokenGroup(
                f"{part.label}, {STATES_NAMES[part.states]}",
                [reader.rollout(row, *of) for row, of in by_row.items()],
            )
            for reader, part, by_row in zip(readers, parts, together, strict=True)
        ]
        sizes = [state.n_bytes for group in groups for rollout in group.rollouts for state in rollout.states]
        if sum(sizes) <= MOST_BYTES or readers[0].most == 1:
            return groups
        shown = min(shown - 1, int(len(sizes) * MOST_BYTES / sum(sizes)))


def _most_of_each(lengths: Sequence[int], shown: int = MOST_SHOWN) -> int:
    """Give how many tokens a response may show; what short ones leave of `shown` is for the longer."""
    return next(
        (most for most in range(MOST_TOKENS, 1, -1) if sum(min(length, most) for length in lengths) <= shown), 1
    )


def _prompts(part: Part, group: TokenGroup, number_: int) -> list[WorstPrompt]:
    """List the worst prompts, with a link to a response of each that is shown."""
    anchors = [shown.anchor for shown in group.rollouts]
    found = []
    for prompt in worst_prompts(part)[:WORST]:
        rollouts = [part.rollouts[row] for row in prompt.rows]
        graded = [rollout.is_correct for rollout in rollouts if rollout.is_correct is not None]
        found.append(
            WorstPrompt(
                prompt_id=rollouts[0].prompt_id,
                value=number(prompt.value, 3),
                n_responses=len(rollouts),
                correct=f"{sum(graded)} of {len(graded)}" if graded else "",
                anchor=next((a for row in prompt.rows if (a := response_anchor(number_, row)) in anchors), ""),
            )
        )
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


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
