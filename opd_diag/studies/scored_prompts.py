"""Sets of prompts, each scored by one student and one teacher: planned together, so that nothing is refused late."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from opd_diag.studies.naming import folder_name, under_name
from opd_diag.tables.prompts import prompt_values
from opd_diag.tokenization import read_template

ROLLOUTS = 4
"""Responses to each prompt unless told otherwise: two halves, one to choose by and one to judge by, of two each."""

OWN_TEMPLATE = "the tokenizer's template"

SELECTION = "selection"
"""Folder of OUT_DIR that the chosen prompts are written to."""


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
    by: str | None = None,
) -> dict[str, ReplayPlan]:
    """Plan one replay a set of prompts or template, the one in use first; what cannot be done is refused before.

    `by` is the quantity that ranks the prompts, where some are chosen.
    """
    own = _plan(student, teacher, prompts, options)
    if select is not None:
        _refuse_too_many(select, by, own)
    if not templates and against is None:
        return {Path(prompts).stem: own}
    first = OWN_TEMPLATE if templates and against is None else Path(prompts).stem
    plans = {first: own}
    for path in templates:
        name = Path(path).stem
        if name == first:
            other = OWN_TEMPLATE if against is None else f"the prompts file {prompts}"
            raise InputError(f"Template {path} and {other} are both called {name}. Rename one of the files.")
        if name in plans:
            raise InputError(f"Two templates are called {name}. Rename one of the files.")
        plans[name] = with_template(own, read_template(path, "--template"), name)
    if against is not None:
        if os.path.realpath(against) == os.path.realpath(prompts):
            raise InputError(f"--against names {against}, which --prompts names too. Name another file.")
        name = Path(against).stem if Path(against).stem not in plans else str(against)
        if name in plans:
            raise InputError(f"--against {against} and a template are both called {name}. Rename one of the files.")
        plans[name] = _plan(student, teacher, against, options)
    return plans


def _refuse_too_many(select: int, by: str | None, plan: ReplayPlan) -> None:
    """Refuse to choose more prompts than there are, or, by the teacher's lead, than have an answer."""
    n, answered = len(plan.prompts), sum(p.prompt.answer is not None for p in plan.prompts)
    if select > n:
        raise InputError(f"--select {select} is more than the {n} prompts there are. Select fewer.")
    if by == "teacher_lead" and select > answered:
        raise InputError(
            f"--select {select} is more than the {answered} of {n} prompts that teacher_lead can be known of, those "
            "with an answer. Select fewer, give answers, or rank by another quantity with --by."
        )


def refuse_own_output(folder: Path, **files: str | Path | None) -> None:
    """Refuse a file of the user's that lies where the chosen prompts are written, and would be replaced by them."""
    written = os.path.realpath(folder / SELECTION)
    for option, path in files.items():
        if path is not None and Path(written) in Path(os.path.realpath(os.path.expanduser(path))).parents:
            raise InputError(
                f"--{option} {path} lies in {folder / SELECTION}, whose files this command replaces. Choose another "
                "folder with --out, or copy the file elsewhere first."
            )


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
    return folder / "replay" / (f"{place}-{folder_name(name)}" if place else "prompts")


def measure(name: str, plan: ReplayPlan, folder: Path, progress: Progress | None) -> Scored:
    """Sample and score one set of prompts.

    Errors as :func:`~opd_diag.replay.replay.replay`.
    """
    tell = under_name(progress, name)
    with open_store(folder, plan.run_dir, plan.settings.store) as store:
        replayed, tables = measured(plan, store, tell)
    rollouts = {s.states: s.rollouts for s in replayed.scored}
    return Scored(name, plan, rollouts, replayed.selftests, prompt_values(tables.rollouts))


def same_ids(one: ReplayPlan, two: ReplayPlan) -> bool:
    """Whether both files name ids, and the same ones: line numbers, which stand in for ids, pair nothing."""
    for plan in (one, two):
        records = prompt_records(str(plan.settings.prompts))[: plan.settings.max_prompts]
        if not all(record.get("id") is not None for _, record in records):
            return False
    return {p.prompt.id for p in one.prompts} == {p.prompt.id for p in two.prompts}
