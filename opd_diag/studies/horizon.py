"""How long responses may be: how deep the dense signal reaches, where instability starts, what the teacher adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag.errors import InputError, ModelError
from opd_diag.records.answer import is_correct
from opd_diag.records.rollout import Rollout
from opd_diag.replay import Replay, ReplayPlan, Store, measured, open_store
from opd_diag.replay.continuing import Continuing, Grade
from opd_diag.replay.parts import Progress
from opd_diag.replay.planning import default_out, plan_run
from opd_diag.replay.prefixes import MOST_DEPTHS, even_depths, prefixes_of, reached
from opd_diag.studies.horizon_shown import Seen, WentOn, study_of
from opd_diag.studies.outcome import Grader, graded
from opd_diag.studies.study import Study
from opd_diag.tables import Tables
from opd_diag.tables.cohort import OWN, THEIRS, typical_length
from opd_diag.tables.continuations import CONTINUATION_COLUMNS, continuation_table, continued_table
from opd_diag.tables.excess import excess_of
from opd_diag.tables.rows import rows_of
from opd_diag.verdicts.continuing import CONTINUING, continuation_advantage, lost_between
from opd_diag.verdicts.evidence import is_partly_known
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds
from opd_diag.verdicts.unanswered import unknown

KINDS = 3
"""Of prefixes: the student's, the teacher's, filler."""


@dataclass(frozen=True)
class Depths:
    """What is looked at in a study of depth, and how hard."""

    length: int | None = None
    """Tokens of the cohort; default: the median response of the last checkpoint, or of the teacher if shorter."""
    depths: tuple[int, ...] = ()
    """Lengths of the prefixes that are continued; default: five spread over the cohort."""
    continuations: int = 2
    """Of each prefix by each model; 0: none."""
    prompts: int = 64
    """Most prompts whose responses are continued."""

    def __post_init__(self) -> None:
        problems = (
            (self.length is not None and self.length < 3, f"cohort_length must be at least 3, found {self.length}"),
            (
                any(depth < 1 for depth in self.depths),
                f"depths must be at least 1, found {min(self.depths, default=1)}",
            ),
            (self.continuations < 0, f"continuations must be 0 or more, found {self.continuations}"),
            (self.prompts < 1, f"continuation_prompts must be at least 1, found {self.prompts}"),
        )
        for wrong, message in problems:
            if wrong:
                raise InputError(f"Option {message}.")

    def refuse_beyond(self, room: int) -> None:
        """Refuse what no response can reach.

        Raises
        ------
        InputError
            A depth leaves no room for a continuation, or the cohort is longer than responses may be.
        """
        deepest = max(self.depths, default=0)
        if deepest >= room:
            raise InputError(
                f"Option depths: {deepest} leaves no room to go on, as responses end at --max-new-tokens {room}. Name "
                "smaller ones, or raise it as far as the context of both models allows."
            )
        if self.length is not None and self.length > room:
            raise InputError(
                f"Option cohort_length: {self.length} is more than --max-new-tokens {room}, so no response reaches it. "
                "Name a smaller one, or raise that as far as the context of both models allows."
            )


def horizon(
    run_dir: str | Path,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
    grader: Grader | None = None,
    cohort_length: int | None = None,
    depths: Sequence[int] = (),
    continuations: int = 2,
    continuation_prompts: int = 64,
    **options: Any,
) -> Study:
    """Tell how far into a response distillation still teaches, and what follows for its length.

    Parameters
    ----------
    run_dir, out, progress, options
        As :func:`opd_diag.diagnose`; what a report stored in `out` is found.
    thresholds
        What the rules hold values against; a mapping overrides single fields.
    grader
        Grades responses, prefixes with continuations among them; default: by the numbers or words of the reference
        answers.
    cohort_length
        Tokens; every depth tells of the rollouts that have so many. Default: the median response of the last
        checkpoint, or of the teacher where that is shorter.
    depths
        Lengths of the prefixes that are continued; default: five spread over the cohort.
    continuations
        Of each prefix by each model; 0 leaves them out.
    continuation_prompts
        Most prompts whose responses are continued.

    Returns
    -------
    Study
        Verdicts ``depth_signal``, ``instability``, ``continuation_advantage``; tables ``cohort``, ``survivors``,
        ``excess``, ``entropies``, ``continuations`` (:mod:`opd_diag.tables`).

    Raises
    ------
    OpdDiagError
        The run, an option or a model cannot be used; the message says what to do.
    """
    limits = Thresholds.of(thresholds)
    wanted = depths_of(cohort_length, depths, continuations, continuation_prompts)
    plan = plan_horizon(run_dir, wanted, out=out, **options)
    with open_store(default_out(run_dir, out), plan.run_dir, plan.settings.store) as store:
        replayed, tables = measured(plan, store, progress)
        seen = _seen(plan, replayed, tables, wanted)
        went_on = _went_on(seen, store, wanted, limits, _grade(plan, grader), progress)
    return study_of(seen, went_on, limits)


def depths_of(
    cohort_length: int | None, depths: Sequence[int], continuations: int, continuation_prompts: int
) -> Depths:
    """Give what is looked at, from the options of :func:`horizon`, in their order."""
    return Depths(cohort_length, tuple(sorted({int(d) for d in depths})), continuations, continuation_prompts)


def plan_horizon(run_dir: str | Path, wanted: Depths, *, out: str | Path | None = None, **options: Any) -> ReplayPlan:
    """Check all that :func:`horizon` needs; load no weights, write nothing.

    Parameters and errors as there, `wanted` as its four last ones.
    """
    plan = plan_run(run_dir, out=out, **options)
    wanted.refuse_beyond(plan.settings.max_new_tokens)
    if OWN not in plan.settings.states:
        raise InputError(
            "Depth is told on each checkpoint's own states, and they are not scored. Name on-policy in --states."
        )
    return plan


def beyond(plan: ReplayPlan, wanted: Depths) -> list[str]:
    """Say what the study samples beyond its replay, where prefixes are continued; half of it is the teacher's."""
    if not wanted.continuations:
        return []
    prefixes = KINDS * min(wanted.prompts, len(plan.prompts)) * plan.settings.rollouts_per_prompt
    depths = len(wanted.depths) or MOST_DEPTHS
    asked = f"; {prefixes * depths:,} more requests to the teacher" if plan.served else ""
    return [f"at most {2 * prefixes * depths * wanted.continuations:,} continuations of prefixes{asked}"]


