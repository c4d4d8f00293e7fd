"""Beginnings of responses: the student's own, the teacher's own, and filler of equal length."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Rollout
from opd_diag.tables.continuations import FILLER, STUDENT, THEIRS
from opd_diag.tokenization import EncodedPrompt

MOST_DEPTHS = 5
"""Depths that are tried unless others are named."""


@dataclass(frozen=True)
class Prefix:
    """The beginning of a response, or what stands in its place."""

    rollout: Rollout
    """The response."""
    ids: tuple[int, ...]
    """As many tokens as the deepest prefix has."""

    def prompt(self, index: int, depth: int) -> EncodedPrompt:
        """Give the prompt that a continuation of its first `depth` tokens goes on from."""
        of, ids = self.rollout, self.ids[:depth]
        about = Prompt(of.prompt_text, of.prompt_id, of.answer, of.group)
        return EncodedPrompt(index, about, (*of.prompt_ids, *ids), (*of.teacher_prompt_ids, *ids))


def even_depths(length: int) -> list[int]:
    """Give depths spread over a length, neither its start nor its end among them.

    Examples
    --------
    >>> even_depths(18), even_depths(3), even_depths(1)
    ([3, 6, 9, 12, 15], [1, 2], [])
    """
    parts = MOST_DEPTHS + 1
    return sorted({round(length * i / parts) for i in range(1, parts)} - {0, length})


def reached(rollouts: Sequence[Rollout], depths: Sequence[int], prompts: float) -> tuple[list[int], dict[int, int]]:
    """Give the depths beyond which responses to so many prompts go, and for every depth the number of such prompts."""
    counts = {d: len({r.prompt_index for r in rollouts if len(r.response_ids) > d}) for d in depths}
    return [d for d in depths if counts[d] >= prompts], counts


def prefixes_of(
    own: Sequence[Rollout],
    theirs: Sequence[Rollout],
    deepest: int,
    *,
    most_prompts: int,
    stops: Collection[int] = (),
    seed: int = 0,
) -> dict[str, list[Prefix]]:
    """Give the prefixes of each kind, of responses that go beyond the deepest, so that every depth has the same ones.

    Parameters
    ----------
    own, theirs
        Responses of the student and of the teacher.
    deepest
        Tokens of the deepest prefix.
    most_prompts
        Most prompts; the first of those that the student's responses reach so far.
    stops
        Ids that end a response; none of them is filler.
    seed
        Of the filler.

    Returns
    -------
    dict
        Of ``student``, ``teacher`` (to the same prompts) and ``filler``. Filler is drawn token by token from the
        student's responses to other prompts, one piece for each of the student's prefixes; without a second prompt
        there is none.
    """
    long = [r for r in own if len(r.response_ids) > deepest]
    prompts = set(sorted({r.prompt_index for r in long})[:most_prompts])
    mine = [r for r in long if r.prompt_index in prompts]
    others = [r for r in theirs if len(r.response_ids) > deepest and r.prompt_index in prompts]
    return {
        STUDENT: [Prefix(r, r.response_ids[:deepest]) for r in mine],
        THEIRS: [Prefix(r, r.response_ids[:deepest]) for r in others],
        FILLER: [Prefix(r, ids) for r in mine for ids in [_filler(r, mine, deepest, stops, seed)] if ids],
    }


def _filler(
    rollout: Rollout, rollouts: Sequence[Rollout], length: int, stops: Collection[int], seed: int
) -> tuple[int, ...]:
    pool = [i for r in rollouts if r.prompt_index != rollout.prompt_index for i in r.response_ids if i not in stops]
    if not pool:
        return ()
    rng = np.random.default_rng([seed, rollout.prompt_index, rollout.rollout_index])
    return tuple(pool[i] for i in rng.integers(len(pool), size=length))
