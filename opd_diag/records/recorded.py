"""One response as a trainer recorded it: text or ids, before anything was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opd_diag.records.rollout import Exactness, StopReason

Message = Mapping[str, Any]
"""One chat message, with ``role`` and ``content``."""


@dataclass(frozen=True)
class Recorded:
    """One response as a trainer recorded it."""

    place: str
    """Where it stands, for messages: the file, and the line or row."""
    step: int | None
    """Step that the trainer filed it under; None when it names none."""
    updates: int | None
    """Optimiser steps behind the weights that wrote it; None when nothing tells."""
    exactness: Exactness
    """``ids``, or what kind of text `prompt` and `response` are."""
    prompt: str | tuple[Message, ...] | None = None
    """The prompt as text, rendered or not, or as chat messages; None where only ids are known."""
    response: str | tuple[Message, ...] | None = None
    """The response as text or messages; None where only ids are known."""
    prompt_ids: tuple[int, ...] | None = None
    """Token ids of the prompt; None unless `exactness` is ``ids``."""
    response_ids: tuple[int, ...] | None = None
    """Token ids of the response, with what ended it; None unless `exactness` is ``ids``."""
    generated: tuple[bool, ...] | None = None
    """Which response ids the student generated; None: all."""
    sampled_logprobs: tuple[float, ...] | None = None
    """Log-probability of each response id when it was sampled, in nats; None when unknown."""
    stop_reason: StopReason = "unknown"
    """Why it ended, where the record tells."""
    temperature: float | None = None
    """Of sampling; None when the record does not tell."""
    reward: float | None = None
    """Reward of the whole response; None when unknown."""
    answer: str | None = None
    """Reference answer of the prompt."""
    group: str | None = None
    """Data source or kind of task."""
    prompt_name: str | None = None
    """What the trainer calls the prompt: equal names are one prompt; None: equal prompts are."""
