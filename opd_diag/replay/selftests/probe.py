"""The few responses that self-tests with models look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from opd_diag.records.rollout import Rollout
from opd_diag.replay.selftests.limits import PROBE_ROLLOUTS, PROBE_TOKENS


def probe_of(rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """Take the beginnings of the first response to each of the first prompts that have one.

    Parameters
    ----------
    rollouts
        Of one writer.

    Returns
    -------
    tuple of Rollout
        At most `PROBE_ROLLOUTS`, of at most `PROBE_TOKENS` tokens, each with a state; without terminal states.
    """
    firsts: dict[int, Rollout] = {}
    for rollout in rollouts:
        beginning = _beginning(rollout)
        if beginning.state_positions:
            firsts.setdefault(rollout.prompt_index, beginning)
    return tuple(list(firsts.values())[:PROBE_ROLLOUTS])


def own_view(rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """Give the rollouts with the student's prompts for both models."""
    return tuple(replace(r, teacher_prompt_ids=r.prompt_ids) for r in rollouts)


def _beginning(rollout: Rollout) -> Rollout:
    kept = slice(PROBE_TOKENS)
    cut: dict[str, Any] = {
        name: None if getattr(rollout, name) is None else getattr(rollout, name)[kept]
        for name in ("generated", "sampled_logprobs")
    }
    return replace(rollout, response_ids=rollout.response_ids[kept], stop_reason="unknown", **cut)
