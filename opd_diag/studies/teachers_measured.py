"""What the study of teachers measures: the student against each of them, and every two at the student's states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from opd_diag.errors import OpdDiagError, StoreError
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.verdict import Verdict
from opd_diag.replay import Replay, ReplayPlan, measured, open_store
from opd_diag.replay.between import Pair, scored_between
from opd_diag.replay.parts import Progress
from opd_diag.replay.served import Served
from opd_diag.stats.rounding import between, known_between
from opd_diag.studies.naming import under_name
from opd_diag.studies.teachers_planned import PlannedTeachers
from opd_diag.tables import Tables
from opd_diag.verdicts import Thresholds, judge
from opd_diag.verdicts.unanswered import unknown

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
    def served(self) -> Served | None:
        """Its server; None where it was loaded here."""
        return self.plan.served

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


def measured_teachers(
    planned: PlannedTeachers, limits: Thresholds, progress: Progress | None
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
        None can be used, or the folder cannot.
    """
    folder, errors = planned.folder, dict(planned.errors)
    found: list[MeasuredTeacher] = []
    for name, plan in planned.plans.items():
        tell = under_name(progress, name)
        try:
            with (
                open_store(planned.folder_of(name), plan.run_dir, plan.settings.store) as store,
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
    found: Sequence[MeasuredTeacher], planned: PlannedTeachers, progress: Progress | None
) -> dict[Pair, Scores]:
    """Score every two teachers that are loaded here at the student's states; let the hidden states that were kept go.

    Of one behind a server neither hidden states nor whole distributions are kept.
    """
    at, places = found[0].plan.run_dir, planned.folder / "replay"
    with (
        open_store(places / "between", at, planned.settings.store) as store,
        open_store(places / "hidden", at) as hidden,
    ):
        plans = {teacher.name: teacher.plan for teacher in found if teacher.plan.served is None}
        pairs = scored_between(plans, found[0].rollouts("on-policy"), store, hidden, progress)
        hidden.drop_shards()
    return pairs


def _left_out(name: str, error: OpdDiagError) -> Verdict:
    question = f"Can {name} be used as a teacher?"
    return about(unknown("usable_teacher", question, f"It was left out. {error}", "Mend it, or leave it out."), name)


def _without_answers(tables: Tables) -> str:
    """Say what of the teacher lies outside the student's reach, and how much of the KL is temperature alone."""
    rows = tables.summary[(tables.summary["states"] == "on-policy") & (tables.summary["metric"] == "teachable_mass")]
    fits = tables.fits[tables.fits["states"] == "on-policy"]
    if rows.empty or (pd.isna(rows.iloc[0]["value"]) and not known_between(rows.iloc[0])):
        return ""
    row = rows.iloc[0]
    outside = (
        f"{1 - row['value']:.3f}" if pd.notna(row["value"]) else between(1 - row["bound_high"], 1 - row["bound_low"])
    )
    told = f" Of the teacher's mass {outside} lies outside the student's top {row['k']}"
    if len(fits) and not pd.isna(fits.iloc[0]["explained_share"]):
        told += f", and {float(fits.iloc[0]['explained_share']):.2f} of the reverse KL is temperature alone"
    return f"{told}."
