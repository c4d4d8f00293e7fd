"""What the study of teachers shows: their numbers side by side, and where each stands on the two conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.replay.served import Served
from opd_diag.stats.rounding import between, with_interval
from opd_diag.studies.study import Shown
from opd_diag.studies.teachers_beside import known_of, pairs_beside, side_by_side
from opd_diag.verdicts.teachers import HERE_ADVICE

BEFORE = "before"
"""How the student's own past is called."""

STUDENT = "the student"
"""How tables and pictures call it."""

OWN = "on-policy"


def conditions(summary: pd.DataFrame, leads: Mapping[str, stats.Estimate | None]) -> pd.DataFrame:
    """Give where teachers stand: the lower of both overlap masses, and the lead in accuracy, with their intervals."""
    rows = []
    for name, lead in leads.items():
        of = summary[
            (summary["teacher"] == name)
            & (summary["states"] == OWN)
            & summary["metric"].isin(["student_overlap_mass", "teacher_overlap_mass"])
        ]
        lower = of.sort_values("value").iloc[0]
        known = lead or stats.Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
        rows.append(
            {
                "teacher": name,
                "mass": float(lower["value"]),
                "mass_ci_low": float(lower["ci_low"]),
                "mass_ci_high": float(lower["ci_high"]),
                "lead": known.value,
                "lead_ci_low": known.ci_low,
                "lead_ci_high": known.ci_high,
            }
        )
    return pd.DataFrame(rows)


def headline_of(names: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[str, Status]:
    """Say which teachers meet both conditions; of reverse distillation, which would pull the student back."""
    status = {v.name: v.status for v in verdicts}
    if any(name.startswith("pulled_back[") for name in status):
        asked_of = [name for name in names if name != BEFORE] or names  # its own past is the way back itself
        of_back = {name: status[f"pulled_back[{name}]"] for name in asked_of}
        back = [name for name, answer in of_back.items() if answer == "fail"]
        if back:
            return f"Would pull the student back: {', '.join(back)}", "fail"
        if set(of_back.values()) == {"pass"}:
            return f"Would not pull the student back: {', '.join(of_back)}", "pass"
        return "Not established who would pull the student back", "unknown"
    asked = ("patterns_compatible", "new_capability", "indistinguishable_teacher")
    of = {name: [status[f"{rule}[{name}]"] for rule in asked] for name in names}
    good = [name for name, answers in of.items() if set(answers) == {"pass"}]
    open_ = [name for name, answers in of.items() if "unknown" in answers and "warn" not in answers]
    if good:
        return f"Fits the student and brings something new: {', '.join(good)}", "pass"
    if open_:
        return f"Not established yet whether it fits and brings something new: {', '.join(open_)}", "unknown"
    return "No teacher here both fits and brings something new", "warn"


def facts_of(
    judged: Mapping[str, Mapping[str, Verdict]],
    verdicts: Sequence[Verdict],
    leads: Mapping[str, stats.Estimate | None],
    served: Mapping[str, Served],
) -> list[str]:
    """Say of each teacher in one line whether it fits and what it brings; then which of them are one to the student."""
    back = {v.name for v in verdicts if v.name.startswith("pulled_back[") and v.status == "fail"}
    told = []
    for name, of in judged.items():
        called = f"{name} ({known_of(served[name])})" if name in served else name
        told.append(f"{called}: {_fact(of, leads[name], f'pulled_back[{name}]' in back)}.")
    of_pairs = [v for v in verdicts if v.name.startswith("teachers_alike[") and v.status != "pass"]
    pairs = [v.evidence for v in of_pairs if v.advice != HERE_ADVICE]
    if len(pairs) < len(of_pairs):
        pairs.append(
            "Whether two teachers are one to the student is not known where one of them stands behind a server."
        )
    return [*told, *pairs, *(v.evidence for v in verdicts if v.name.startswith("usable_teacher["))]


def _fact(judged: Mapping[str, Verdict], lead: stats.Estimate | None, back: bool) -> str:
    mass, capability = judged["patterns_compatible"], judged["new_capability"]
    kinds = {"pass": "fits", "warn": "thinks in another pattern", "unknown": "may fit or not", "fail": ""}
    parts = [f"{kinds[mass.status]} (shared mass {with_interval(mass.value, mass.ci_low, mass.ci_high)})"]
    if math.isnan(capability.value) or lead is None:
        cut = "were cut" in capability.evidence
        parts.append(f"its lead is not known{', as responses were cut' if cut else ' without answers'}")
    else:
        leads = {"pass": "leads the student", "warn": "brings nothing new", "unknown": "its lead is open", "fail": ""}
        span = with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)
        parts.append(f"{leads[capability.status]} ({span} in accuracy)")
    if judged["indistinguishable_teacher"].status == "warn":
        parts.append("cannot be told from the student")
    return ", ".join([*parts, *(["would pull the student back"] if back else [])])


def shown_tables(
    names: Sequence[str], tables: Mapping[str, pd.DataFrame], student: str, served: Mapping[str, Served]
) -> list[Shown]:
    """Give the tables of the page: teachers side by side, and every two of them; `served` by name."""
    columns, rows = side_by_side(names, tables, student, served)
    partly = any(not of.whole for of in served.values())
    bounds = " Of a teacher, “a to b” and “at least a” are bounds: the truth lies there for certain." * partly
    shown = [
        Shown(
            title="Teachers at the student's states",
            reading="Compatible are teachers with much shared mass on both sides; something new brings who solves what "
            f"the student does not. Chance and shuffled are what the overlaps are without any agreement.{bounds}",
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


def conditions_reading(placed: pd.DataFrame, judged: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Say who is established to fit and to lead."""
    if placed["lead"].isna().all():
        return "Without answers no lead is known; further right is more shared mass."
    asked = ("patterns_compatible", "new_capability")
    good = [name for name, of in judged.items() if all(of[rule].status == "pass" for rule in asked)]
    return f"Upper right is who fits and leads; established of {', '.join(good) or 'none'}, of {len(placed)}."


def distances_reading(distances: pd.DataFrame, n: int) -> str:
    """Say who is nearest to whom; the first `n` rows are of the student."""
    own, pairs = distances.iloc[:n], distances.iloc[n:]
    partly = own[own["symmetric_kl"].isna()]
    known = pairs[pairs["symmetric_kl"].notna()].sort_values("symmetric_kl")
    if len(partly):
        told = [f"{row['second']} {between(row['bound_low'], row['bound_high'])}" for _, row in partly.iterrows()]
        return f"From the student, in nats: {', '.join(told)}, as a top K leaves no upper bound."
    if known.empty:
        told = [f"{row['second']} is {row['symmetric_kl']:.3f}" for _, row in own.iterrows()]
        return f"{', '.join(told)} nats from the student."
    nearest = known.iloc[0]
    return (
        f"Nearest are {nearest['first']} and {nearest['second']}, {nearest['symmetric_kl']:.3f} nats apart at the "
        f"student's states; the student is {own['symmetric_kl'].min():.3f} from its nearest teacher."
    )


def pass_reading(passes: pd.DataFrame) -> str:
    """Say what each solves with as many tries as there are."""
    most = int(passes["k"].max())
    last = passes[passes["k"] == most]
    told = [f"{row['label']} {row['value']:.2f}" for _, row in last.iterrows()]
    return f"With {most} {'try' if most == 1 else 'tries'}: {', '.join(told)}."
