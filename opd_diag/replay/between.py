"""Models held against each other at one student's states: how far apart teachers are where the student goes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from opd_diag.inference import score
from opd_diag.inference.swapping import Resident
from opd_diag.records.arrays import load_arrays, save_arrays
from opd_diag.records.files import content_key
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.replay.hidden import KeptHidden, seen
from opd_diag.replay.lazy import LazyModel, longest_ids
from opd_diag.replay.parts import Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.store import Store

Pair = tuple[str, str]


def scored_between(
    plans: Mapping[str, ReplayPlan],
    rollouts: Sequence[Rollout],
    store: Store,
    hidden: Store,
    progress: Progress | None = None,
) -> dict[Pair, Scores]:
    """Score every pair of teachers at the states of one student.

    Both see what a teacher sees of the prompts. Hidden states that replays of the same rollouts left in `hidden` are
    used again, so that no body runs for it; where teachers see other prompts than the student, bodies run once more.

    Parameters
    ----------
    plans
        Of the replays of the student against each teacher, by the teacher's name.
    rollouts
        Of the student.
    store
        Where the scores are kept.
    hidden
        Where those replays left hidden states.
    progress
        Called with (what is being done, units done, units in all).

    Returns
    -------
    dict
        Scores by (first teacher, second teacher), the first in the place of the student; each pair once, in order.

    Raises
    ------
    OpdDiagError
        A teacher cannot be loaded, or gives what it must not.
    """
    shown = tuple(replace(r, prompt_ids=r.teacher_prompt_ids, sampled_logprobs=None) for r in rollouts)
    tell = progress or (lambda what, done, total: None)
    roles = Resident(), Resident()
    found: dict[Pair, Scores] = {}
    for second, first in itertools.product(plans, plans):  # the second stays in memory while the first ones take turns
        if [*plans].index(first) < [*plans].index(second):
            models = tuple(_model(name, plans[name], of) for name, of in zip((first, second), roles, strict=True))
            found[first, second] = _scored(models, plans[second], shown, (store, hidden), tell)
    return {pair: found[pair] for pair in itertools.combinations(plans, 2)}


def _model(name: str, plan: ReplayPlan, resident: Resident) -> LazyModel:
    tokenizer = plan.teacher_tokenizer or plan.tokenizer
    teacher = replace(plan.teacher, label=name)
    return LazyModel(teacher, plan.settings, name, tokenizer, resident, plan.digests, role="teacher")


def _scored(
    models: tuple[LazyModel, ...],
    plan: ReplayPlan,
    rollouts: tuple[Rollout, ...],
    stores: tuple[Store, Store],
    tell: Progress,
) -> Scores:
    first, second = models
    store, settings = stores[0], plan.settings
    kept = KeptHidden(stores[1], settings.dtype)
    temperature = settings.teacher_temperature
    decides = [[model.key, model.name, model.tokenizer.stop_ids] for model in models]
    key = content_key(["between", SCORES_VERSION, decides, settings.dtype, temperature, seen(rollouts)])
    what = f"{first.name} against {second.name}, tokens"

    def made() -> Scores:
        for model in models:
            if not model.checked:
                model.checked_on(longest_ids(rollouts))
        return score(
            first.model,
            second.model,
            rollouts,
            states="start",  # neither wrote them
            student_temperature=temperature,
            teacher_temperature=temperature,
            progress=lambda done, total: tell(what, done, total),
            keep=store.account.scoring(store.shards(key, ".safetensors", save=save_arrays, load=load_arrays)),
            keep_student=kept.states_of(first, rollouts, as_teacher=False),
            keep_teacher=kept.states_of(second, rollouts, as_teacher=True),
        )

    name = f"scores/{content_key([first.name, second.name])[:16]}.safetensors"
    return store.part(name, key, make=made, save=lambda path, scores: scores.save(path), load=Scores.load)
