"""Which teacher will teach this student: compatibility, new capability, and which teachers are one to it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag import plots, stats
from opd_diag.errors import InputError, OpdDiagError
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import Settings, settings_from
from opd_diag.records.verdict import Status, Verdict
from opd_diag.replay import Replay, ReplayPlan, measured, open_store, plan_models
from opd_diag.replay.between import scored_between
from opd_diag.replay.parts import Progress
from opd_diag.replay.store import refuse_unfit
from opd_diag.runs.digests import Digests
from opd_diag.stats.rounding import with_interval
from opd_diag.studies.naming import distinct_names
from opd_diag.studies.study import Picture, Shown, Study
from opd_diag.studies.teachers_shown import conditions, pairs_beside, side_by_side
from opd_diag.tables import Tables
from opd_diag.tables.outcomes import attempt_table, item_table, on_shared_prompts, pass_difference, pass_table
from opd_diag.tables.teachers import distance_table
from opd_diag.verdicts import DEFAULTS, Thresholds, judge
from opd_diag.verdicts.teachers import pulled_back, teachers_alike
from opd_diag.verdicts.unanswered import unknown

RULES = ("patterns_compatible", "new_capability", "indistinguishable_teacher", "sharpness", "concentrated_signal")
"""What a report's rules say of each teacher before training."""

STATES = ("on-policy", "teacher")

BEFORE = "before"
"""How the student's own past is called."""

STUDENT = "the student"
"""How tables and pictures call it: no folder is called so."""


@dataclass(frozen=True)
class _Teacher:
    """What was measured of one teacher."""

    name: str
    plan: ReplayPlan
    replayed: Replay
    tables: Tables
    verdicts: Mapping[str, Verdict]

    @property
    def scores(self) -> Scores:
        """Of the student and it, at the student's states."""
        return self.replayed.scored[0].scores

    def rollouts(self, states: str) -> Sequence[Rollout]:
        """Give the responses of the student, or of this teacher."""
        return next(s.rollouts for s in self.replayed.scored if s.states == states)


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
        Folders or hub ids, one or more.
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
    limits = thresholds if isinstance(thresholds, Thresholds) else Thresholds.from_mapping(thresholds)
    folder = Path("opd-diag/teachers") / Path(student).name if out is None else Path(os.path.expanduser(out))
    past = None if before is None else str(before)
    names = _names([*map(str, teachers), *([past] if past else [])], past)
    settings = settings_from({**options, "student": str(student), "states": STATES}, {}, None)
    plans, refused = _plans(names, settings, folder)
    found = _measured(plans, folder, progress, limits)
    of_student = found[0].rollouts("on-policy")
    at, places = found[0].plan.run_dir, folder / "replay"
    with (
        open_store(places / "between", at, _shared(folder, settings)) as store,
        open_store(places / "hidden", at) as hidden,
    ):
        pairs = scored_between({t.name: t.plan for t in found}, of_student, store, hidden, progress)
        hidden.drop_shards()
    distances = distance_table(STUDENT, {t.name: t.scores for t in found}, pairs, of_student)
    attempts = attempt_table({STUDENT: of_student} | {t.name: t.rollouts("teacher") for t in found})
    leads = {t.name: _lead(attempts, STUDENT, t.name) for t in found}
    verdicts = [*refused, *(verdict for t in found for verdict in _of_teacher(t))]
    for _, row in distances.iloc[len(found) :].iterrows():
        verdicts.append(_about(teachers_alike(row, limits), str(row["first"]), str(row["second"])))
    if past is not None and BEFORE in leads:
        verdicts += [_about(pulled_back(t.name, BEFORE, distances, leads[t.name], limits), t.name) for t in found]
    return _study(found, verdicts, (attempts, distances, leads), limits)


def _names(models: Sequence[str], past: str | None = None) -> dict[str, str]:
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
    return {model: names.get(place, BEFORE) for model, place in zip(models, real, strict=True)}


