"""Responses of the teacher beyond those that are measured, to be taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from opd_diag.records.rollout import Rollout
from opd_diag.replay.near import Near
from opd_diag.replay.parts import Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.prompts import chosen_prompts
from opd_diag.replay.spread.engine import parts_of
from opd_diag.replay.store import Store
from opd_diag.tokenization import EncodedPrompt

LABEL = "teacher to be taught"
"""Whose responses they are called, so that none of them is one of the measured ones again."""

ONE_MORE = f"{LABEL} once more"
"""The same, of prompts that get one response more than the others."""


def responses_to_teach(
    plan: ReplayPlan, store: Store, n: int, progress: Progress | None = None
) -> tuple[tuple[EncodedPrompt, ...], tuple[Rollout, ...]]:
    """Sample `n` responses of the teacher, to as many prompts of the file as can be.

    Prompts that are measured come last, so that as many as can be are held out and can be asked again afterwards.
    Where `n` is no multiple of the number of prompts, the first of that order get one response more.

    Parameters
    ----------
    plan
        Its settings hold, but for the number of prompts and of responses to each.
    store
        Keeps them, so that a killed call goes on where it was.
    n
        Responses in all, 1 or more.
    progress
        As of :func:`~opd_diag.replay.replay.replay`.

    Returns
    -------
    prompts, rollouts
        The prompts that were used, and `n` responses; both in the order of the file.
    """
    measured = len(plan.prompts)
    everything, _ = chosen_prompts(replace(plan.settings, max_prompts=measured + n), plan.tokenizer, {}, Near())
    used = [*everything[measured:], *everything[:measured]][:n]
    to_each, n_more = divmod(n, len(used))
    rollouts: list[Rollout] = []
    for label, prompts, each in ((ONE_MORE, used[:n_more], to_each + 1), (LABEL, used[n_more:], to_each)):
        if prompts:
            rollouts += _sampled(plan, store, label, prompts, each, progress)
    rollouts.sort(key=lambda r: (r.prompt_index, r.rollout_index))
    return tuple(sorted(used, key=lambda prompt: prompt.index)), tuple(rollouts)


def _sampled(
    plan: ReplayPlan, store: Store, label: str, prompts: Sequence[EncodedPrompt], each: int, progress: Progress | None
) -> tuple[Rollout, ...]:
    """Sample `each` responses of the teacher to every prompt; it is in memory no longer than that."""
    taught = replace(
        plan,
        prompts=tuple(prompts),
        recorded={},
        teacher=replace(plan.teacher, label=label),
        settings=replace(plan.settings, rollouts_per_prompt=each),
    )
    with parts_of(taught, store, progress) as parts:
        return parts.rollouts(parts.teacher)
