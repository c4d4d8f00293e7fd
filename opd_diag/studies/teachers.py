"""Which teacher will teach this student: compatibility, new capability, and which teachers are one to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag import plots, stats
from opd_diag.records.settings import settings_from
from opd_diag.records.verdict import Verdict
from opd_diag.replay.parts import Progress
from opd_diag.studies.naming import study_folder
from opd_diag.studies.served import of_server
from opd_diag.studies.study import Picture, Study
from opd_diag.studies.teachers_measured import MeasuredTeacher, about, measured_teachers, pairs_of
from opd_diag.studies.teachers_planned import PlannedTeachers, planned_teachers
from opd_diag.studies.teachers_shown import (
    BEFORE,
    STUDENT,
    conditions,
    conditions_reading,
    distances_reading,
    facts_of,
    headline_of,
    pass_reading,
    shown_tables,
)
from opd_diag.tables.outcomes import attempt_table, item_table, on_shared_prompts, pass_difference, pass_table
from opd_diag.tables.teachers import distance_table
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.teachers import pulled_back, teachers_alike

STATES = ("on-policy", "teacher")

LEFT_OUT: dict[str, Any] = {
    "hidden": "fitted temperature, gradient coherence, coverage, its precision floor, and the KL to other teachers",
    "whole": "gradient shares",
    "bounds": True,
}
"""What is not measured of a teacher behind a server."""


def teachers(
    student: str | Path,
    teachers: Sequence[str | Path],
    *,
    before: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
    **options: Any,
) -> Study:
    """Hold teachers side by side before training, on the student's own rollouts.

    Parameters
    ----------
    student
        Folder or hub id.
    teachers
        Folders, hub ids, or servers as ``vllm=http://127.0.0.1:8000#NAME``; one or more.
    before
        What the student was before its last training, as its checkpoint before RL: one teacher more, and every teacher
        is asked whether it would pull the student back to it (reverse distillation).
    out
        Folder for what it rests on, which a second call finds again; default ``opd-diag/teachers/<student name>``.
    progress
        Called with (what is being done, units done, units in all).
    thresholds
        What the rules hold values against; a mapping overrides single fields.
    options
        Fields of :class:`~opd_diag.records.settings.Settings`: `prompts` at least.

    Returns
    -------
    Study
        Of each teacher the verdicts ``patterns_compatible``, ``new_capability``, ``indistinguishable_teacher``,
        ``sharpness`` and ``concentrated_signal``, of each two ``teachers_alike``, with `before` also ``pulled_back``;
        the name of whom it is about stands in brackets. Tables ``summary``, ``baselines``, ``fits``, ``distances``,
        ``attempts``, ``pass_at_k``, ``items`` (:mod:`opd_diag.tables`).

    Raises
    ------
    OpdDiagError
        The student, the prompts or every teacher cannot be used; a teacher that cannot is left out and named where
        others can.
    """
    limits = Thresholds.of(thresholds)
    folder = study_folder("teachers", student, out)
    past = None if before is None else str(before)
    planned = plan_teachers(student, teachers, before=before, out=folder, **options)
    found, refused = measured_teachers(planned, limits, progress)
    of_student, pairs = found[0].rollouts("on-policy"), pairs_of(found, planned, progress)
    distances = distance_table(STUDENT, {t.name: t.scores for t in found}, pairs, of_student, planned.settings.k)
    attempts = attempt_table({STUDENT: of_student} | {t.name: t.rollouts("teacher") for t in found})
    leads = {t.name: _lead(attempts, t.name) for t in found}
    verdicts = [*refused, *(verdict for t in found for verdict in t.verdicts())]
    for _, row in distances.iloc[len(found) :].iterrows():
        verdicts.append(about(teachers_alike(row, limits), str(row["first"]), str(row["second"])))
    if past is not None and BEFORE in leads:
        verdicts += [about(pulled_back(t.name, BEFORE, distances, leads[t.name], limits), t.name) for t in found]
    return _study(found, verdicts, (attempts, distances, leads), limits)


def plan_teachers(
    student: str | Path,
    teachers: Sequence[str | Path],
    *,
    before: str | Path | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> PlannedTeachers:
    """Check all that :func:`teachers` needs and say what it would do; load no weights, write nothing.

    Parameters and errors as there.
    """
    past = None if before is None else str(before)
    settings = settings_from({**options, "student": str(student), "states": STATES}, {}, None)
    models = [*map(str, teachers), *([past] if past else [])]
    return planned_teachers(models, past, settings, study_folder("teachers", student, out))


Found = tuple[pd.DataFrame, pd.DataFrame, Mapping[str, stats.Estimate | None]]


def _study(found: Sequence[MeasuredTeacher], verdicts: list[Verdict], held: Found, limits: Thresholds) -> Study:
    attempts, distances, leads = held
    tables = {
        name: pd.concat([getattr(t.tables, name).assign(teacher=t.name) for t in found], ignore_index=True)
        for name in ("summary", "baselines", "fits")
    }
    items = [item_table(attempts, STUDENT, t.name).assign(teacher=t.name) for t in found if leads[t.name] is not None]
    tables |= {"distances": distances, "attempts": attempts}
    if items:
        tables |= {"pass_at_k": pass_table(attempts), "items": pd.concat(items, ignore_index=True)}
    sweeps = [t.tables.sweep.assign(teacher=t.name) for t in found if len(t.tables.sweep)]
    if sweeps:
        tables["k_sweep"] = pd.concat(sweeps, ignore_index=True)
    served = {t.name: t.served for t in found if t.served is not None}
    placed = conditions(tables["summary"], leads)
    judged = {t.name: {**t.judged, "new_capability": t.capability()} for t in found}
    pictures = [
        Picture("conditions", "The two conditions", conditions_reading(placed, judged), partial(
            plots.teaching_conditions, placed, mass=limits.shared_mass, lead=limits.capability_change
        )),
        Picture("distances", "How far apart", distances_reading(distances, len(found)), partial(
            plots.model_distances, distances
        )),
    ]  # fmt: skip
    if items:
        writers = [STUDENT, *(t.name for t in found)]
        curves = partial(plots.pass_at_k_curves, tables["pass_at_k"], writers)
        pictures.append(Picture("pass_at_k", "Solved with k tries", pass_reading(tables["pass_at_k"]), curves))
    settings = found[0].plan.settings
    headline, status = headline_of([t.name for t in found], verdicts)
    return Study(
        name="teachers",
        question="Which of these teachers will teach this student?",
        headline=headline,
        headline_status=status,
        facts=facts_of(judged, verdicts, leads, served),
        subject=found[0].plan.run,
        verdicts=verdicts,
        tables=tables,
        pictures=pictures,
        shown=shown_tables([t.name for t in found], tables, STUDENT, served),
        measured=(
            f"{len(found[0].rollouts('on-policy')):,} responses of the student to {len(found[0].plan.prompts)} "
            f"prompts, at most {settings.max_new_tokens} tokens, temperature {settings.temperature:g}, top-p "
            f"{settings.top_p:g}, seed {settings.seed}; every teacher scores the same ones, and writes as many.",
            f"{len(found[0].scores):,} states, k = {settings.k}; intervals are 95 %, over prompts.",
            "Everything is at the student's states but accuracy and pass@k, which are of each model's own responses.",
            *(f"{name}: {of_server(of, **LEFT_OUT)}" for name, of in served.items()),
            *dict.fromkeys(note for t in found for note in t.plan.notes),
        ),
        cannot_tell=(
            "Whether it will be learned: both conditions are necessary, and neither one number nor this table ranks "
            "teachers.",
            "What a teacher knows that these prompts do not ask, and what it does with a student that has moved on.",
            "A lead in accuracy of a teacher with another pattern may never arrive: see the cold-start study.",
        ),
    )


def _lead(attempts: pd.DataFrame, teacher: str) -> stats.Estimate | None:
    """Give the teacher's accuracy less the student's; None without responses of both that can be graded."""
    both = on_shared_prompts(attempts, (STUDENT, teacher))
    return pass_difference(both, STUDENT, teacher, 1) if len(both) else None
