"""Prompts → rollouts: the student's own responses, reproducible to the token.

Every rollout draws from a random stream of its own, keyed by (seed, checkpoint, prompt, rollout), so that it does not
depend on which others it grows beside. Which rollouts are kept together is a pure function of the prompts' lengths.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from opd_diag.errors import ModelError, PromptsError
from opd_diag.inference.growing import Row, Rules, check_grown, elsewhere, grow
from opd_diag.inference.model import Model
from opd_diag.inference.places import SPARE
from opd_diag.inference.shards import Keep, Progress, Shard, Told, keep_nothing
from opd_diag.records.answer import is_correct
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt, Tokenizer

PLACES = 128
"""Most responses that grow side by side."""

TOKENS_IN_PLACES = 32768
"""Most tokens, prompts and room for responses together, that their key–value cache may have to hold."""

ROWS_PER_SHARD = 512
"""Most responses that are kept together: those that follow each other in the same places."""


@torch.inference_mode()
def sample_rollouts(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[EncodedPrompt],
    *,
    sampling: Sampling | None = None,
    vocabulary: int | None = None,
    as_teacher: bool = False,
    progress: Progress | None = None,
    keep: Keep[list[Rollout]] = keep_nothing,
) -> list[Rollout]:
    """Sample responses of `model`.

    Parameters
    ----------
    model
        The model.
    tokenizer
        For the text of the records, and its stop token.
    prompts
        From :func:`~opd_diag.tokenization.encode_prompts`.
    sampling
        How many responses, how long, at which temperature and top-p, and the seed.
    vocabulary
        Only ids below it may be drawn, so that no padding row of the head is; default: all.
    as_teacher
        Whether the model reads the prompts as the teacher sees them.
    progress
        Called with (responses finished, responses in all) at the start and after each token.
    keep
        Called for each shard, to keep its responses and find them again.

    Returns
    -------
    list of Rollout
        Sorted by (prompt, rollout).

    Raises
    ------
    PromptsError
        A prompt and the room for its response exceed the model's context.
    ModelError
        The model gives NaN or infinite logits, or it cannot be sampled from token by token.
    """
    sampling = sampling or Sampling()
    if not model.takes_cache:
        raise ModelError(f"{model.name} keeps no key–value cache of the usual kind. {elsewhere(model)}")
    rules = Rules(sampling, tuple({*model.stop_ids, *tokenizer.stop_ids}), vocabulary)
    rows = [
        Row(prompt, prompt.teacher_ids if as_teacher else prompt.ids, r, _uniforms(model, sampling, prompt.index, r))
        for prompt in prompts
        for r in range(sampling.rollouts_per_prompt)
    ]
    source = Provenance(
        origin="sampled",
        weights=model.label or model.name,
        weights_key=model.key,
        step=model.step,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )
    _check_context(model, rows, sampling.max_new_tokens)
    told = Told(progress, len(rows))

    def made(together: list[Row]) -> list[Rollout]:
        for finished in grow(model, together, rules, _places(together[0], sampling.max_new_tokens)):
            told.within(finished)
        check_grown(model, together, rules)
        return [_rollout(row, tokenizer, source) for row in together]

    rollouts: list[Rollout] = []
    cut = _shards(rows, sampling.rollouts_per_prompt)
    for number, together in enumerate(cut):
        shard = Shard(number, len(cut), [(row.prompt.index, row.rollout_index) for row in together])
        rollouts += keep(shard, partial(made, together))
        told.shard(len(together))
    return sorted(rollouts, key=lambda r: (r.prompt_index, r.rollout_index))


def _check_context(model: Model, rows: Sequence[Row], max_new_tokens: int) -> None:
    for row in rows:
        length = len(row.seen)
        if model.context is not None and length + max_new_tokens > model.context:
            raise PromptsError(
                f"Prompt {row.prompt.prompt.id} has {length} tokens; with --max-new-tokens {max_new_tokens} that "
                f"exceeds the {model.context} tokens that {model.name} takes. Lower --max-new-tokens or leave the "
                "prompt out."
            )


def _uniforms(model: Model, sampling: Sampling, prompt: int, rollout: int) -> np.ndarray:
    where = model.step if model.step is not None else zlib.crc32(model.label.encode())
    return np.random.default_rng([sampling.seed, where, prompt, rollout]).random(sampling.max_new_tokens)


def _shards(rows: list[Row], rollouts_per_prompt: int) -> list[list[Row]]:
    """Cut rows, longest prompts first, between prompts where there are not too many to one."""
    ordered = sorted(rows, key=lambda row: -len(row.seen))
    size = ROWS_PER_SHARD // rollouts_per_prompt * rollouts_per_prompt or ROWS_PER_SHARD
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _places(longest: Row, max_new_tokens: int) -> int:
    return min(PLACES, max(1, TOKENS_IN_PLACES // (len(longest.seen) + max_new_tokens + SPARE)))


def _rollout(row: Row, tokenizer: Tokenizer, source: Provenance) -> Rollout:
    prompt = row.prompt.prompt
    return Rollout(
        prompt_index=row.prompt.index,
        rollout_index=row.rollout_index,
        prompt_id=prompt.id,
        group=prompt.group,
        prompt_ids=row.prompt.ids,
        teacher_prompt_ids=row.prompt.teacher_ids,
        response_ids=tuple(row.ids),
        stop_reason="stop" if row.stopped else "length",
        provenance=source,
        sampled_logprobs=tuple(row.logprobs),
        answer=prompt.answer,
        is_correct=is_correct(tokenizer.plain_text(row.ids), prompt.answer),
        prompt_text=tokenizer.text(row.prompt.ids),
        response_text=tokenizer.text(row.ids),
    )
