"""Which prompts to train on: scored one by one, chosen with a floor on entropy, and templates or sets held together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag import plots
from opd_diag.errors import InputError
from opd_diag.records.prompt import prompt_records
from opd_diag.records.prompt_files import write_prompt_files
from opd_diag.records.rollout import Rollout
from opd_diag.records.verdict import Verdict
from opd_diag.replay import ReplayPlan
from opd_diag.replay.parts import Progress
from opd_diag.replay.store import refuse_inside, refuse_unfit
from opd_diag.studies.naming import study_folder
from opd_diag.studies.prompts_shown import (
    CANNOT_TELL,
    chosen_shown,
    first_shown,
    groups_shown,
    headline,
    selection_reading,
    set_reading,
    sets_shown,
)
from opd_diag.studies.scored_prompts import (
    OWN_TEMPLATE,
    SELECTION,
    Scored,
    is_graded,
    measure,
    plans_of,
    refuse_own_output,
    same_ids,
    store_folder,
)
from opd_diag.studies.served import folder_in, of_server, refuse_top_k
from opd_diag.studies.study import Picture, Shown, Study
from opd_diag.tables.prompts import Estimates, compared_sets, prompt_table, reliability_table, set_table
from opd_diag.tables.selection import BY, Choice, choose, floor_of, held_out_comparison
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.inputs import OWN_STATES, believed
from opd_diag.verdicts.prompt_sets import set_alignment
from opd_diag.verdicts.prompts import selection_alignment, selection_entropy, selection_groups, selection_lead

OF_WHOLE = "reverse KL and teacher entropy of each prompt, and teachable mass where the student's ids did not come back"
"""What is not known of a teacher whose server returned its top K alone."""

MOST_READ = 6
"""Prompts whose responses are given to be read."""


def prompts(  # noqa: PLR0913 - the options of the contract
    student: str | Path,
    teacher: str | Path,
    prompts: str | Path,
    *,
    select: int | None = None,
    by: str | None = None,
    min_entropy: float | None = None,
    out_of_distribution: float = 0.2,
    templates: Sequence[str | Path] = (),
    against: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
    **options: Any,
) -> Study:
    """Score prompts by how student and teacher agree on them, choose some, and compare templates or sets.

    Parameters
    ----------
    student, teacher
        Folders or hub ids; the teacher may be a server, as ``vllm=http://127.0.0.1:8000``.
    prompts
        Prompts file.
    select
        Prompts to choose; they are written to ``selection/`` of `out`, for TRL, for verl and for opd-diag. None: none.
    by
        Quantity that ranks them, of :data:`~opd_diag.tables.selection.BY`; None: ``teacher_lead`` where prompts have
        answers, else ``reverse_kl_of_response``.
    min_entropy
        Least student entropy of a chosen prompt, in nats; None: the lowest tenth of the prompts is left out.
    out_of_distribution
        Share of the chosen that is drawn at random from the rest, in [0, 1].
    templates
        Files with chat templates (jinja) under which both models see the prompts, each held against the tokenizer's
        own, prompt by prompt.
    against
        Another prompts file. Where both files name the same ids, these are wordings of the same prompts, and are
        compared one by one; else the two are compared as sets.
    out
        Folder for what it rests on, which a second call finds again; default ``opd-diag/prompts/<student name>``.
    progress
        Called with (what is being done, units done, units in all).
    thresholds
        What the rules hold values against; a mapping overrides single fields.
    options
        Fields of :class:`~opd_diag.records.settings.Settings`; `max_prompts` is all of them by default,
        `rollouts_per_prompt` 4. The teacher's responses are sampled where prompts have answers.

    Returns
    -------
    Study
        With `select` the verdicts ``selection_alignment``, ``selection_entropy``, ``selection_lead`` and, where groups
        are named, ``selection_groups``; of each template ``template[name]``; with `against` ``prompt_set``. Tables
        ``prompts``, ``reliability``, and ``held_out`` and ``sets`` where there are such (:mod:`opd_diag.tables`).

    Raises
    ------
    OpdDiagError
        A model, the prompts or an option cannot be used, or the prompts cannot be ranked; the message says what to do.
    """
    limits = Thresholds.of(thresholds)
    folder = study_folder("prompts", student, out)
    choice, plans = plan_prompts(
        *(student, teacher, prompts),
        select=select,
        by=by,
        min_entropy=min_entropy,
        out_of_distribution=out_of_distribution,
        templates=templates,
        against=against,
        out=out,
        **options,
    )
    scored = {name: measure(name, plan, store_folder(folder, name, plans), progress) for name, plan in plans.items()}
    own = next(iter(scored.values()))
    table = prompt_table(own.values)
    tables: dict[str, pd.DataFrame] = {"prompts": table, "reliability": reliability_table(own.values)}
    verdicts: list[Verdict] = []
    pictures: list[Picture] = []
    shown: list[Shown] = []
    notes: list[str] = []
    if choice is not None:
        chosen = choose(table, choice)
        table = tables["prompts"] = table.merge(chosen.drop(columns=["prompt_id", "group"]), on="prompt_index")
        held = held_out_comparison(own.values, choice)
        tables["held_out"] = set_table(held, is_paired=False).rename(
            columns=lambda name: name.replace("first", "others").replace("second", "chosen")
        )
        verdicts += [
            selection_alignment(held, choice, limits),
            selection_entropy(held, choice, limits),
            selection_lead(held, limits),
        ]
        groups = selection_groups(table, limits)
        verdicts += [] if groups is None else [groups]
        floor = floor_of(table, choice)
        pictures.append(
            Picture("selection", "Chosen and left out", selection_reading(table, choice, floor), partial(
                plots.prompt_selection, table, choice.by, floor
            ))
        )  # fmt: skip
        shown += [chosen_shown(held, choice), groups_shown(table), first_shown(table, choice)]
        notes.append(_written(folder, Path(prompts), own.plan, table))
    found = _compared(scored, against, limits, verdicts)
    if found:
        tables["sets"] = pd.concat(
            [set_table(of, is_paired=paired).assign(first_name=one, second_name=two) for one, two, of, paired in found]
        )
        shown.append(sets_shown(found))
        of_sets = {name: prompt_table(s.values) for name, s in scored.items()}
        pictures += [
            Picture(name, title, set_reading(of_sets, name), partial(plots.prompts_by_quantity, of_sets, name))
            for name, title in (("student_overlap_mass", "Student overlap mass"), ("reverse_kl", "Reverse KL"))
        ]
    tests = [test for s in scored.values() for test in s.selftests]
    verdicts = [believed(verdict, tests, OWN_STATES) for verdict in verdicts]
    return Study(
        name="prompts",
        question="Which prompts should this student be taught on?",
        headline=headline(verdicts, choice, len(table), found),
        subject=own.plan.run,
        verdicts=verdicts,
        tables=tables,
        pictures=pictures,
        shown=shown,
        measured=(*_told(scored, tables["reliability"], choice), *notes),
        cannot_tell=CANNOT_TELL,
        excerpts=[] if choice is None else _excerpts(table, own.rollouts),
        excerpts_intro="Responses to chosen prompts: the first in rank, and some drawn from the rest.",
    )


def plan_prompts(  # noqa: PLR0913 - those of the study
    student: str | Path,
    teacher: str | Path,
    prompts: str | Path,
    *,
    select: int | None = None,
    by: str | None = None,
    min_entropy: float | None = None,
    out_of_distribution: float = 0.2,
    templates: Sequence[str | Path] = (),
    against: str | Path | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> tuple[Choice | None, dict[str, ReplayPlan]]:
    """Check all that :func:`prompts` needs; load no weights, write nothing.

    Parameters and errors as there.

    Returns
    -------
    tuple
        How prompts are chosen, None where none are; and one planned replay a set of prompts or template.
    """
    folder = study_folder("prompts", student, out)
    refuse_inside(folder, student, folder_in(teacher))
    refuse_own_output(folder, prompts=prompts, against=against)
    if select is None and not templates and against is None:
        raise InputError(
            "Nothing to do: say how many prompts to choose with --select, or what to compare with --against (prompts) "
            "or --template (a chat template)."
        )
    choice = None
    if select is not None:
        wanted = by or (BY[0] if is_graded(prompts, options) else BY[1])
        choice = Choice(select, wanted, min_entropy, out_of_distribution, int(options.get("seed") or 0))
    plans = plans_of(
        student, teacher, prompts, templates, against, select, options, None if choice is None else choice.by
    )
    _refuse_top_k(next(iter(plans.values())), choice, is_compared=len(plans) > 1)
    for name, plan in plans.items():
        refuse_unfit(store_folder(folder, name, plans), plan.run_dir, plan.settings.store)
    return choice, plans


def _refuse_top_k(plan: ReplayPlan, choice: Choice | None, *, is_compared: bool) -> None:
    """Refuse what reverse KL decides, where a server's top K bounds it from below alone."""
    if choice is not None and choice.by == BY[1]:
        refuse_top_k(plan, f"--by {BY[1]} needs reverse KL", f"Rank by {BY[2]} (--by)")
    if is_compared:
        refuse_top_k(plan, "--template and --against need reverse KL beside the shared mass")


