"""What the study of teachers measures: the student against each of them, and every two at the student's states."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from opd_diag.errors import InputError, OpdDiagError, StoreError
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import Settings
from opd_diag.records.verdict import Verdict
from opd_diag.replay import Replay, ReplayPlan, measured, open_store, plan_models
from opd_diag.replay.between import Pair, scored_between
from opd_diag.replay.parts import Progress
from opd_diag.replay.store import refuse_inside, refuse_unfit
from opd_diag.runs.digests import Digests
from opd_diag.studies.naming import distinct_names, folder_name, under_name
from opd_diag.studies.teachers_shown import BEFORE, STUDENT
from opd_diag.tables import Tables
from opd_diag.verdicts import Thresholds, judge
from opd_diag.verdicts.unanswered import unknown

RESERVED = (BEFORE, STUDENT)
"""Names that no folder gets: one that is called so has the folder above it before it."""

RULES = ("patterns_compatible", "new_capability", "indistinguishable_teacher", "sharpness", "concentrated_signal")
"""What a report's rules say of each teacher before training."""


@dataclass(frozen=True)
class MeasuredTeacher:
    """What was measured of one teacher."""

    name: str
    plan: ReplayPlan
    replayed: Replay
    tables: Tables
    judged: Mapping[str, Verdict]
    """What a report's rules say, by name."""

    @property
    def scores(self) -> Scores:
        """Of the student and it, at the student's states."""
        return self.replayed.scored[0].scores

    def rollouts(self, states: str) -> Sequence[Rollout]:
        """Give the responses of the student (``on-policy``), or of this teacher (``teacher``)."""
        return next(s.rollouts for s in self.replayed.scored if s.states == states)

    def verdicts(self) -> list[Verdict]:
        """Give what is asked of each teacher, with its name in question and name."""
        return [
            replace(about(verdict, self.name), question=f"{self.name}: {verdict.question}")
            for verdict in (self.capability() if rule == "new_capability" else self.judged[rule] for rule in RULES)
        ]

    def capability(self) -> Verdict:
        """Say whether it brings something new; nothing is said of responses that were all cut."""
        verdict = self.judged["new_capability"]
        for whose, states in (("the student", "on-policy"), (self.name, "teacher")):
            rollouts = self.rollouts(states)
            if all(r.truncated for r in rollouts) and any(r.is_correct is not None for r in rollouts):
                cut = f"All {len(rollouts)} responses of {whose} were cut at {self.plan.settings.max_new_tokens} tokens"
                said = f"{cut}, so what it can do is not seen."
                return unknown(verdict.name, verdict.question, said, "Raise --max-new-tokens.")
        if verdict.status == "unknown" and math.isnan(verdict.value):
            return replace(verdict, evidence=verdict.evidence + _without_answers(self.tables))
        return verdict


def about(verdict: Verdict, *names: str) -> Verdict:
    """Put whom it is about in brackets behind the name of a verdict."""
    return replace(verdict, name=f"{verdict.name}[{', '.join(names)}]")


def names_of(models: Sequence[str], past: str | None = None) -> dict[str, str]:
    """Give each model a name of its own; what the student was is called ``before``.

    Raises
    ------
    InputError
        There is none, or one is named twice.
    """
    if not models:
        raise InputError("No teacher. Name one or more with --teacher, folders or hub ids.")
    real = [os.path.realpath(os.path.expanduser(model)) if os.path.isdir(model) else model for model in models]
    for model, place in zip(models, real, strict=True):
        if real.count(place) > 1:
            raise InputError(f"Teacher {model} is named twice. Name each model once.")
    others = [place for model, place in zip(models, real, strict=True) if model != past]
    names = dict(zip(others, distinct_names(others), strict=True))
    names = {place: "/".join(Path(place).parts[-2:]) if name in RESERVED else name for place, name in names.items()}
    return {model: names.get(place, BEFORE) for model, place in zip(models, real, strict=True)}


