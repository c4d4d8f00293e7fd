"""How responses end: the stop tokens of both models, and responses that lack theirs or go on after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import Outcome, SelfTest
from opd_diag.replay.selftests.kept import Ints, Kept
from opd_diag.replay.selftests.limits import ODD_ENDS
from opd_diag.tokenization import Tokenizer

NAME = "ends"


def ends_of_responses(
    writer: str, rollouts: Sequence[Rollout], stop_ids: Sequence[int], tokenizer: Tokenizer
) -> SelfTest:
    """Ask whether responses end as their stop reason says, and whether padding counts as states.

    Parameters
    ----------
    writer
        How messages call who wrote them.
    rollouts
        Whole responses.
    stop_ids
        Ids that end a response of this writer.
    tokenizer
        To know padding, and to show ids as text.

    Returns
    -------
    SelfTest
        Its value is the number of responses with the commonest fault, its threshold how many may have it: one, or
        `ODD_ENDS` of those that could. Responses from stripped text are left out: their ends are not known.
    """
    if not stop_ids:
        why = f"{writer} has no stop token, by its generation settings and tokenizer."
        return SelfTest(NAME, writer, "unknown", math.nan, 0.0, why, "Save generation_config.json with the model.")
    whole = [r for r in rollouts if r.exactness != "text-stripped"]
    n_stripped = len(rollouts) - len(whole)
    left_out = f" The ids of {n_stripped} more are from stripped text, their ends not known." if n_stripped else ""
    if not whole:
        why = f"The ids of all {n_stripped} responses of {writer} are from stripped text: their ends are not known."
        return SelfTest(NAME, writer, "unknown", math.nan, 0.0, why, "Record response ids, not text.")
    shown = ", ".join(f"{i} ({tokenizer.text([i])!r})" for i in sorted({*stop_ids}))
    odd = [fault for fault in _faults(whole, {*stop_ids}, tokenizer) if fault.found]
    wrong = [fault for fault in odd if len(fault.found) > fault.allowed]
    told = "; ".join(
        f"{len(fault.found)} of {len(whole)} responses of {writer} {fault.words} "
        f"(…{tokenizer.text(fault.found[0].response_ids[-4:])!r})"
        for fault in wrong or odd
    )
    most = max(wrong or odd, key=lambda fault: len(fault.found), default=None)
    value, limit = (float(len(most.found)), float(most.allowed)) if most else (0.0, 1.0)
    if not wrong:
        stopped = sum(r.stop_reason == "stop" for r in whole)
        said = f"{stopped} of {len(whole)} responses of {writer} stopped, "
        said += (
            f"too few oddly to matter: {told} (stop tokens: {shown})." if odd else f"all with a stop token ({shown})."
        )
        return SelfTest(NAME, writer, "pass", value, limit, said + left_out, "")
    advice = (
        f"Record response ids with their stop token ({shown}) and nothing after it; mark what the student did not "
        "write in 'generated'."
    )
    return SelfTest(NAME, writer, "fail", value, limit, f"{told}.{left_out}", advice)


@dataclass(frozen=True)
class _Fault:
    words: str
    found: Sequence[Rollout]
    of: int
    """Responses that could have it."""

    @property
    def allowed(self) -> int:
        return max(1, int(ODD_ENDS * self.of))


def _faults(rollouts: Sequence[Rollout], stops: set[int], tokenizer: Tokenizer) -> list[_Fault]:
    """Ask each response each question; of what is about one stop reason, only those that give it count."""
    pad = tokenizer.hf.pad_token_id
    padding = set() if pad is None or pad in stops else {pad}
    limits = _limits(rollouts, stops)
    questions: list[tuple[str | None, Callable[[Rollout], bool], str]] = [
        ("stop", lambda r: not _last(r) & stops, "stopped, but lack the stop token"),
        ("length", lambda r: bool(_last(r) & stops), "count as cut, but end with a stop token"),
        ("unknown", lambda r: _ends_nowhere(r, stops, limits), "end neither with a stop token nor at a limit"),
        (None, lambda r: _counts_after(r, stops), "count tokens after the stop token as states"),
        (None, lambda r: _counts_padding(r, padding), "count padding as states"),
    ]
    faults = []
    for reason, is_wrong, words in questions:
        asked = [r for r in rollouts if reason in (None, r.stop_reason)]
        faults.append(_Fault(words, [r for r in asked if is_wrong(r)], len(asked)))
    return faults


def ends_of_models(
    student_stops: Sequence[int],
    teacher_stops: Sequence[int],
    of_teacher: Kept | None,
    tokens: Ints,
    tokenizer: Tokenizer,
) -> SelfTest:
    """Ask whether both models stop by the same tokens; where they do not, which one the teacher prefers.

    Parameters
    ----------
    student_stops, teacher_stops
        Ids that end a response, by generation settings and tokenizer of each.
    of_teacher
        The teacher's side of the scores of some whole responses; None where none ended.
    tokens
        (N,) sampled tokens.
    tokenizer
        To show ids as text.

    Returns
    -------
    SelfTest
        Its value is the share of ends at which the teacher finds another stop token more probable than those that the
        student knows; more than half is a warning, as both are scored at the same tokens whatever stops them.
    """
    pair = "student and teacher"
    ours, theirs = {*student_stops}, {*teacher_stops}
    texts = [", ".join(f"{i} ({tokenizer.text([i])!r})" for i in sorted(s)) or "none" for s in (ours, theirs)]
    if ours == theirs:
        said = f"Student and teacher stop by the same tokens: {texts[0]}."
        return SelfTest(NAME, pair, "pass", 0.0, 0.5, said, "")
    differ = f"The student stops by {texts[0]}, the teacher by {texts[1]}"
    at_ends = np.flatnonzero(np.isin(tokens, [*ours | theirs]))
    if of_teacher is None or not len(at_ends):
        return SelfTest(
            NAME,
            pair,
            "unknown",
            math.nan,
            0.5,
            f"{differ}; no response ended, so which one counts is not seen.",
            _ADVICE,
        )
    common, other = (_best(of_teacher, at_ends, ids) for ids in (ours, theirs - ours))
    share = float((other > common).mean())
    status: Outcome = "warn" if share > 0.5 else "pass"
    said = f"{differ}; at {share:.0%} of {len(at_ends)} ends the teacher prefers one that the student does not know."
    return SelfTest(NAME, pair, status, share, 0.5, said, "" if status == "pass" else _ADVICE)


_ADVICE = (
    "Give both models the same stop tokens in generation_config.json: a student that learns another model's stop token "
    "does not stop at it."
)


def _last(rollout: Rollout) -> set[int]:
    """Give the last token that the student wrote, if any: padding may follow it, where it does not count."""
    return {rollout.response_ids[at] for at in rollout.state_positions[-1:]}


def _lacks(rollout: Rollout, stops: set[int]) -> bool:
    """Tell whether nobody says why a response ended, and its own last token is no stop token."""
    return rollout.stop_reason == "unknown" and bool(rollout.state_positions) and not _last_own(rollout) & stops


def _lengths(rollout: Rollout) -> tuple[int, int]:
    n = len(rollout.response_ids)
    return n, n + len(rollout.prompt_ids)


def _limits(rollouts: Sequence[Rollout], stops: set[int]) -> tuple[int, int]:
    """Give the most tokens of a response, and with its prompt, of those that lack a stop token: they were cut."""
    lengths = [_lengths(r) for r in rollouts if _lacks(r, stops)]
    return max((own for own, _ in lengths), default=0), max((whole for _, whole in lengths), default=0)


def _ends_nowhere(rollout: Rollout, stops: set[int], limits: tuple[int, int]) -> bool:
    """Tell whether a response lacks its stop token and was not cut: others of its kind went on for longer."""
    own, whole = _lengths(rollout)
    return _lacks(rollout, stops) and own < limits[0] and whole < limits[1]


def _last_own(rollout: Rollout) -> set[int]:
    return {rollout.response_ids[rollout.state_positions[-1]]}


def _counts_after(rollout: Rollout, stops: set[int]) -> bool:
    """Tell whether the token right after a stop token is a state; tool output may follow one, and does not count."""
    states = {*rollout.state_positions}
    return any(i in stops and at + 1 in states for at, i in enumerate(rollout.response_ids))


def _counts_padding(rollout: Rollout, ids: set[int]) -> bool:
    """Tell whether the last two tokens are padding, and states: a model may well draw a padding token once."""
    n = len(rollout.response_ids)
    return n > 1 and {n - 2, n - 1} <= {*rollout.state_positions} and {*rollout.response_ids[-2:]} <= ids


def _best(kept: Kept, rows: np.ndarray, ids: set[int]) -> np.ndarray:
    """Give the highest log-probability of any of the ids at some states; -inf where none is kept."""
    hit = np.isin(kept.ids[rows], [*ids])
    best: np.ndarray = np.where(hit, kept.logprobs[rows], -np.inf).max(1)
    return best
