"""Faults of sampling: responses drawn otherwise than their record says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opd_diag.inference import load_model, sample_rollouts
from opd_diag.lab.faults.case import Case
from opd_diag.records.answer import is_correct
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt, Tokenizer, load_tokenizer


def sample_at(case: Case, seed: int, *, temperature: float, top_p: float = 1.0, with_logprobs: bool = False) -> None:
    """Draw all recorded responses again at another temperature or top-p; the record still says 1.

    Parameters
    ----------
    case
        With recorded rollouts.
    seed
        Of the sampling.
    temperature, top_p
        At which they are drawn in truth.
    with_logprobs
        Whether the record holds their log-probabilities, which are then those at `temperature`.
    """

    def again(rollouts: list[Rollout]) -> list[Rollout]:
        begun = [replace(r, response_ids=(), sampled_logprobs=None) for r in rollouts]
        drawn = _continued(case, begun, seed, temperature, top_p)
        return [
            replace(
                new,
                provenance=old.provenance,
                sampled_logprobs=new.sampled_logprobs if with_logprobs else None,
                rollout_index=old.rollout_index,
                prompt_index=old.prompt_index,
                teacher_prompt_ids=old.teacher_prompt_ids,
            )
            for old, new in zip(rollouts, drawn, strict=True)
        ]

    case.change_rollouts(again)


def sample_noise_after(case: Case, seed: int, *, depth: int, temperature: float) -> None:
    """Draw the students' recorded responses anew from a depth on, and there at a high temperature.

    Parameters
    ----------
    case
        With recorded rollouts; the teacher's stay as they are, and so do responses that end before.
    seed
        Of the sampling.
    depth
        Tokens that stay.
    temperature
        From there on; the record still says 1 and holds no log-probabilities.
    """
    tokenizer = load_tokenizer(str(case.student))

    def noisy(rollouts: list[Rollout]) -> list[Rollout]:
        long = [r for r in rollouts if r.provenance.step is not None and len(r.response_ids) > depth]
        if not long:
            return rollouts
        begun = [replace(r, response_ids=r.response_ids[:depth], sampled_logprobs=None) for r in long]
        drawn = dict(zip(map(_place, long), _continued(case, begun, seed, temperature, 1.0), strict=True))
        return [_joined(r, drawn[_place(r)], depth, tokenizer) if _place(r) in drawn else r for r in rollouts]

    case.change_rollouts(noisy)


def _joined(rollout: Rollout, drawn: Rollout, depth: int, tokenizer: Tokenizer) -> Rollout:
    ids = (*rollout.response_ids[:depth], *drawn.response_ids)
    return replace(
        rollout,
        response_ids=ids,
        stop_reason=drawn.stop_reason,
        sampled_logprobs=None,
        is_correct=is_correct(tokenizer.plain_text(ids), rollout.answer),
        response_text=tokenizer.text(ids),
    )


def _continued(case: Case, rollouts: Sequence[Rollout], seed: int, temperature: float, top_p: float) -> list[Rollout]:
    """Let the writer of these rollouts go on after what stands in them."""
    folder, tokenizer = case.writer(rollouts[0]), load_tokenizer(str(case.student))
    prompts = [
        EncodedPrompt(i, Prompt(r.prompt_text, r.prompt_id, r.answer, r.group), ids, ids)
        for i, r in enumerate(rollouts)
        for ids in [(*r.prompt_ids, *r.response_ids)]
    ]
    longest = max(len(p.ids) for p in prompts)
    model = load_model(_checkpoint(folder, rollouts[0]), stop_ids=tokenizer.stop_ids)
    room = min(48, (model.context or 128) - longest)
    sampling = Sampling(1, room, temperature, top_p, seed)
    return sample_rollouts(model, tokenizer, prompts, sampling=sampling)


def _checkpoint(folder: Path, rollout: Rollout) -> Checkpoint:
    return Checkpoint(rollout.provenance.weights, rollout.provenance.step, folder, "full")


def _place(rollout: Rollout) -> tuple[int, int]:
    return rollout.prompt_index, rollout.rollout_index