def _seen(plan: ReplayPlan, replayed: Replay, tables: Tables, wanted: Depths) -> Seen:
    """Hold what was measured against its controls."""
    states, labels = tables.states, [checkpoint.label for checkpoint in replayed.checkpoints]
    first, last = labels[0], labels[-1]
    length, partly = wanted.length or _length(states, last), is_partly_known(tables)
    signal = [] if partly else [excess_of(states, "reverse_kl", last, length, than=(last, THEIRS))]
    if first != last and not partly:
        signal.append(excess_of(states, "reverse_kl", last, length, than=(first, OWN), control=first))
    entropies = [excess_of(states, "student_entropy", of, length, than=(of, THEIRS)) for of in labels]
    own, theirs = (
        tuple(r for s in replayed.scored if s.checkpoint.label == last and s.states == of for r in s.rollouts)
        for of in (OWN, THEIRS)
    )
    return Seen(
        plan=plan,
        student=replayed.checkpoints[-1],
        states=states,
        labels=labels,
        length=length,
        signal=[excess for excess in signal if excess is not None],
        entropies=[excess for excess in entropies if excess is not None],
        own=own,
        theirs=theirs,
        partly=partly,
    )


def _length(states: pd.DataFrame, last: str) -> int:
    """Give the median response of the last checkpoint, or of the teacher where that is shorter: both must reach it."""
    lengths = [typical_length(rows_of(states, last, of)) for of in (OWN, THEIRS)]
    return min((length for length in lengths if length), default=1)


