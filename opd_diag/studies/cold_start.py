"""Whether a pair needs a cold start, data for one, and what one did: the student before it and after it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag.errors import InputError
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import settings_from
from opd_diag.records.sft_files import refuse_other_data, write_sft_files
from opd_diag.records.verdict import Verdict
from opd_diag.records.vocabulary import load_vocabulary
from opd_diag.replay import Replay, ReplayPlan, measured, open_store
from opd_diag.replay.lessons import responses_to_teach
from opd_diag.replay.marker import MARKER
from opd_diag.replay.parts import Progress
from opd_diag.replay.planning import plan_models
from opd_diag.replay.store import refuse_inside
from opd_diag.runs.digests import DIGESTS, Digests
from opd_diag.runs.fingerprint import fingerprint
from opd_diag.studies.cold_start_shown import (
    MOST_READ,
    distance_shown,
    excerpts_of,
    left_out_of,
    limits_of,
    measured_of,
    pair_shown,
    pictures_of,
    tokens_shown,
)
from opd_diag.studies.naming import study_folder
from opd_diag.studies.served import folder_in
from opd_diag.studies.study import Study
from opd_diag.tables import Tables
from opd_diag.tables.distance import closed_share, distance_table, token_table
from opd_diag.tables.outcomes import attempt_table, item_table
from opd_diag.tables.sft import lesson_of, sft_table
from opd_diag.tokenization import EncodedPrompt
from opd_diag.verdicts.cold_start import cold_start_effect, cold_start_needed, sft_data
from opd_diag.verdicts.evidence import is_partly_known
from opd_diag.verdicts.inputs import OWN_STATES, WRITTEN, aligned_inputs, believed
from opd_diag.verdicts.outcomes import forgetting
from opd_diag.verdicts.responses import degeneration
from opd_diag.verdicts.task import accuracy
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds

STATES = ("on-policy", "start", "teacher")
AFTER = "cold start"
"""What the student after it is called."""


def cold_start(
    student: str | Path,
    teacher: str | Path,
    prompts: str | Path,
    *,
    after: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
    **options: Any,
) -> Study:
    """Tell whether a pair needs a cold start, write the data for one, and tell what one did.

    Parameters
    ----------
    student, teacher, prompts
        Models, folders or hub ids, and a prompts file; the teacher may be a server, as ``vllm=http://127.0.0.1:8000``.
    after
        The student after a cold start; default: there was none yet.
    out
        Folder that gets ``replay/`` (what all of it rests on) and ``sft/`` (the data); default
        ``opd-diag/cold-start/<student>`` under the working directory.
    progress
        Called with (what is being done, units done, units in all).
    thresholds
        What the rules hold values against; a mapping overrides single fields.
    options
        ``responses``: how many of the teacher's are sampled to be taught, to prompts beyond ``max_prompts`` too;
        default: those that are measured. ``only_correct``: leave out what is not graded as correct. Others: fields of
        :class:`~opd_diag.records.settings.Settings`.

    Returns
    -------
    Study
        Verdicts ``cold_start_needed`` (with `after`: whether more of it is) and ``sft_data``; with `after` also
        ``cold_start_effect``, ``accuracy``, ``degeneration``, ``forgetting``; and ``aligned_inputs`` where it does not
        pass. Tables ``distance``, ``distance_by_token``, ``sft_responses``,
        ``summary``, ``differences`` (:mod:`opd_diag.tables`).

    Raises
    ------
    OpdDiagError
        A model, a file or an option cannot be used; the message says what to do.
    """
    limits = Thresholds.of(thresholds)
    wanted, only_correct = options.get("responses"), bool(options.get("only_correct"))
    folder = study_folder("cold-start", student, out)
    plan = plan_cold_start(student, teacher, prompts, after=after, out=out, **options)
    with open_store(folder / "replay", plan.run_dir, plan.settings.store) as store:
        replayed, tables = measured(plan, store, progress)
        for broken in replayed.broken:
            raise InputError(f"The student after the cold start, {broken.path}, cannot be asked. {broken.blocker}")
        taught = _measured_lessons(plan, replayed)
        if wanted is not None:
            taught = responses_to_teach(plan, store, wanted, progress)
        tokens = load_vocabulary(store.path("vocabulary.json"))
    data, files = _written(folder / "sft", plan, taught, only_correct=only_correct)
    distance = distance_table(tables.states, tables.rollouts)
    by_token = token_table(tables.states, tables.rollouts, tokens)
    labels = [c.label for c in replayed.checkpoints]
    verdicts = _verdicts(tables, replayed, data, labels, limits)
    return Study(
        name="cold-start",
        question="Does this pair need a cold start?" if after is None else "What did the cold start do?",
        headline=_headline(verdicts),
        subject=f"{plan.run} ← {plan.teacher.path.resolve().name}",
        verdicts=verdicts,
        tables={
            "distance": distance,
            "distance_by_token": by_token,
            "sft_responses": data,
            "summary": tables.summary,
            "differences": tables.differences,
        },
        shown=[
            pair_shown(tables, labels, served=plan.served is not None),
            *distance_shown(tables, distance, labels),
            *tokens_shown(by_token, labels),
        ],
        pictures=pictures_of(tables, distance, labels, limits),
        measured=(*measured_of(plan, replayed, data, files), *left_out_of(tables.states)),
        cannot_tell=limits_of(data, only_correct=only_correct, after=after is not None),
        excerpts=excerpts_of(replayed, tables.states),
        excerpts_intro=f"Prompts, {MOST_READ} at most, on which the student is "
        f"{'by its bounds ' if is_partly_known(tables) else ''}furthest from the teacher's response.",
    )


def plan_cold_start(
    student: str | Path,
    teacher: str | Path,
    prompts: str | Path,
    *,
    after: str | Path | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> ReplayPlan:
    """Check all that :func:`cold_start` needs; load no weights, write nothing.

    Parameters and errors as there.
    """
    wanted, only_correct = options.pop("responses", None), bool(options.pop("only_correct", False))
    if wanted is not None and wanted < 1:
        raise InputError(f"Option responses must be at least 1, found {wanted}.")
    for name in sorted({*options} & {"states", "rollouts"}):
        raise InputError(
            f"Option {name} means nothing to a cold start: it scores {', '.join(STATES)}, all sampled here."
        )
    named = {"student": str(student), "teacher": str(teacher), "prompts": str(prompts), "states": STATES}
    settings = settings_from({**options, **named}, {}, None)
    folder = study_folder("cold-start", student, out)
    refuse_inside(folder, student, folder_in(teacher), after)
    written = (folder / "replay" / MARKER, folder / "cold-start.json")
    refuse_other_data(folder / "sft", is_ours=any(os.path.isfile(path) for path in written))
    later = {} if after is None else {AFTER: str(after)}
    plan = plan_models(settings, later, Digests.saved(folder / "replay" / DIGESTS))
    _refuse_equal_models(plan)
    if only_correct and all(prompt.prompt.answer is None for prompt in plan.prompts):
        raise InputError(f"--only-correct needs reference answers, and {prompts} has none. Give 'answer' in it.")
    return plan


def _refuse_equal_models(plan: ReplayPlan) -> None:
    """Refuse a pair of one model: every number would be 0, and be taken for a finding."""
    first, *later = plan.checkpoints
    key = fingerprint(first, plan.digests)
    served = plan.served
    theirs = fingerprint(plan.teacher, plan.digests) if served is None else served.weights_key  # a server tells none
    if theirs == key:
        raise InputError(
            f"Student {first.path} and teacher {plan.teacher.path} are the same weights, so there is nothing to teach. "
            "Name another model with --teacher."
        )
    for checkpoint in later:
        if fingerprint(checkpoint, plan.digests) == key:
            raise InputError(
                f"The student after the cold start, {checkpoint.path}, has the weights of the student before it, "
                f"{first.path}. Name the trained one with --after."
            )


def _measured_lessons(plan: ReplayPlan, replayed: Replay) -> tuple[tuple[EncodedPrompt, ...], tuple[Rollout, ...]]:
    return plan.prompts, next(s.rollouts for s in replayed.scored if s.states == "teacher")


def _written(
    folder: Path,
    plan: ReplayPlan,
    taught: tuple[Sequence[EncodedPrompt], Sequence[Rollout]],
    *,
    only_correct: bool,
) -> tuple[pd.DataFrame, list[str]]:
    """Choose what is taught and write it; give the table of all responses, and the names of the files."""
    prompts = {prompt.index: prompt for prompt in taught[0]}
    kwargs = plan.settings.chat_template_kwargs
    table = sft_table(taught[1], prompts, plan.tokenizer, template_kwargs=kwargs, only_correct=only_correct)
    kept = [rollout for rollout, keep in zip(taught[1], table["kept"], strict=True) if keep]
    lessons = [lesson_of(rollout, prompts[rollout.prompt_index], plan.tokenizer) for rollout in kept]
    return table, [f"sft/{name}" for name in write_sft_files(folder, lessons, template_kwargs=kwargs)]


def _verdicts(
    tables: Tables, replayed: Replay, data: pd.DataFrame, labels: Sequence[str], limits: Thresholds
) -> list[Verdict]:
    tests, again = replayed.selftests, len(labels) > 1
    need = believed(cold_start_needed(tables, limits, again=again), tests, OWN_STATES)
    given = [need, believed(sft_data(data, limits), tests, WRITTEN)]
    if again:
        closed = closed_share(tables.states, labels[0], labels[-1])
        effect = believed(cold_start_effect(tables, limits, closed), tests, OWN_STATES)
        harms = [believed(verdict, tests) for verdict in (accuracy(tables, limits), degeneration(tables, limits))]
        given = [effect, need, *harms, *_forgetting(replayed, labels, limits), given[1]]
    inputs = aligned_inputs(tests)
    return given if inputs.status == "pass" else [*given, inputs]


def _forgetting(replayed: Replay, labels: Sequence[str], limits: Thresholds) -> list[Verdict]:
    """Give the verdict on prompts that are forgotten; none where nothing can be graded."""
    own = {s.checkpoint.label: s.rollouts for s in replayed.scored if s.states == "on-policy"}
    attempts = attempt_table({label: own[label] for label in labels})
    if set(attempts["label"]) != {*labels}:
        return []
    items = item_table(attempts, labels[0], labels[-1])
    return [] if items.empty else [forgetting(items, labels[0], labels[-1], limits)]


def _headline(verdicts: Sequence[Verdict]) -> str:
    """Give the answer in one line."""
    status = {verdict.name: verdict.status for verdict in verdicts}
    need, effect = status["cold_start_needed"], status.get("cold_start_effect")
    harmed = [name for name in ("accuracy", "forgetting", "degeneration") if status.get(name) == "fail"]
    if effect is None:
        said = {"warn": "This pair needs a cold start", "pass": "No cold start is needed"}
        none = ", and the teacher's responses give no data for it" if status["sft_data"] == "fail" else ""
        return said.get(need, "Whether a cold start is needed is not established") + none * (need != "pass")
    done = {
        "pass": "The cold start brought the student nearer to its teacher",
        "warn": "The cold start did little, or came at a price",
        "fail": "The cold start took the student further from its teacher",
    }.get(effect, "What the cold start did is not established")
    if harmed:
        return f"{done}, and the student lost something by it"
    now = {"pass": ", and both now think alike", "warn": ", and they are still far apart"}
    return done + (now.get(need, "") if effect == "pass" else "")
