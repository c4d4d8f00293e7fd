"""What the token view of a page shows: responses, their tokens, and what they can be coloured by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import escape

MARKUP = 1400
"""Bytes that one token takes on a page without the texts of tokens, at most."""


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
    left_out: int
    """Tokens between it and the one shown before it that are not shown."""
    negative: bool
    """Whether the teacher finds the token less probable than the student does."""
    shades: Mapping[str, int]
    """By key of the colouring."""
    values: Sequence[tuple[str, str]]
    """(title, value with unit) of every colouring."""
    student: Sequence[Candidate]
    teacher: Sequence[Candidate]

    @property
    def n_bytes(self) -> int:
        """Bytes that it takes on a page, at most."""
        texts = [self.text, self.text, *(c.text for c in (*self.student, *self.teacher))]
        return MARKUP + sum(len(escape(text).encode()) for text in texts)


@dataclass(frozen=True)
class ShownRollout:
    """One response."""

    anchor: str
    prompt_id: str
    why: str
    """Why it is shown."""
    is_correct: bool | None
    direction: str
    """``ltr`` or ``rtl``, in which its tokens follow each other."""
    mean: str
    """Its mean reverse KL, in nats."""
    states: Sequence[ShownState]
    left_out: int
    """Tokens not shown after the last one."""


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
class WorstPrompt:
    """One of the prompts on whose responses the models are farthest apart."""

    prompt_id: str
    value: str
    """Mean over its responses of their mean reverse KL, in nats."""
    n_responses: int
    correct: str
    """How many of them are, of those that were graded; empty where none was."""
    anchor: str
    """Of one of its responses; empty where none is shown."""


@dataclass(frozen=True)
class Lead:
    """A link from a picture to a token behind it."""

    text: str
    anchor: str


@dataclass(frozen=True)
class TokenView:
    """What the page shows token by token."""

    colourings: Sequence[Colouring]
    groups: Sequence[TokenGroup]
    farthest: Sequence[Farthest]
    prompts: Sequence[WorstPrompt] = ()
    """Of the last checkpoint's own responses, the worst first."""
    leads: Mapping[str, Sequence[Lead]] = field(default_factory=dict)
    """By name of the picture."""
