"""What came of a run at its task: pass@k before and after, prompts solved and forgotten, what of the lead arrived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from opd_diag import plots
from opd_diag.errors import InputError
from opd_diag.records.rollout import Rollout
from opd_diag.records.verdict import Verdict
from opd_diag.records.vocabulary import Token, load_vocabulary
from opd_diag.replay.finished import finished_rollouts
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.studies.study import Picture, Study
from opd_diag.tables.outcomes import attempt_table, item_table, pass_table
from opd_diag.verdicts.outcomes import LEVEL, forgetting, gap_recovered, pass_at_k
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds

Grader = Callable[[str, str | None], bool | None]
"""(response as text without special tokens, reference answer) → whether it is correct, 1 and 0 as True and False; None:
it cannot be told."""


MOST_READ = 5
"""Prompts whose responses are given to be read."""


def outcome(
    out_dir: str | Path,
    *,
    grader: Grader | None = None,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
) -> Study:
    """Tell what came of a run at its task, from the responses that its report left; no model is needed.

    Parameters
    ----------
    out_dir
        Folder of a finished report. pass@k needs k responses to each prompt: ``--rollouts-per-prompt``.
    grader
        Grades responses anew; default: as the report graded them, by the numbers or words of the reference answers.
    thresholds
        What the rules hold values against; a mapping overrides single fields.

    Returns
    -------
    Study
        Verdicts ``pass_at_k``, ``forgetting``, ``gap_recovery``; tables ``attempts``, ``pass_at_k``, ``items``
        (:mod:`opd_diag.tables`).

    Raises
    ------
    StoreError
        The folder holds no finished report.
    InputError
        No response can be graded, there is one checkpoint, or the grader fails.
    """
    limits = Thresholds.of(thresholds)
    folder = Path(out_dir)
    by_writer = finished_rollouts(folder)
    if grader is not None:
        tokens = load_vocabulary(folder / "vocabulary.json")
        by_writer = {
            label: [replace(rollout, is_correct=graded(grader, tokens, rollout)) for rollout in rollouts]
            for label, rollouts in by_writer.items()
        }
    attempts = attempt_table(by_writer)
    labels = [label for label in by_writer if label != TEACHER_LABEL]
    _refuse(folder, labels, attempts)
    first, last = labels[0], labels[-1]
    items = item_table(attempts, first, last)
    passes = pass_table(attempts)
    if items.empty:
        raise InputError(f"{first} and {last} share no prompt whose responses can be graded. Report on both again.")
    shown = [first, last, *([TEACHER_LABEL] if TEACHER_LABEL in set(attempts["label"]) else [])]
    verdicts = [
        pass_at_k(attempts, first, last, limits),
        forgetting(items, first, last, limits),
        gap_recovered(attempts, first, last, TEACHER_LABEL),
    ]
    return Study(
        name="outcome",
        question="What came of the run at its task?",
        headline=_headline(verdicts),
        subject=folder.resolve().name,
        verdicts=verdicts,
        tables={"attempts": attempts, "pass_at_k": passes, "items": items},
        pictures=[
            Picture(
                "pass_at_k",
                "Solved with k tries",
                _pass_reading(passes, shown),
                partial(plots.pass_at_k_curves, passes, shown),
            ),
            Picture(
                "items", "Prompts, first checkpoint to last", _item_reading(items), partial(plots.item_outcomes, items)
            ),
        ],
        measured=_measured(attempts, first, last, items, graded_anew=grader is not None),
        cannot_tell=(
            "Answers are read off the responses: a format that is not understood counts as wrong, and a right number "
            "by a wrong way counts as right.",
            "A prompt that changes sides may do so by chance: only that more do one way than the other, or that one "
            "changes by more than its responses allow, is a finding.",
            "pass@k tells of these prompts, this temperature and this length; what longer responses would solve is not "
            "seen.",
        ),
        excerpts=_fallen(items, by_writer[first], by_writer[last]),
        excerpts_intro=f"Prompts that fell furthest, {MOST_READ} at most: a correct response of {first}, and a wrong "
        f"one of {last}.",
    )


def _fallen(items: pd.DataFrame, before: Sequence[Rollout], after: Sequence[Rollout]) -> list[Mapping[str, Rollout]]:
    """Give responses to the prompts that are forgotten or fell beyond chance, those that fell furthest first."""
    fall = items["first_correct"] / items["first_rollouts"] - items["last_correct"] / items["last_rollouts"]
    fell = (items["outcome"] == "forgotten") | ((fall > 0) & (items["p_adjusted"] < LEVEL))
    furthest = items.assign(fall=fall)[fell].sort_values("fall", ascending=False, kind="stable")["prompt_index"]
    right = {r.prompt_index: r for r in reversed(before) if r.is_correct}
    wrong = {r.prompt_index: r for r in reversed(after) if r.is_correct is False}
    return [{of.provenance.weights: of for of in (right[prompt], wrong[prompt])} for prompt in furthest.head(MOST_READ)]


def graded(grader: Grader, tokens: Mapping[int, Token], rollout: Rollout) -> bool | None:
    """Let a user's grader grade a response.

    Parameters
    ----------
    grader
        The function.
    tokens
        What ids look like, so that special tokens are left out of the text.
    rollout
        The response, as text and ids.

    Raises
    ------
    InputError
        The grader fails, or gives something else than True, False or None.
    """
    text = rollout.response_text
    specials = {tokens[i].text for i in rollout.response_ids if i in tokens and tokens[i].special}
    for special in sorted(specials, key=len, reverse=True):  # one may stand within another
        text = text.replace(special, "")
    try:
        right: object = grader(text, rollout.answer)
    except Exception as error:  # a user's code may raise anything
        raise InputError(
            f"The grader failed on response {rollout.name} of {rollout.provenance.weights}: {type(error).__name__}: "
            f"{error}. It must take any text, and an answer that may be None."
        ) from error
    if right is None:
        return None
    if isinstance(right, (bool, int, float, np.bool_, np.integer, np.floating)) and right in (0, 1):
        return bool(right)
    raise InputError(f"The grader must give True, False or None, found {right!r:.80} for {rollout.name}.")


def _refuse(folder: Path, labels: Sequence[str], attempts: pd.DataFrame) -> None:
    if len(labels) < 2:
        raise InputError(
            f"{folder} has responses of {' and '.join(labels) or 'no checkpoint'} alone: an outcome needs a first and "
            "a last checkpoint. Report with --student, the initial student."
        )
    if attempts.empty:
        raise InputError(
            f"No response in {folder} can be graded: its prompts have no reference answers. Give 'answer' in the "
            "prompts file and report again, or name a grader."
        )


def _headline(verdicts: Sequence[Verdict]) -> str:
    """Give the answer in one line: losses first, then gains, then what is kept."""
    status = {verdict.name: verdict.status for verdict in verdicts}
    if "fail" in status.values():
        return "The student lost something that it could do"
    if status["forgetting"] == "warn":
        return "Some prompts are forgotten beyond chance"
    if any(verdict.ci_low > 0 for verdict in verdicts):
        return "The student got better at its task, and nothing shows that it forgets"
    if status["pass_at_k"] == status["forgetting"] == "pass":
        return "At its task nothing was lost, and no gain is established"
    return "What came of it at its task is not established yet"


def _pass_reading(passes: pd.DataFrame, shown: Sequence[str]) -> str:
    ends = passes.groupby("label", sort=False)["value"].agg(["first", "last"]).loc[list(shown)]
    most = int(passes["k"].max())
    told = [f"{label} {of['first']:.2f} → {of['last']:.2f}" for label, of in ends.iterrows()]
    return f"From one try to {most}: {', '.join(told)}." if most > 1 else f"With one try: {', '.join(told)}."


def _item_reading(items: pd.DataFrame) -> str:
    counts = items["outcome"].value_counts()
    kept, solved, lost, never = (int(counts.get(name, 0)) for name in ("kept", "solved", "forgotten", "unsolved"))
    return f"Of {len(items)} prompts {kept} stay solved, {solved} are new, {lost} forgotten, {never} never solved."


def _measured(
    attempts: pd.DataFrame, first: str, last: str, items: pd.DataFrame, *, graded_anew: bool
) -> tuple[str, ...]:
    per = attempts["n_rollouts"]
    each = str(per.min()) if per.min() == per.max() else f"{per.min()} to {per.max()}"
    how = "graded by your grader" if graded_anew else "graded by their reference answers"
    return (
        f"{int(per.sum()):,} responses, {each} to each prompt, {how}.",
        f"{first} and {last} are held against each other on the {len(items)} prompts that both have.",
        "Intervals are 95 %, over prompts.",
    )
