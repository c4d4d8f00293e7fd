"""Faults of a record: ids, ends and log-probabilities that are not what the model wrote."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from opd_diag.lab.faults.case import Case
from opd_diag.lab.faults.files import name_bos
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.records.rollout import Rollout, load_rollouts, save_rollouts


def shift_logprobs(case: Case, seed: int) -> None:
    """Record each log-probability beside the token after the one that it belongs to."""

    def shifted(rollout: Rollout) -> Rollout:
        logprobs = rollout.sampled_logprobs or ()
        return replace(rollout, sampled_logprobs=(math.nan, *logprobs[:-1]))

    _change_each(case, shifted)


def drop_last_token(case: Case, seed: int, *, says_stop: bool = True, of_teacher: bool = True) -> None:
    """Strip the stop token of responses that have one, as text without special tokens does.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    says_stop
        Whether the record still says that they stopped; else it tells nothing.
    of_teacher
        Whether the teacher's responses are stripped too.
    """

    def stripped(rollout: Rollout) -> Rollout:
        if rollout.stop_reason != "stop" or (rollout.provenance.step is None and not of_teacher):
            return rollout
        return replace(_part(rollout, slice(0, -1)), stop_reason="stop" if says_stop else "unknown")

    _change_each(case, stripped)


def drop_first_token(case: Case, seed: int) -> None:
    """Cut the first token off each response, as a slice that begins one too late does."""
    _change_each(case, lambda rollout: _part(rollout, slice(1, None)) if len(rollout.response_ids) > 1 else rollout)


def count_padding(case: Case, seed: int, *, with_stop_token: bool = False) -> None:
    """Fill the responses of a file up to the longest, and count what fills them as written by the student.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    with_stop_token
        Whether the stop token serves as padding, as it does for many tokenizers.
    """
    tokenizer = load_tokenizer(case.student)
    pad = tokenizer.eos_token_id if with_stop_token else tokenizer.pad_token_id

    def padded(rollouts: list[Rollout]) -> list[Rollout]:
        longest = max(len(r.response_ids) for r in rollouts)
        return [_padded(r, pad, longest - len(r.response_ids)) for r in rollouts]

    case.change_rollouts(padded)


def lose_prompt_token(case: Case, seed: int, *, place: int = -1) -> None:
    """Take one id out of what the teacher sees of each prompt: by default the last, so that all it sees is early.

    Parameters
    ----------
    case, seed
        The run; nothing is drawn.
    place
        Which id.
    """

    def lost(rollout: Rollout) -> Rollout:
        ids = [*rollout.teacher_prompt_ids]
        del ids[place]
        return replace(rollout, teacher_prompt_ids=tuple(ids))

    _change_each(case, lost)


def double_bos(case: Case, seed: int) -> None:
    """Name the first token of every prompt as BOS, and record prompts that begin with two, for both models."""
    name_bos(case)

    def doubled(rollout: Rollout) -> Rollout:
        ours, theirs = rollout.prompt_ids, rollout.teacher_prompt_ids
        return replace(rollout, prompt_ids=(ours[0], *ours), teacher_prompt_ids=(theirs[0], *theirs))

    _change_each(case, doubled)


def record_stale_rollouts(case: Case, seed: int) -> None:
    """Put the responses of step 0 in the place of the last checkpoint's, as a trainer whose sampler lags behind."""
    files = sorted(case.rollouts.glob("step-*.jsonl"))
    first, last = load_rollouts(files[0]), load_rollouts(files[-1])
    save_rollouts(files[-1], [replace(r, provenance=last[0].provenance) for r in first])


def _change_each(case: Case, change: Callable[[Rollout], Rollout]) -> None:
    case.change_rollouts(lambda rollouts: [change(r) for r in rollouts])


def _part(rollout: Rollout, kept: slice) -> Rollout:
    cut: dict[str, Any] = {
        name: None if getattr(rollout, name) is None else getattr(rollout, name)[kept]
        for name in ("response_ids", "sampled_logprobs", "generated")
    }
    return replace(rollout, **cut)


def _padded(rollout: Rollout, pad: int, n: int) -> Rollout:
    logprobs = rollout.sampled_logprobs
    return replace(
        rollout,
        response_ids=(*rollout.response_ids, *[pad] * n),
        sampled_logprobs=None if logprobs is None else (*logprobs, *[math.nan] * n),
    )