def _went_on(
    seen: Seen, store: Store, wanted: Depths, limits: Thresholds, grade: Grade, progress: Progress | None
) -> WentOn:
    """Continue prefixes, or say why not."""
    own, theirs = seen.own, seen.theirs
    asked = list(wanted.depths) or even_depths(seen.length)
    depths, counts = reached(own, asked, limits.prompts)
    nothing = pd.DataFrame(columns=CONTINUATION_COLUMNS)
    short = [f"{counts[d]} prompts have responses of {seen.last} beyond {d} tokens" for d in asked if d not in depths]
    reasons = (
        (not wanted.continuations, "Continuations were left out.", "Leave --no-continuations out."),
        (
            not own or not theirs,
            "The on-policy and the teacher states are not both scored.",
            "Name both in --states.",
        ),
        (
            all(p.prompt.answer is None for p in seen.plan.prompts) and not _any_graded(grade, own),
            "The prompts have no reference answers, so no continuation can be graded.",
            "Give 'answer' in the prompts file, or name a grader.",
        ),
        (
            not depths,
            f"Too few prompts: {'; '.join(short) or 'responses are too short'}; {limits.prompts:g} are needed.",
            "Give more prompts, smaller --depths, or more tokens.",
        ),
    )
    for holds, evidence, advice in reasons:
        if holds:
            return WentOn(unknown(*CONTINUING, evidence, advice), nothing)
    settings = seen.plan.settings
    prefixes = prefixes_of(
        own,
        theirs,
        depths[-1],
        most_prompts=wanted.prompts,
        stops=seen.plan.tokenizer.stop_ids,
        seed=settings.seed,
    )
    told = progress or (lambda what, done, total: None)
    continuing = Continuing(seen.plan, store, seen.student, wanted.continuations, grade, told)
    prompts = {prefix.rollout.prompt_index for prefix in prefixes["student"]}
    mine, others = ([r for r in of if r.prompt_index in prompts] for of in (own, theirs))
    try:
        found = continuing.of_nothing(mine, others, prefixes["student"])
        found += continuing.of_prefixes(prefixes, depths)
    except ModelError as error:
        return WentOn(unknown(*CONTINUING, f"Nothing could be continued: {error}", "See the rest."), nothing)
    continued = continued_table(found)
    return WentOn(
        continuation_advantage(continued, limits),
        continuation_table(continued),
        lost_between(continued, limits),
        (
            f"Continued, {wanted.continuations} times by each model: the beginnings of {len(prefixes['student'])} "
            f"responses of {seen.last} and {len(prefixes['teacher'])} of the teacher's to {len(prompts)} prompts, and "
            f"filler, at {', '.join(map(str, depths))} tokens; graded together with what stood there.",
            *(f"Left out: {line}." for line in short),
        ),
    )


def _any_graded(grade: Grade, rollouts: Sequence[Rollout]) -> bool:
    return any(grade(rollout.response_ids, rollout) is not None for rollout in rollouts)


def _grade(plan: ReplayPlan, grader: Grader | None) -> Grade:
    """Give what grades ids: the user's grader, or the rule of the report; each text and answer once."""
    tokenizer = plan.tokenizer
    known: dict[tuple[tuple[int, ...], str | None], bool | None] = {}

    def by_grader(ids: tuple[int, ...], of: Rollout) -> bool | None:
        if grader is None:
            return is_correct(tokenizer.plain_text(ids), of.answer)
        text = tokenizer.text(ids)
        part = replace(of, response_ids=ids, response_text=text, sampled_logprobs=None, generated=None)
        return graded(grader, {i: tokenizer.token(i) for i in {*ids}}, part)

    def grade(ids: Sequence[int], of: Rollout) -> bool | None:
        key = tuple(ids), of.answer
        if key not in known:
            known[key] = by_grader(key[0], of)
        return known[key]

    return grade
