"""Sets of prompts, each scored by one student and one teacher: planned together, so that nothing is refused late."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag.errors import InputError
from opd_diag.records.prompt import load_prompts, prompt_records
from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import SelfTest
from opd_diag.records.settings import settings_from
from opd_diag.replay import ReplayPlan, measured, open_store, plan_models
from opd_diag.replay.parts import Progress
from opd_diag.replay.templates import with_template
from opd_diag.tables.prompts import prompt_values
from opd_diag.tokenization import read_template

ROLLOUTS = 4
"""Responses to each prompt unless told otherwise: two halves, one to choose by and one to judge by, of two each."""

OWN_TEMPLATE = "the tokenizer's template"


@dataclass(frozen=True)
class Scored:
    """What was measured of one set of prompts, under one template."""

    name: str
    plan: ReplayPlan
    rollouts: Mapping[str, Sequence[Rollout]]
    """By state set."""
    selftests: Sequence[SelfTest]
    values: pd.DataFrame
    """From :func:`~opd_diag.tables.prompts.prompt_values`."""


def plans_of(
    student: str | Path,
    teacher: str | Path,
    prompts: str | Path,
    templates: Sequence[str | Path],
    against: str | Path | None,
    select: int | None,
    options: Mapping[str, Any],
) -> dict[str, ReplayPlan]:
    """Plan one replay a set of prompts or template, the one in use first; what cannot be done is refused before."""
    own = _plan(student, teacher, prompts, options)
    if select is not None and select > len(own.prompts):
        raise InputError(f"--select {select} is more than the {len(own.prompts)} prompts there are. Select fewer.")
    if not templates and against is None:
        return {Path(prompts).stem: own}
    first = OWN_TEMPLATE if templates and against is None else Path(prompts).stem
    plans = {first: own}
    for path in templates:
        name = Path(path).stem
        if name in plans:
            raise InputError(f"Two templates are called {name}. Rename one of the files.")
        plans[name] = with_template(own, read_template(path, "--template"), name)
    if against is not None:
        name = Path(against).stem if Path(against).stem not in plans else str(against)
        if name in plans or os.path.realpath(against) == os.path.realpath(prompts):
            raise InputError(f"--against names {against}, which --prompts names too. Name another file.")
        plans[name] = _plan(student, teacher, against, options)
    return plans


def is_graded(prompts: str | Path, options: Mapping[str, Any]) -> bool:
    """Whether any prompt that will be used has an answer."""
    most = options.get("max_prompts")
    used = load_prompts(prompts)[: most if isinstance(most, int) else None]
    return any(prompt.answer is not None for prompt in used)


def _plan(student: str | Path, teacher: str | Path, prompts: str | Path, options: Mapping[str, Any]) -> ReplayPlan:
    everything = load_prompts(prompts)
    given = {name: value for name, value in options.items() if value is not None}
    told = {"max_prompts": len(everything), "rollouts_per_prompt": ROLLOUTS} | given
    told |= {"student": str(student), "teacher": str(teacher), "prompts": str(prompts)}
    settings = settings_from(
        {**told, "states": ("on-policy", *(["teacher"] if is_graded(prompts, options) else []))}, {}, None
    )
    return plan_models(settings)


def store_folder(folder: Path, name: str, plans: Mapping[str, ReplayPlan]) -> Path:
    """Give the folder that the replay of one set is kept in."""
    place = [*plans].index(name)
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]
    return folder / "replay" / (f"{place}-{plain}" if place else "prompts")


def measure(name: str, plan: ReplayPlan, folder: Path, progress: Progress | None) -> Scored:
    """Sample and score one set of prompts.

    Errors as :func:`~opd_diag.replay.replay.replay`.
    """
    tell = None if progress is None else partial(_say, progress, name)
    with open_store(folder, plan.run_dir, plan.settings.store) as store:
        replayed, tables = measured(plan, store, tell)
    rollouts = {s.states: s.rollouts for s in replayed.scored}
    return Scored(name, plan, rollouts, replayed.selftests, prompt_values(tables.rollouts))


def _say(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def same_ids(one: ReplayPlan, two: ReplayPlan) -> bool:
    """Whether both files name ids, and the same ones: line numbers, which stand in for ids, pair nothing."""
    for plan in (one, two):
        records = prompt_records(str(plan.settings.prompts))[: plan.settings.max_prompts]
        if not all(record.get("id") is not None for _, record in records):
            return False
    return {p.prompt.id for p in one.prompts} == {p.prompt.id for p in two.prompts}