def _plans(names: Mapping[str, str], settings: Settings, folder: Path) -> tuple[dict[str, ReplayPlan], list[Verdict]]:
    """Plan one replay a teacher; a teacher that cannot be used is left out where another one can.

    Raises
    ------
    OpdDiagError
        None can be used.
    """
    digests = Digests()
    plans: dict[str, ReplayPlan] = {}
    errors: dict[str, OpdDiagError] = {}
    for model, name in names.items():
        try:
            plan = plan_models(replace(settings, teacher=model, store=_shared(folder, settings)), digests=digests)
            refuse_unfit(_folder(folder, name), plan.run_dir, plan.settings.store)
            plans[name] = plan
        except OpdDiagError as error:
            errors[name] = error
    if not plans:
        raise next(iter(errors.values()))
    return plans, [_left_out(name, error) for name, error in errors.items()]


def _left_out(name: str, error: OpdDiagError) -> Verdict:
    question = f"Can {name} be used as a teacher?"
    return _about(unknown("usable_teacher", question, f"It was left out. {error}", "Mend it, or leave it out."), name)


def _measured(
    plans: dict[str, ReplayPlan], folder: Path, progress: Progress | None, limits: Thresholds
) -> list[_Teacher]:
    """Replay the student against each teacher; hidden states are kept for the pairs of teachers."""
    found: list[_Teacher] = []
    for name, plan in plans.items():
        tell = None if progress is None else partial(_told, progress, name)
        with ExitStack() as stack:
            store = stack.enter_context(open_store(_folder(folder, name), plan.run_dir, plan.settings.store))
            hidden = stack.enter_context(open_store(folder / "replay" / "hidden", plan.run_dir))
            replayed, tables = measured(plan, store, tell, hidden)
        verdicts = judge(tables, step_zero_known=True, thresholds=limits, selftests=replayed.selftests)
        found.append(_Teacher(name, plan, replayed, tables, {v.name: v for v in verdicts}))
    return found