def measured_teachers(
    names: Mapping[str, str],
    settings: Settings,
    folder: Path,
    limits: Thresholds,
    progress: Progress | None,
) -> tuple[list[MeasuredTeacher], list[Verdict]]:
    """Replay the student against each teacher; one that cannot be used is left out where another one can.

    Both models' hidden states at the student's states stay in ``replay/hidden`` for :func:`pairs_of`.

    Returns
    -------
    tuple
        The teachers that were measured, and a verdict ``usable_teacher`` of each that was left out.

    Raises
    ------
    OpdDiagError
        None can be used, or `folder` cannot.
    """
    refuse_inside(folder, settings.student, *names)
    plans, errors = _plans(names, replace(settings, store=_shared(folder, settings)), folder)
    found: list[MeasuredTeacher] = []
    for name, plan in plans.items():
        tell = under_name(progress, name)
        try:
            with (
                open_store(_folder(folder, name), plan.run_dir, plan.settings.store) as store,
                open_store(folder / "replay" / "hidden", plan.run_dir) as hidden,
            ):
                replayed, tables = measured(plan, store, tell, hidden)
        except StoreError:
            raise
        except OpdDiagError as error:
            errors[name] = error
            continue
        verdicts = judge(tables, step_zero_known=True, thresholds=limits, selftests=replayed.selftests)
        found.append(MeasuredTeacher(name, plan, replayed, tables, {v.name: v for v in verdicts}))
    if not found:
        raise next(iter(errors.values()))
    return found, [_left_out(name, error) for name, error in errors.items()]


def pairs_of(
    found: Sequence[MeasuredTeacher], folder: Path, settings: Settings, progress: Progress | None
) -> dict[Pair, Scores]:
    """Score every two teachers at the student's states, from the hidden states that were kept, and let those go."""
    at, places = found[0].plan.run_dir, folder / "replay"
    with (
        open_store(places / "between", at, _shared(folder, settings)) as store,
        open_store(places / "hidden", at) as hidden,
    ):
        plans = {teacher.name: teacher.plan for teacher in found}
        pairs = scored_between(plans, found[0].rollouts("on-policy"), store, hidden, progress)
        hidden.drop_shards()
    return pairs


def _plans(
    names: Mapping[str, str], settings: Settings, folder: Path
) -> tuple[dict[str, ReplayPlan], dict[str, OpdDiagError]]:
    """Plan one replay a teacher, so that what cannot be used is known before any work."""
    digests = Digests()
    plans: dict[str, ReplayPlan] = {}
    errors: dict[str, OpdDiagError] = {}
    for model, name in names.items():
        try:
            plan = plan_models(replace(settings, teacher=model), digests=digests)
            refuse_unfit(_folder(folder, name), plan.run_dir, plan.settings.store)
            plans[name] = plan
        except OpdDiagError as error:
            errors[name] = error
    return plans, errors


def _left_out(name: str, error: OpdDiagError) -> Verdict:
    question = f"Can {name} be used as a teacher?"
    return about(unknown("usable_teacher", question, f"It was left out. {error}", "Mend it, or leave it out."), name)


def _folder(folder: Path, name: str) -> Path:
    return folder / "replay" / "teachers" / folder_name(name)


def _shared(folder: Path, settings: Settings) -> str:
    """Give the folder in which the replays find each other's parts: the student samples once."""
    return settings.store or str(folder / "replay" / "shared")


def _without_answers(tables: Tables) -> str:
    """Say what of the teacher lies outside the student's reach, and how much of the KL is temperature alone."""
    rows = tables.summary[(tables.summary["states"] == "on-policy") & (tables.summary["metric"] == "teachable_mass")]
    fits = tables.fits[tables.fits["states"] == "on-policy"]
    if rows.empty or pd.isna(rows.iloc[0]["value"]):
        return ""
    told = f" Of the teacher's mass {1 - rows.iloc[0]['value']:.3f} lies outside the student's top {rows.iloc[0]['k']}"
    if len(fits) and not pd.isna(fits.iloc[0]["explained_share"]):
        told += f", and {float(fits.iloc[0]['explained_share']):.2f} of the reverse KL is temperature alone"
    return f"{told}."
