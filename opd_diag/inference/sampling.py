"""Prompts → rollouts: the student's own responses, reproducible to the token.

Every rollout draws from a random stream of its own, keyed by (seed, checkpoint, prompt, rollout), so that it does not
depend on which others it grows beside. Which rollouts are kept together is a pure function of the prompts' lengths.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    drawing = Drawing(model, tokenizer, prompts, sampling or Sampling(), vocabulary, as_teacher)
    drawing.refuse_unfit()
    cut = sampling_shards(prompts, drawing.sampling, as_teacher=as_teacher)
    told = Told(progress, sum(len(shard.rows) for shard in cut))
    rollouts: list[Rollout] = []
    for shard in cut:
        rollouts += keep(shard, partial(drawing.shard, shard, told.within))
        told.shard(len(shard.rows))
    return in_order(rollouts)


def in_order(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Sort responses by (prompt, rollout)."""
    return sorted(rollouts, key=lambda r: (r.prompt_index, r.rollout_index))


def sampling_shards(prompts: Sequence[EncodedPrompt], sampling: Sampling, *, as_teacher: bool) -> list[Shard]:
    """Cut the responses that :func:`sample_rollouts` draws; rows of a shard are (prompt, rollout).

    Longest prompts come first, and no prompt is cut that has not too many to one.
    """
    rows = [(prompt, r) for prompt in prompts for r in range(sampling.rollouts_per_prompt)]
    ordered = [(prompt.index, r) for prompt, r in sorted(rows, key=lambda row: -len(_seen(row[0], as_teacher)))]
    size = ROWS_PER_SHARD // sampling.rollouts_per_prompt * sampling.rollouts_per_prompt or ROWS_PER_SHARD
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [Shard(number, len(parts), [*part]) for number, part in enumerate(parts)]


@dataclass(frozen=True)
class Drawing:
    """A model and all that decides what it draws; fields as the parameters of :func:`sample_rollouts`."""

    model: Model
    tokenizer: Tokenizer
    prompts: Sequence[EncodedPrompt]
    sampling: Sampling
    vocabulary: int | None
    as_teacher: bool

    def refuse_unfit(self) -> None:
        """Refuse what cannot be sampled; errors as :func:`sample_rollouts`."""
        model, room = self.model, self.sampling.max_new_tokens
        if not model.takes_cache:
            raise ModelError(f"{model.name} keeps no key–value cache of the usual kind. {elsewhere(model)}")
        seen = [(prompt, _seen(prompt, self.as_teacher)) for prompt in self.prompts]
        refuse_long(seen, room, model.context, name=model.name)

    @torch.inference_mode()
    def shard(self, shard: Shard, tell: Callable[[int], None] = lambda done: None) -> list[Rollout]:
        """Draw the responses of one shard of :func:`sampling_shards`; `tell` is called with how many are finished."""
        model, sampling = self.model, self.sampling
        rules = Rules(sampling, tuple({*model.stop_ids, *self.tokenizer.stop_ids}), self.vocabulary)
        by_index = {prompt.index: prompt for prompt in self.prompts}
        places: list[Any] = shard.rows
        together = [self._row(by_index[index], r) for index, r in places]
        for finished in grow(model, together, rules, _places(together[0], sampling.max_new_tokens)):
            tell(finished)
        check_grown(model, together, rules)
        about = {"weights": model.label or model.name, "weights_key": model.key}
        source = Provenance.sampled(sampling, **about, step=model.step)
        return [_rollout(row, self.tokenizer, source) for row in together]

    def _row(self, prompt: EncodedPrompt, r: int) -> Row:
        return Row(prompt, _seen(prompt, self.as_teacher), r, _uniforms(self.model, self.sampling, prompt.index, r))


def refuse_long(
    seen: Sequence[tuple[EncodedPrompt, tuple[int, ...]]],
    room: int,
    context: int | None,
    *,
    name: str,
    or_else: str = " or leave the prompt out",
) -> None:
    """Refuse a prompt that with the room for its response exceeds the context of who draws.

    Parameters
    ----------
    seen
        Prompts, each with its ids as the writer sees it.
    room
        Most tokens of a response.
    context
        Most tokens that it takes; None where it does not say.
    name
        How the message calls it.
    or_else
        What else can be done than a lower ``--max-new-tokens``.

    Raises
    ------
    PromptsError
        Naming the first of them.
    """
    for prompt, ids in seen:
        if context is not None and len(ids) + room > context:
            raise PromptsError(
                f"Prompt {prompt.prompt.id} has {len(ids)} tokens; with --max-new-tokens {room} that exceeds the "
                f"{context} tokens that {name} takes. Lower --max-new-tokens{or_else}."
            )


def _seen(prompt: EncodedPrompt, as_teacher: bool) -> tuple[int, ...]:
    return prompt.teacher_ids if as_teacher else prompt.ids


def _uniforms(model: Model, sampling: Sampling, prompt: int, rollout: int) -> np.ndarray:
    where = model.step if model.step is not None else zlib.crc32(model.label.encode())
    return np.random.default_rng([sampling.seed, where, prompt, rollout]).random(sampling.max_new_tokens)


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
