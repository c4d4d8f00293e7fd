"""Runs side by side: how they went, where they end, and whether that is more than chance."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag import plots, stats
from opd_diag.errors import InputError
from opd_diag.plots.steps import MAIN_METRICS
from opd_diag.records.verdict import Verdict
from opd_diag.replay.finished import finished_summary
from opd_diag.stats.rounding import between, known_between, number, with_interval
from opd_diag.studies.naming import distinct_names
from opd_diag.studies.study import Picture, Shown, Study
from opd_diag.tables.catalogue import BY_NAME, ESTIMATE, PRIMARY_NAMES
from opd_diag.tables.comparison import ACCURACY, Side, comparison_table
from opd_diag.tables.coverage import slug_of
from opd_diag.tables.stored import load_state_set
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.comparison import WHERE, runs_differ, settled

ASKED = ((ACCURACY, "on-policy"), ("reverse_kl", "on-policy"), ("reverse_kl", "start"), ("forward_kl", "teacher"))
"""What verdicts ask of two runs: the task, own states, equal states, and whether the teacher is covered. Of a reverse
KL that a server leaves between bounds the estimate is asked, where there is one."""


@dataclass(frozen=True)
class _Run:
    name: str
    folder: Path
    summary: pd.DataFrame
    side: Side
    last: str
    teacher: str
    k: int


def compare(out_dirs: Sequence[str | Path], *, thresholds: Thresholds | Mapping[str, float] = DEFAULTS) -> Study:
    """Hold finished reports against each other; no model is needed. The first run is what the others are held against.

    Parameters
    ----------
    out_dirs
        Folders of two or more finished reports, of runs or of one run with other teachers or options.
    thresholds
        What the rule holds values against; a mapping overrides single fields.

    Returns
    -------
    Study
        Verdicts ``runs_differ``, whose brackets name metric, state set and run; tables ``differences``
        (:mod:`opd_diag.tables`) and ``summary``, the summaries of all runs.

    Raises
    ------
    StoreError
        A folder holds no finished report, or a file in it is damaged.
    InputError
        There are fewer than two folders, one is named twice, or the reports share no state set.
    """
    limits = Thresholds.of(thresholds)
    runs = _runs([Path(os.path.expanduser(folder)) for folder in out_dirs])
    first = runs[0]
    metrics = [*PRIMARY_NAMES, *([ESTIMATE] if any(map(_has_bounds, runs)) else [])]
    table = pd.concat([comparison_table(first.side, run.side, metrics) for run in runs[1:]], ignore_index=True)
    if table.empty:
        raise InputError("These reports share no state set. Report on all of them with the same --states.")
    asked = _asked(table)
    verdicts = [_verdict(row, limits) for _, row in asked.iterrows()]
    teachers = list(dict.fromkeys(run.teacher for run in runs))
    told = [v.evidence for v in verdicts]
    summaries = {run.name: run.summary for run in runs}
    return Study(
        name="compare",
        question="How do these runs differ?",
        headline=_headline(asked, limits, own_teachers=len(teachers) > 1),
        compares=True,
        headline_status="pass" if any(v.status == "pass" for v in verdicts) else "unknown",
        facts=[
            *([f"{_other('teachers', teachers)}; each distance is to its own."] if len(teachers) > 1 else []),
            *told,
        ],
        subject=" and ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs",
        verdicts=verdicts,
        tables={
            "differences": table,
            "summary": pd.concat([s.assign(run=name) for name, s in summaries.items()], ignore_index=True),
        },
        pictures=_pictures(summaries),
        shown=[_ends(table, states, runs) for states in dict.fromkeys(table["states"])],
        measured=(
            *(
                f"{run.name}: {run.last} against {run.teacher}, k = {run.k}, "
                f"{len({r.prompt_text for r in next(iter(run.side.rollouts.values()))})} prompts."
                for run in runs
            ),
            "Differences are at the last checkpoint of each run, paired on the prompts that both answered where there "
            "are such; intervals are 95 %, over prompts; p-values of what verdicts ask are held together (Holm).",
            *_unlike(runs),
        ),
        cannot_tell=(
            "Each run is one seed: another seed of either would differ, and nothing here tells by how much.",
            "Own states are other states in each run; equal ones are the start's and the teacher's, where the same "
            "prompts and the same models wrote them.",
            "Runs of other lengths are compared at their ends, not at equal steps.",
        ),
    )


def _runs(folders: Sequence[Path]) -> list[_Run]:
    if len(folders) < 2:
        raise InputError(f"Expected two or more folders of finished reports, found {len(folders)}. Name another.")
    real = [os.path.realpath(folder) for folder in folders]
    for folder, place in zip(folders, real, strict=True):
        if real.count(place) > 1:
            raise InputError(f"Report {folder} is named twice. Name each folder once.")
    return [_run(name, folder) for name, folder in zip(distinct_names(real), folders, strict=True)]


def _run(name: str, folder: Path) -> _Run:
    summary = finished_summary(folder)
    own = summary[summary["states"].isin(WHERE)]
    if own.empty:
        raise InputError(f"{folder} has no state set that can be compared. Report on it with the default --states.")
    last = str(own["label"].iloc[-1])
    at = own[own["label"] == last]
    found = {str(s): load_state_set(folder, slug_of(last, at), str(s)) for s in dict.fromkeys(at["states"])}
    side = Side(name, {s: table for s, (table, _) in found.items()}, {s: of for s, (_, of) in found.items()})
    return _Run(name, folder, summary, side, last, str(at["teacher"].iloc[0]), int(at["k"].dropna().iloc[0]))


def _asked(table: pd.DataFrame) -> pd.DataFrame:
    """Give the rows that verdicts ask about, with p-values held together over all of them."""
    chosen = [table[(table["metric"] == metric) & (table["states"] == states)] for metric, states in ASKED]
    rows = pd.concat([_estimated(of, table) for of in chosen], ignore_index=True)
    return rows.assign(p_adjusted=stats.holm(rows["p_value"]))


def _estimated(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put estimates in the place of reverse KL that is known between bounds alone."""
    if rows.empty or rows["metric"].iloc[0] != "reverse_kl":
        return rows
    same = table[(table["metric"] == ESTIMATE) & (table["states"] == rows["states"].iloc[0]) & table["value"].notna()]
    bounded = rows["value"].isna() & rows["second"].isin(same["second"])
    return pd.concat([rows[~bounded], same[same["second"].isin(rows.loc[bounded, "second"])]], ignore_index=True)