def _told(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def _folder(folder: Path, name: str) -> Path:
    return folder / "replay" / "teachers" / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _shared(folder: Path, settings: Settings) -> str:
    """Give the folder in which the replays find each other's parts: the student samples once."""
    return settings.store or str(folder / "replay" / "shared")


def _lead(attempts: pd.DataFrame, student: str, teacher: str) -> stats.Estimate | None:
    """Give the teacher's accuracy less the student's; None without responses of both that can be graded."""
    both = on_shared_prompts(attempts, (student, teacher))
    return pass_difference(both, student, teacher, 1) if len(both) else None


def _about(verdict: Verdict, *names: str) -> Verdict:
    return replace(verdict, name=f"{verdict.name}[{', '.join(names)}]")


def _of_teacher(teacher: _Teacher) -> list[Verdict]:
    """Give what a report's rules say of one teacher, each with its name in question and evidence."""
    chosen = [teacher.verdicts[name] for name in RULES]
    return [
        replace(_about(v, teacher.name), question=f"{teacher.name}: {v.question}", evidence=_evidence(teacher, v))
        for v in chosen
    ]


def _evidence(teacher: _Teacher, verdict: Verdict) -> str:
    """Add, where answers tell nothing of a capability, what the scores alone say."""
    said = verdict.evidence
    if verdict.name == "new_capability" and verdict.status == "unknown" and math.isnan(verdict.value):
        said += _without_answers(teacher.tables)
    return said


def _without_answers(tables: Tables) -> str:
    """Say what of the teacher lies outside the student's reach, and how much of the KL is temperature alone."""
    rows = tables.summary[(tables.summary["states"] == "on-policy") & (tables.summary["metric"] == "teachable_mass")]
    fits = tables.fits[tables.fits["states"] == "on-policy"]
    told = ""
    if len(rows) and not pd.isna(rows.iloc[0]["value"]):
        k, beyond = int(rows.iloc[0]["k"]), 1 - float(rows.iloc[0]["value"])
        told += f" Of the teacher's mass {beyond:.3f} lies outside the student's top {k}"
    if told and len(fits) and not pd.isna(fits.iloc[0]["explained_share"]):
        told += f", and {float(fits.iloc[0]['explained_share']):.2f} of the reverse KL is temperature alone"
    return f"{told}." if told else ""


Found = tuple[pd.DataFrame, pd.DataFrame, Mapping[str, stats.Estimate | None]]


def _study(found: Sequence[_Teacher], verdicts: list[Verdict], held: Found, limits: Thresholds) -> Study:
    attempts, distances, leads = held
    tables = {
        name: pd.concat([getattr(t.tables, name).assign(teacher=t.name) for t in found], ignore_index=True)
        for name in ("summary", "baselines", "fits")
    }
    items = [item_table(attempts, STUDENT, t.name).assign(teacher=t.name) for t in found if leads[t.name] is not None]
    tables |= {"distances": distances, "attempts": attempts}
    if items:
        tables |= {"pass_at_k": pass_table(attempts), "items": pd.concat(items, ignore_index=True)}
    placed = conditions(tables["summary"], leads)
    pictures = [
        Picture("conditions", "The two conditions", _conditions_reading(placed, limits), partial(
            plots.teaching_conditions, placed, mass=limits.shared_mass, lead=limits.capability_change
        )),
        Picture("distances", "How far apart", _distances_reading(distances, len(found)), partial(
            plots.model_distances, distances
        )),
    ]  # fmt: skip
    if items:
        writers = [STUDENT, *(t.name for t in found)]
        curves = partial(plots.pass_at_k_curves, tables["pass_at_k"], writers)
        pictures.append(Picture("pass_at_k", "Solved with k tries", _pass_reading(tables["pass_at_k"]), curves))
    settings = found[0].plan.settings
    headline, status = _headline(found, verdicts)
    return Study(
        name="teachers",
        question="Which of these teachers will teach this student?",
        headline=headline,
        headline_status=status,
        facts=[*(_fact(t, verdicts, leads[t.name]) for t in found), *_of_pairs(verdicts)],
        subject=found[0].plan.run,
        verdicts=verdicts,
        tables=tables,
        pictures=pictures,
        shown=_shown(found, tables),
        measured=(
            f"{len(found[0].rollouts('on-policy')):,} responses of the student to {len(found[0].plan.prompts)} "
            f"prompts, at most {settings.max_new_tokens} tokens, temperature {settings.temperature:g}, top-p "
            f"{settings.top_p:g}, seed {settings.seed}; every teacher scores the same ones, and writes as many.",
            f"{len(found[0].scores):,} states, k = {settings.k}; intervals are 95 %, over prompts.",
            "Everything is at the student's states but accuracy and pass@k, which are of each model's own responses.",
            *dict.fromkeys(note for t in found for note in t.plan.notes),
        ),
        cannot_tell=(
            "Whether it will be learned: both conditions are necessary, and neither one number nor this table ranks "
            "teachers.",
            "What a teacher knows that these prompts do not ask, and what it does with a student that has moved on.",
            "A lead in accuracy of a teacher with another pattern may never arrive: see the cold-start study.",
        ),
    )


def _headline(found: Sequence[_Teacher], verdicts: Sequence[Verdict]) -> tuple[str, Status]:
    """Say which teachers meet both conditions; of reverse distillation, which would pull the student back."""
    status = {v.name: v.status for v in verdicts}
    names = [t.name for t in found]
    if any(name.startswith("pulled_back[") for name in status):
        back = [name for name in names if status[f"pulled_back[{name}]"] == "fail"]
        if back:
            return f"Would pull the student back: {', '.join(back)}", "fail"
        return "No way back is established", "unknown"
    asked = ("patterns_compatible", "new_capability", "indistinguishable_teacher")
    of = {name: [status[f"{rule}[{name}]"] for rule in asked] for name in names}
    good = [name for name, answers in of.items() if set(answers) == {"pass"}]
    open_ = [name for name, answers in of.items() if "unknown" in answers and "warn" not in answers]
    if good:
        return f"Fits the student and brings something new: {', '.join(good)}", "pass"
    if open_:
        return f"Not established yet whether it fits and brings something new: {', '.join(open_)}", "unknown"
    return "No teacher here both fits and brings something new", "warn"


def _fact(teacher: _Teacher, verdicts: Sequence[Verdict], lead: stats.Estimate | None) -> str:
    """Say of one teacher in one line whether it fits and what it brings."""
    status = {
        v.name.removesuffix(f"[{teacher.name}]"): v.status for v in verdicts if v.name.endswith(f"[{teacher.name}]")
    }
    told = teacher.verdicts
    mass = told["patterns_compatible"]
    kinds = {"pass": "fits", "warn": "thinks in another pattern", "unknown": "may fit or not", "fail": ""}
    parts = [f"{kinds[mass.status]} (shared mass {with_interval(mass.value, mass.ci_low, mass.ci_high)})"]
    if lead is None or math.isnan(lead.value):
        parts.append("its lead is not known without answers")
    else:
        leads = {"pass": "leads the student", "warn": "brings nothing new", "unknown": "its lead is open", "fail": ""}
        span = with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)
        parts.append(f"{leads[told['new_capability'].status]} ({span} in accuracy)")
    if told["indistinguishable_teacher"].status == "warn":
        parts.append("cannot be told from the student")
    if status.get("pulled_back") == "fail":
        parts.append("would pull the student back")
    return f"{teacher.name}: {', '.join(parts)}."