def _compared(
    scored: Mapping[str, Scored], against: str | Path | None, limits: Thresholds, verdicts: list[Verdict]
) -> list[tuple[str, str, Estimates, bool]]:
    """Hold every other set against the first, and add what the rules say."""
    (first, own), *others = scored.items()
    found = []
    for place, (name, other) in enumerate(others):
        is_set = against is not None and place == len(others) - 1
        is_paired = not is_set or same_ids(own.plan, other.plan)
        of = compared_sets(own.values, other.values, is_paired=is_paired)
        rule, in_use = ("prompt_set", first) if is_set else (f"template[{name}]", OWN_TEMPLATE)
        verdicts.append(set_alignment(rule, of, in_use, name, limits, is_paired=is_paired))
        found.append((first, name, of, is_paired))
    return found


def _written(folder: Path, prompts: Path, plan: ReplayPlan, table: pd.DataFrame) -> str:
    """Write the chosen prompts, and say where."""
    records = [record for _, record in prompt_records(prompts)]
    places = table.loc[table["is_chosen"], "prompt_index"].tolist()
    by_index = {p.index: p.prompt for p in plan.prompts}
    names = write_prompt_files(folder / SELECTION, [by_index[i] for i in places], [records[i] for i in places])
    text = "" if "verl.parquet" in names else "; none for verl, which takes chat messages alone"
    return f"The chosen prompts are in {SELECTION}/: {', '.join(names)}{text}. Reasons for every prompt: prompts.csv."


