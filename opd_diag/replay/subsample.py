"""Which states get a second pass, and what it leaves of them: the temperature fit and gradient coherence rest on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_diag.inference import Model, Place, SecondPass, hidden_at, second_pass
from opd_diag.inference.head import OwnLogits
from opd_diag.inference.hidden import HiddenStates
from opd_diag.inference.shards import Keep, Shard
from opd_diag.records.fits import Fits
from opd_diag.records.rollout import Rollout

MOST_ROLLOUTS = 64
"""Responses of the subsample, each to another prompt: bodies run over whole responses."""

MOST_STATES = 512
"""States of the subsample: gradients are multiplied pair by pair."""

WORTH = 4
"""States of the scoring that one of the subsample takes as long as, heads alone: 2 to 5, the more the larger the
vocabulary. Measured on one core."""

_STREAM = 5
"""Tells these random numbers from those that sample."""


def subsample(rollouts: Sequence[Rollout], seed: int) -> tuple[list[Rollout], list[Place]]:
    """Choose states: one response a prompt, and of all their states every n-th, from a drawn one on.

    So every state of the responses is as likely as any other: means are token means. Each prompt's
    draw is its own: it stays the same whichever other prompts there are, and whatever was interrupted.

    Parameters
    ----------
    rollouts
        Of one state set.
    seed
        Of the report.

    Returns
    -------
    tuple
        The responses that were chosen, each up to its last chosen state; and the states, (row of these responses,
        position).
    """
    by_prompt: dict[int, list[Rollout]] = {}
    for rollout in (r for r in rollouts if r.state_positions):
        by_prompt.setdefault(rollout.prompt_index, []).append(rollout)
    drawn = {prompt: np.random.default_rng([seed, _STREAM, prompt]).random(2) for prompt in by_prompt}
    prompts = sorted(sorted(by_prompt, key=lambda prompt: float(drawn[prompt][0]))[:MOST_ROLLOUTS])
    ones = [by_prompt[prompt][int(drawn[prompt][1] * len(by_prompt[prompt]))] for prompt in prompts]
    everything = [(row, p) for row, rollout in enumerate(ones) for p in rollout.state_positions]
    n = min(MOST_STATES, len(everything))
    start = np.random.default_rng([seed, _STREAM]).random()
    places = [everything[int((i + start) * len(everything) / n)] for i in range(n)]
    last = dict(places)  # the last place of each row
    rows = {row: new for new, row in enumerate(last)}
    return [_up_to(ones[row], position) for row, position in last.items()], [(rows[row], p) for row, p in places]


def fits_of(
    student: Model,
    teacher: Model,
    chosen: tuple[list[Rollout], list[Place]],
    *,
    temperatures: tuple[float, float],
    about: dict[str, Any],
    keep_teacher: Keep[HiddenStates] | None = None,
    known: Sequence[Tensor | None] = (None, None),
) -> Fits:
    """Run the second pass.

    Parameters
    ----------
    student, teacher
        The two models.
    chosen
        From :func:`subsample`.
    temperatures
        Of the scored distributions of student and teacher.
    about
        What names checkpoint and state set.
    keep_teacher
        Called to keep the teacher's hidden states for the next checkpoint, and to find them again.
    known
        (n, d) hidden states of either model at the chosen states, where the scoring left them; that body does not run.
    """
    rollouts, places = chosen
    left, left_by_teacher = known
    ours = hidden_at(student, rollouts, places) if left is None else left

    def theirs() -> HiddenStates:
        return HiddenStates(hidden_at(teacher, rollouts, places, as_teacher=True))

    if left_by_teacher is not None:
        found = HiddenStates(left_by_teacher)
    elif keep_teacher is None or isinstance(teacher.head, OwnLogits):  # logits would fill disks
        found = theirs()
    else:
        found = keep_teacher(Shard(0, 1, [*places]), theirs)
    hidden = ours.to(student.device), found.rows(0, len(places)).to(student.device)
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    return _recorded(second_pass((student.head, teacher.head), hidden, vocabulary, temperatures), chosen, about)


def places_in(rollouts: Sequence[Rollout], chosen: tuple[list[Rollout], list[Place]]) -> list[Place]:
    """Give the chosen states as (row of `rollouts`, position), `rollouts` those that :func:`subsample` chose from."""
    rows = {(r.prompt_index, r.rollout_index): row for row, r in enumerate(rollouts)}
    ones, places = chosen
    return [(rows[ones[row].prompt_index, ones[row].rollout_index], position) for row, position in places]


def _recorded(found: SecondPass, chosen: tuple[list[Rollout], list[Place]], about: dict[str, Any]) -> Fits:
    """Add up by prompts what belongs to pairs of states."""
    rollouts, places = chosen
    prompt_of = torch.tensor([rollouts[row].prompt_index for row, _ in places], dtype=torch.int64)
    prompts, group = prompt_of.unique(return_inverse=True)
    known = found.products.diagonal().isfinite()
    belongs = (group.unsqueeze(-1) == torch.arange(len(prompts))).double() * known.unsqueeze(-1)
    products = found.products.masked_fill(~(known & known.unsqueeze(-1)), 0.0)
    least = found.least_squared_norms.masked_fill(~known, 0.0)
    return Fits(
        prompt_index=prompt_of.numpy(),
        rollout_index=np.array([rollouts[row].rollout_index for row, _ in places], dtype=np.int64),
        position=np.array([position for _, position in places], dtype=np.int64),
        tempered_reverse_kl=found.tempered_reverse_kl.numpy(),
        tempered_slope=found.tempered_slope.numpy(),
        has_gradient=known.numpy(),
        prompts=prompts.numpy(),
        gradient_products=(belongs.T @ products @ belongs).numpy(),
        gradient_squared_norms=(belongs.T @ products.diagonal()).numpy(),
        least_squared_norms=(belongs.T @ least).numpy(),
        about=about,
    )


def _up_to(rollout: Rollout, position: int) -> Rollout:
    """Cut what no chosen state sees."""
    return replace(
        rollout,
        response_ids=rollout.response_ids[: position + 1],
        generated=None if rollout.generated is None else rollout.generated[: position + 1],
        sampled_logprobs=None,
        stop_reason="unknown",
    )