def _has_bounds(run: _Run) -> bool:
    of = run.summary[run.summary["metric"] == "reverse_kl"]
    return "bound_low" in of and bool(of["bound_low"].notna().any())


def _verdict(row: pd.Series, limits: Thresholds) -> Verdict:
    verdict = runs_differ(row, limits, float(row["p_adjusted"]))
    return replace(verdict, name=f"{verdict.name}[{row['metric']}, {row['states']}, {row['second']}]")


def _headline(rows: pd.DataFrame, limits: Thresholds, *, own_teachers: bool) -> str:
    """Say the first difference that is established, the task before the distances."""
    answers = [(row, *settled(row, limits, float(row["p_adjusted"]))) for _, row in rows.iterrows()]
    for row, status, how in answers:
        if status == "pass" and not how.startswith("no difference"):
            where = "" if row["metric"] == ACCURACY else f" on {WHERE[row['states']]}"
            name = BY_NAME[row["metric"]].title if row["metric"] in BY_NAME else "Accuracy"
            each = ", each held against its own teacher" if own_teachers and row["metric"] != ACCURACY else ""
            return f"{name}{where}: {how}{each}"
    if answers and all(status == "pass" for _, status, _ in answers):
        return "The runs end alike"
    return "No difference between the runs is established"


def _pictures(summaries: Mapping[str, pd.DataFrame]) -> list[Picture]:
    everything = pd.concat(summaries.values(), ignore_index=True)
    wanted: list[tuple[str, str]] = [(ACCURACY, "on-policy")] if ACCURACY in set(everything["metric"]) else []
    wanted += [(metric, "on-policy") for metric in MAIN_METRICS]
    wanted += [(ESTIMATE, "on-policy")] if everything["bound_low"].notna().any() else []
    wanted += [("reverse_kl", "start"), ("forward_kl", "teacher")]
    pictures = []
    for metric, states in wanted:
        rows = everything[(everything["metric"] == metric) & (everything["states"] == states)]
        if rows["value"].notna().any():
            where = "" if metric == ACCURACY else f", {WHERE[states]}"
            draw = partial(plots.runs_by_step, summaries, metric, states=states)
            name = BY_NAME[metric].title if metric in BY_NAME else "Accuracy"
            pictures.append(Picture(f"{metric}-{states}", f"{name}{where}", _course(summaries, metric, states), draw))
    return pictures


def _course(summaries: Mapping[str, pd.DataFrame], metric: str, states: str) -> str:
    told = []
    for name, summary in summaries.items():
        rows = summary[(summary["metric"] == metric) & (summary["states"] == states)]
        values = rows["value"].dropna().astype(float)
        if len(values):
            told.append(f"{name} {number(values.iloc[0], 3)} → {number(values.iloc[-1], 3)}")
    return f"First to last checkpoint: {', '.join(told)}."


def _ends(table: pd.DataFrame, states: str, runs: Sequence[_Run]) -> Shown:
    """Put the last checkpoints beside each other: values, and each run less the first."""
    of = table[table["states"] == states]
    rows = []
    for metric in dict.fromkeys(of["metric"]):
        lines = of[of["metric"] == metric]
        name = BY_NAME[metric].title if metric in BY_NAME else "Accuracy"
        known = lines["first_value"].dropna()
        cells = [name, number(known.iloc[0] if len(known) else math.nan, 3)]
        for run in runs[1:]:
            line = lines[lines["second"] == run.name]
            cells += [_value(line, "second_value"), _span(line)]
        rows.append(cells)
    heads = [head for run in runs[1:] for head in (run.name, f"{run.name} less {runs[0].name}")]
    return Shown(
        title=f"Last checkpoints, {WHERE[states]}",
        reading="Values are over the prompts that the difference is about; its interval is 95 %, over prompts.",
        columns=["", runs[0].name, *heads],
        rows=rows,
    )


def _value(line: pd.DataFrame, column: str) -> str:
    return "–" if line.empty else number(line.iloc[0][column], 3)


def _span(line: pd.DataFrame) -> str:
    if line.empty:
        return "–"
    row: Any = line.iloc[0]
    if known_between(row):
        return between(row["bound_low"], row["bound_high"], signed=True)
    return with_interval(row["value"], row["ci_low"], row["ci_high"], signed=True)


def _unlike(runs: Sequence[_Run]) -> list[str]:
    """Say in what the reports are not alike, so that nobody takes it for a difference of the runs."""
    told = []
    for what, values in (("teachers", [r.teacher for r in runs]), ("k", [str(r.k) for r in runs])):
        if len(set(values)) > 1:
            told.append(f"{_other(what, values)}.")
    return told


def _other(what: str, values: Sequence[str]) -> str:
    return f"They have other {what}: {', '.join(dict.fromkeys(values))}"
