"""The states of scores, read token by token into what a page shows."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.report.shown_tokens import Candidate, Colouring, Farthest, ShownRollout, ShownState
from opd_diag.stats.rounding import number
from opd_diag.text import JOINERS, visible

MOST_TOKENS = 160
"""Tokens shown of one response."""

BEST = 5
"""Tokens of either model that are named at each state."""

MOST_CHARACTERS = 48
"""Characters shown of one token, escapes written out."""

MOST_OF_CANDIDATES = 22
"""Characters shown of a token that a model would write: of one escaped at either end the longest escape fits."""

MOST_LETTERS = 4000
"""Letters of a response that decide its direction."""

_CIRCLE, _SIGNS = "◌", {"\n": "⏎", "\t": "⇥", "\ufffd": "\\ufffd"}

Floats = npt.NDArray[np.float64]


def advantages(scores: Scores) -> Floats:
    """(N,) log q(y) - log p(y) at the token that was written, whoever wrote it."""
    theirs, ours = scores.teacher_sampled_logprobs, scores.student_sampled_logprobs
    return np.asarray(theirs.astype(np.float64) - ours)


class Reader:
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
        self.most = MOST_TOKENS  # shown of one response
        self.advantages = advantages(scores)

    def states_of(self, row: int, wanted: Sequence[int] = ()) -> list[int]:
        """Give the states of a response that are shown, in order: its first ones, or those around the `wanted`."""
        every = self._every(row)
        if not wanted or len(every) <= self.most:
            return [int(i) for i in every[: self.most]]
        around = max(1, self.most // len(set(wanted)))
        kept: set[int] = set()
        for at in wanted:
            place = int(np.flatnonzero(every == at)[0])
            start = min(max(0, place - around // 2), len(every) - around)
            kept.update(range(start, start + around))
        return [int(every[place]) for place in sorted(kept)]

    def _every(self, row: int) -> npt.NDArray[np.int64]:
        own = np.flatnonzero((self.scores.rollout == row) & ~self.scores.terminal)
        return own[np.argsort(self.scores.position[own], kind="stable")]

    def rollout(self, row: int, why: str, wanted: Sequence[int] = ()) -> ShownRollout:
        """Give one response, those of its states among them that are `wanted`."""
        rollout, every, shown = self.rollouts[row], self._every(row), self.states_of(row, wanted)
        places = [-1, *(int(place) for place in np.flatnonzero(np.isin(every, shown)))]
        gaps = [after - before - 1 for before, after in pairwise(places)]
        return ShownRollout(
            anchor=response_anchor(self.group, row),
            prompt_id=rollout.prompt_id,
            why=why,
            is_correct=rollout.is_correct,
            direction=_direction(rollout.response_text),
            mean=number(float(np.nanmean(self.scores.reverse_kl[every])), 3),
            states=[self.state(at, gap) for at, gap in zip(shown, gaps, strict=True)],
            left_out=len(every) - 1 - places[-1],
        )

    def state(self, at: int, left_out: int = 0) -> ShownState:
        """Give one token, after some that are left out, and what both models make of it."""
        values = self._values(at)
        token = self._token(int(self.scores.sampled_ids[at]))
        return ShownState(
            anchor=self.anchor(at),
            left_out=left_out,
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
            anchor=self.anchor(at),
            text=_shown_text(token.text),
            value=number(float(self.scores.reverse_kl[at]), 3),
            where=f"{title}, prompt {rollout.prompt_id}, position {int(self.scores.position[at])}",
            student=f"{best[0].text} ({best[0].probability})",
            teacher=f"{best[1].text} ({best[1].probability})",
        )

    def anchor(self, at: int) -> str:
        """Give what links to a state."""
        return f"{response_anchor(self.group, int(self.scores.rollout[at]))}-{int(self.scores.position[at])}"

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
                text=_shown_text(self._token(int(i)).text, MOST_OF_CANDIDATES),
                probability=_probability(float(p)),
                shared=int(i) in shared,
                other=_probability(float(q)),
            )
            for i, p, q in zip(ids[:BEST], own[:BEST], theirs[:BEST], strict=True)
        ]

    def _token(self, token: int) -> Token:
        return self.tokens.get(token, Token(f"<id {token}>", False))


def response_anchor(group: int, row: int) -> str:
    """Give what links to a response of a group."""
    return f"tokens-{group}-{row}"


def _shown_text(text: str, most: int = MOST_CHARACTERS) -> str:
    """Show a token as it is, line breaks as a sign, and nothing as a sign too; of long ones both ends.

    A mark that goes onto the letter before it has a dotted circle here; what is not seen at all has its number.
    """
    unseen = all(c in JOINERS for c in text)
    ends = text if len(text) <= 2 * most else text[:most] + text[-most:]  # every character takes one or more
    pieces = [f"\\u{ord(c):04x}" if unseen else _SIGNS.get(c) or visible(c) for c in ends]
    if ends and unicodedata.category(ends[0]).startswith("M"):
        pieces[0] = _CIRCLE + pieces[0]
    return _cut(pieces, most) or "∅"


def _cut(pieces: Sequence[str], most: int) -> str:
    """Join pieces to at most so many characters, whole pieces of both ends; what is left out is an ellipsis.

    Examples
    --------
    >>> _cut(["a", "b", "c"], 3), _cut(["ab", "cd", "ef", "gh"], 7), _cut(["abc", "d", "efg"], 6)
    ('abc', 'ab…gh', 'abc…')
    """
    if sum(map(len, pieces)) <= most:
        return "".join(pieces)
    head, tail = (
        [piece for piece, end in zip(of, accumulate(map(len, of)), strict=True) if end <= room]
        for of, room in ((pieces, most // 2), (pieces[::-1], (most - 1) // 2))
    )
    return "".join((*head, "…", *reversed(tail)))


def _direction(text: str) -> str:
    """Give the direction that most letters of a response have, in which its tokens follow each other."""
    strong = [unicodedata.bidirectional(c) for c in text[:MOST_LETTERS]]
    return "rtl" if strong.count("R") + strong.count("AL") > strong.count("L") else "ltr"


def _with_unit(value: float, colouring: Colouring) -> str:
    return f"{number(value, 3, signed=colouring.signed)}{' ' + colouring.unit if colouring.unit else ''}"


def _probability(logprob: float) -> str:
    p = math.exp(logprob)
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}" if p > 0 else "0"
