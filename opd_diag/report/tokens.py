"""Some responses token by token: how far both models are apart at each, and what each of them would have written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opd_diag.plots.quantities import quantity
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.report.wording import STATES_NAMES, visible
from opd_diag.stats.rounding import number

MOST_ROLLOUTS = 3
"""Responses shown of one checkpoint on one state set: the worst, the one with the farthest state, a middling one."""

MOST_TOKENS = 160
"""Tokens shown of one response; with what both models would have written, each takes a kilobyte of the page."""

BEST = 5
"""Tokens of either model that are named at each state."""

WORST = 8
"""States listed, the farthest of those shown."""

MOST_CHARACTERS = 48
"""Characters shown of one token."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Colouring:
    """One quantity that tokens can be coloured by."""

    name: str
    """As in the catalogue."""
    title: str
    unit: str
    key: str
    """Short name in the page's style sheet."""
    darkest: float
    """Value, or size of it, from which a token is as dark as can be."""
    signed: bool = False
    falling: bool = False
    """Whether tokens are the darker the lower it is: where low is bad."""

    def shade(self, value: float) -> int:
        """Give how dark a value is, 0 to 100; what is undefined is not coloured, what is infinite is darkest."""
        if math.isinf(value) and not self.falling:
            return 100
        if math.isnan(value) or not self.darkest > 0:
            return 0
        size = self.darkest - value if self.falling else abs(value)
        return round(100 * min(1.0, max(0.0, size / self.darkest)))


@dataclass(frozen=True)
class Candidate:
    """A token that a model would write."""

    text: str
    probability: str
    shared: bool
    """Whether the other model has it among its k most probable ones too."""
    other: str
    """Its probability under the other model."""


@dataclass(frozen=True)
class ShownState:
    """One token of a response, and the state before it."""

    anchor: str
    text: str
    special: bool
    breaks: bool
    """Whether the line ends with it."""
    negative: bool
    """Whether the teacher finds the token less probable than the student does."""
    shades: Mapping[str, int]
    """By key of the colouring."""
    values: Sequence[tuple[str, str]]
    """(title, value with unit) of every colouring."""
    student: Sequence[Candidate]
    teacher: Sequence[Candidate]


@dataclass(frozen=True)
class ShownRollout:
    """One response."""

    anchor: str
    prompt_id: str
    why: str
    """Why it is shown."""
    is_correct: bool | None
    mean: str
    """Its mean reverse KL, in nats."""
    states: Sequence[ShownState]
    left_out: int
    """Tokens not shown."""


@dataclass(frozen=True)
class TokenGroup:
    """Responses of one checkpoint on one state set."""

    title: str
    rollouts: Sequence[ShownRollout]


@dataclass(frozen=True)
class Farthest:
    """One of the states that are farthest from agreement."""

    anchor: str
    text: str
    value: str
    where: str
    student: str
    teacher: str


@dataclass(frozen=True)
class TokenView:
    """What the page shows token by token."""

    colourings: Sequence[Colouring]
    groups: Sequence[TokenGroup]
    farthest: Sequence[Farthest]


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
        reader = _Reader(scores, rollouts, tokens, colourings, min(k, scores.k_kept), number_)
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

    gaps = np.concatenate([np.abs(_advantages(s))[~s.terminal] for s in scores])
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


def _advantages(scores: Scores) -> Floats:
    """(N,) log q(y) - log p(y) at the token that was written, whoever wrote it."""
    theirs, ours = scores.teacher_sampled_logprobs, scores.student_sampled_logprobs
    return np.asarray(theirs.astype(np.float64) - ours)


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