def _of_pairs(verdicts: Sequence[Verdict]) -> list[str]:
    """Say which teachers are one to the student, and which may be."""
    pairs = [v for v in verdicts if v.name.startswith("teachers_alike[") and v.status != "pass"]
    return [v.evidence for v in pairs]


def _shown(found: Sequence[_Teacher], tables: Mapping[str, pd.DataFrame]) -> list[Shown]:
    columns, rows = side_by_side([t.name for t in found], tables, STUDENT)
    shown = [
        Shown(
            title="Teachers at the student's states",
            reading="Compatible are teachers with much shared mass on both sides; something new brings who solves what "
            "the student does not. Chance and shuffled are what the overlaps are without any agreement.",
            columns=columns,
            rows=rows,
        )
    ]
    columns, rows = pairs_beside(tables["distances"])
    if rows:
        shown.append(
            Shown(
                title="Two teachers at a time",
                reading="As a share of their distance from the student, KL is 0 of copies, 2 of teachers that pull at "
                "right angles, 4 of those that pull opposite ways. The teacher-selection score (arXiv 2608.11829) is "
                "above 0 where the first would raise pass@k more; one number of the student's correct and wrong "
                "responses, and no verdict rests on it.",
                columns=columns,
                rows=rows,
            )
        )
    return shown


def _conditions_reading(placed: pd.DataFrame, limits: Thresholds) -> str:
    """Count who stands where."""
    known = placed[placed["lead"].notna()]
    if known.empty:
        return "Without answers no lead is known; further right is more shared mass."
    good = known[(known["mass"] > limits.shared_mass) & (known["lead"] > limits.capability_change)]
    named = ", ".join(good["teacher"]) or "none"
    return f"Upper right is who fits and leads: {named} of {len(known)}."


def _distances_reading(distances: pd.DataFrame, n: int) -> str:
    pairs = distances.iloc[n:]
    if pairs.empty:
        only = distances.iloc[0]
        return f"{only['second']} is {only['symmetric_kl']:.3f} nats from the student."
    nearest = pairs.sort_values("symmetric_kl").iloc[0]
    return (
        f"Nearest are {nearest['first']} and {nearest['second']}, {nearest['symmetric_kl']:.3f} nats apart at the "
        f"student's states; the student is {distances.iloc[:n]['symmetric_kl'].min():.3f} from its nearest teacher."
    )


def _pass_reading(passes: pd.DataFrame) -> str:
    most = int(passes["k"].max())
    last = passes[passes["k"] == most]
    told = [f"{row['label']} {row['value']:.2f}" for _, row in last.iterrows()]
    return f"With {most} {'try' if most == 1 else 'tries'}: {', '.join(told)}."
