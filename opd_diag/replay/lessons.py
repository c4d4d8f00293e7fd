"""Responses of the teacher beyond those that are measured, to be taught."""

from __future__ import annotations

import math
from dataclasses import replace

from opd_diag.records.rollout import Rollout
from opd_diag.replay.near import Near
from opd_diag.replay.parts import Parts, Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.prompts import chosen_prompts
from opd_diag.replay.store import Store
from opd_diag.tokenization import EncodedPrompt

LABEL = "teacher to be taught"
"""Whose responses they are called, so that none of them is one of the measured ones again."""


def responses_to_teach(
    plan: ReplayPlan, store: Store, n: int, progress: Progress | None = None
) -> tuple[tuple[EncodedPrompt, ...], tuple[Rollout, ...]]:
    """Sample `n` responses of the teacher, to as many prompts of the file as can be.

    Prompts that are measured are held out where the file has `n` others, so that they can be asked again afterwards.

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
        The prompts that were used, and `n` responses.
    """
    measured = len(plan.prompts)
    everything, _ = chosen_prompts(replace(plan.settings, max_prompts=measured + n), plan.tokenizer, {}, Near())
    everything = everything[measured:] if len(everything) == measured + n else everything
    to_each = math.ceil(n / len(everything))
    prompts = tuple(everything[: math.ceil(n / to_each)])
    taught = replace(
        plan,
        prompts=prompts,
        recorded={},
        teacher=replace(plan.teacher, label=LABEL),
        settings=replace(plan.settings, rollouts_per_prompt=to_each),
    )
    parts = Parts(taught, store, progress or (lambda what, done, total: None))
    return prompts, parts.rollouts(parts.teacher)[:n]