def _told(scored: Mapping[str, Scored], reliability: pd.DataFrame, choice: Choice | None) -> list[str]:
    """Say what was measured."""
    own = next(iter(scored.values()))
    settings = own.plan.settings
    graded = own.values["teacher_accuracy"].notna().any()
    of_teacher = "as many of the teacher, for its accuracy" if graded else "none of the teacher, as nothing is graded"
    lines = [
        f"{len(own.values):,} responses of the student to {len(own.plan.prompts):,} prompts, "
        f"{settings.rollouts_per_prompt} to each, at most {settings.max_new_tokens} tokens, temperature "
        f"{settings.temperature:g}, top-p {settings.top_p:g}, seed {settings.seed}, k = {settings.k}; "
        f"{of_teacher}.",
        "Every number is a mean over responses, each counting alike. Intervals of one prompt are 95 % over its "
        "responses, with one variance for all prompts; all others are 95 % over prompts.",
    ]
    if settings.rollouts_per_prompt == 1:
        lines.append(
            "One response to each prompt: single prompts have no interval, and nothing says how much of their ranking "
            "is chance. Give two or more with --rollouts-per-prompt."
        )
    if choice is not None:
        row = reliability.set_index("quantity").loc[choice.by]
        if pd.notna(row["reliability"]):
            lines.append(
                f"Of the variance of prompts' means of {choice.by.replace('_', ' ')} {row['reliability']:.2f} is a "
                "difference between prompts, the rest chance; prompts are ranked by means drawn toward that of all."
            )
        lines.append(
            "Chosen and other prompts are compared on held-out responses: chosen by one half of the responses to each "
            "prompt, compared by the other half, both ways."
        )
    if own.plan.served is not None:
        lines.append(of_server(own.plan.served, whole=OF_WHOLE))
    cut = float(own.values["truncation_rate"].mean())
    if cut > 0:
        lines.append(f"{cut:.0%} of the student's responses were cut at the limit.")
    return [*lines, *dict.fromkeys(note for s in scored.values() for note in s.plan.notes)]


def _excerpts(table: pd.DataFrame, rollouts: Mapping[str, Sequence[Rollout]]) -> list[Mapping[str, Rollout]]:
    """Give responses of both models to prompts that were chosen, the first in rank and some of the drawn."""
    ranked = table[table["is_chosen"]].sort_values("rank")
    some = [ranked[ranked["outcome"] == outcome]["prompt_index"].head(MOST_READ // 2) for outcome in ("top", "drawn")]
    first = {
        states: {r.prompt_index: r for r in reversed(of)}
        for states, of in rollouts.items()
        if states in ("on-policy", "teacher")
    }
    names = {"on-policy": "student", "teacher": "teacher"}
    return [{names[states]: of[prompt] for states, of in first.items() if prompt in of} for prompt in pd.concat(some)]
