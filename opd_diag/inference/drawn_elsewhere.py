"""Prompts → rollouts of a model that draws in another place, with random numbers of its own: a server, or an engine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from opd_diag.inference.sampling import ROWS_PER_SHARD, in_order
from opd_diag.inference.shards import Keep, Progress, Shard, Told
from opd_diag.records.answer import is_correct
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.servers import Sampled
from opd_diag.tokenization import EncodedPrompt, Tokenizer

Asked = tuple[tuple[int, ...], int]
"""(ids of a prompt as the writer sees it, seed of its responses)."""


@dataclass(frozen=True)
class Elsewhere:
    """A model that draws in another place, and all that decides what it draws."""

    draw: Callable[[Sequence[Asked]], Iterator[tuple[int, Sequence[Sampled]]]]
    """Gives (place of a prompt, its responses), in any order."""
    sampling: Sampling
    source: Provenance
    """Of the records."""
    stream: str
    """With a prompt's index it keys the seed of its responses, which makes the model draw the same again as far as it
    draws anything again."""
    as_teacher: bool
    """Whether it reads the prompts as the teacher sees them."""
    keeps_logprobs: bool
    """Whether log-probabilities as sampled are those that records have: at the temperature, before top-p."""

    def seen(self, prompt: EncodedPrompt) -> tuple[int, ...]:
        """Give the ids of a prompt as the writer sees it."""
        return prompt.teacher_ids if self.as_teacher else prompt.ids


def sample_elsewhere(
    writer: Elsewhere,
    tokenizer: Tokenizer,
    prompts: Sequence[EncodedPrompt],
    *,
    progress: Progress | None,
    keep: Keep[list[Rollout]],
) -> list[Rollout]:
    """Let a model draw responses to the prompts, some prompts together; errors are those of its `draw`.

    Parameters
    ----------
    writer
        The model.
    tokenizer
        For the text of the records.
    prompts
        From :func:`~opd_diag.tokenization.encode_prompts`.
    progress, keep
        As of :func:`~opd_diag.inference.sampling.sample_rollouts`.

    Returns
    -------
    list of Rollout
        Sorted by (prompt, rollout).
    """
    each = writer.sampling.rollouts_per_prompt
    size = max(1, ROWS_PER_SHARD // each)
    cut = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    told = Told(progress, len(prompts) * each)
    rollouts: list[Rollout] = []
    for number, together in enumerate(cut):
        shard = Shard(number, len(cut), [prompt.index for prompt in together])
        rollouts += keep(shard, partial(_made, writer, tokenizer, together, told))
        told.shard(len(together) * each)
    return in_order(rollouts)


def _made(writer: Elsewhere, tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], told: Told) -> list[Rollout]:
    made: list[Rollout] = []
    asked = [(writer.seen(prompt), _seed(writer.stream, prompt)) for prompt in prompts]
    for place, drawn in writer.draw(asked):
        made += [_rollout(writer, prompts[place], i, of, tokenizer) for i, of in enumerate(drawn)]
        told.within(len(made))
    return in_order(made)


def _seed(stream: str, prompt: EncodedPrompt) -> int:
    return zlib.crc32(f"{stream} {prompt.index}".encode()) >> 1


def _rollout(writer: Elsewhere, prompt: EncodedPrompt, index: int, drawn: Sampled, tokenizer: Tokenizer) -> Rollout:
    logprobs = drawn.logprobs if writer.keeps_logprobs else None
    return Rollout(
        prompt_index=prompt.index,
        rollout_index=index,
        prompt_id=prompt.prompt.id,
        group=prompt.prompt.group,
        prompt_ids=prompt.ids,
        teacher_prompt_ids=prompt.teacher_ids,
        response_ids=tuple(drawn.ids),
        stop_reason=drawn.stop_reason,
        provenance=writer.source,
        sampled_logprobs=None if logprobs is None else tuple(logprobs.tolist()),
        answer=prompt.prompt.answer,
        is_correct=is_correct(tokenizer.plain_text(drawn.ids), prompt.prompt.answer),
        prompt_text=tokenizer.text(prompt.ids),
        response_text=tokenizer.text(drawn.ids),
    )