class _Reader:
    """Reads the states of one state set."""

    def __init__(
        self,
        scores: Scores,
        rollouts: Sequence[Rollout],
        tokens: Mapping[int, Token],
        colourings: Sequence[Colouring],
        k: int,
        group: int,
    ) -> None:
        self.scores, self.rollouts, self.tokens = scores, rollouts, tokens
        self.colourings, self.k, self.group = colourings, k, group
        self.advantages = _advantages(scores)

    def states_of(self, row: int) -> list[int]:
        """Give the states of a response that are shown, in order."""
        own = np.flatnonzero((self.scores.rollout == row) & ~self.scores.terminal)
        return [int(i) for i in own[np.argsort(self.scores.position[own], kind="stable")][:MOST_TOKENS]]

    def rollout(self, row: int, why: str) -> ShownRollout:
        """Give one response."""
        rollout = self.rollouts[row]
        every = np.flatnonzero((self.scores.rollout == row) & ~self.scores.terminal)
        return ShownRollout(
            anchor=f"tokens-{self.group}-{row}",
            prompt_id=rollout.prompt_id,
            why=why,
            is_correct=rollout.is_correct,
            mean=number(float(np.nanmean(self.scores.reverse_kl[every])), 3),
            states=[self.state(at) for at in self.states_of(row)],
            left_out=max(0, len(every) - MOST_TOKENS),
        )

    def state(self, at: int) -> ShownState:
        """Give one token and what both models make of it."""
        values = self._values(at)
        token = self._token(int(self.scores.sampled_ids[at]))
        return ShownState(
            anchor=self._anchor(at),
            text=_shown_text(token.text),
            special=token.special,
            breaks=token.text.endswith("\n"),
            negative=values["log_ratio"] < 0,
            shades={c.key: c.shade(values[c.name]) for c in self.colourings},
            values=[(c.title, _with_unit(values[c.name], c)) for c in self.colourings],
            student=self._candidates(at, "student", "teacher"),
            teacher=self._candidates(at, "teacher", "student"),
        )

    def farthest(self, at: int, title: str) -> Farthest:
        """Give a line of the list of the farthest states."""
        token = self._token(int(self.scores.sampled_ids[at]))
        best = [self._candidates(at, who, other)[0] for who, other in (("student", "teacher"), ("teacher", "student"))]
        rollout = self.rollouts[int(self.scores.rollout[at])]
        return Farthest(
            anchor=self._anchor(at),
            text=_shown_text(token.text),
            value=number(float(self.scores.reverse_kl[at]), 3),
            where=f"{title}, prompt {rollout.prompt_id}, position {int(self.scores.position[at])}",
            student=f"{best[0].text} ({best[0].probability})",
            teacher=f"{best[1].text} ({best[1].probability})",
        )

    def _anchor(self, at: int) -> str:
        return f"tokens-{self.group}-{int(self.scores.rollout[at])}-{int(self.scores.position[at])}"

    def _values(self, at: int) -> dict[str, float]:
        ours, theirs = (set(ids[at, : self.k].tolist()) for ids in (
            self.scores.student_topk_ids, self.scores.teacher_topk_ids
        ))  # fmt: skip
        return {
            "reverse_kl": float(self.scores.reverse_kl[at]),
            "log_ratio": float(self.advantages[at]),
            "student_entropy": float(self.scores.student_entropy[at]),
            "teacher_entropy": float(self.scores.teacher_entropy[at]),
            "overlap_ratio": len(ours & theirs) / self.k,
        }

    def _candidates(self, at: int, who: str, other: str) -> list[Candidate]:
        ids = getattr(self.scores, f"{who}_topk_ids")[at]
        own = getattr(self.scores, f"{who}_topk_logprobs")[at]
        theirs = getattr(self.scores, f"{other}_at_{who}_topk_logprobs")[at]
        shared = set(getattr(self.scores, f"{other}_topk_ids")[at, : self.k].tolist())
        return [
            Candidate(
                text=_shown_text(self._token(int(i)).text),
                probability=_probability(float(p)),
                shared=int(i) in shared,
                other=_probability(float(q)),
            )
            for i, p, q in zip(ids[:BEST], own[:BEST], theirs[:BEST], strict=True)
        ]

    def _token(self, token: int) -> Token:
        return self.tokens.get(token, Token(f"<id {token}>", False))


def _shown_text(text: str) -> str:
    """Show a token as it is, line breaks as a sign, and nothing as a sign too; long ones are cut."""
    cut = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    return visible(cut).replace("\n", "⏎").replace("\t", "⇥") or "∅"


def _with_unit(value: float, colouring: Colouring) -> str:
    return f"{number(value, 3, signed=colouring.signed)}{' ' + colouring.unit if colouring.unit else ''}"


def _probability(logprob: float) -> str:
    p = math.exp(logprob)
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}" if p > 0 else "0"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
