"""Prompts → rollouts of a teacher behind a server, which draws with random numbers of its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from opd_diag.errors import PromptsError
from opd_diag.inference.sampling import ROWS_PER_SHARD
from opd_diag.inference.served import ServedTeacher
from opd_diag.inference.shards import Keep, Progress, Shard, Told, keep_nothing
from opd_diag.records.answer import is_correct
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.servers import Sampled
from opd_diag.tokenization import EncodedPrompt, Tokenizer


def sample_served(
    teacher: ServedTeacher,
    tokenizer: Tokenizer,
    prompts: Sequence[EncodedPrompt],
    *,
    label: str,
    sampling: Sampling | None = None,
    progress: Progress | None = None,
    keep: Keep[list[Rollout]] = keep_nothing,
) -> list[Rollout]:
    """Let a server sample responses to the prompts as the teacher sees them.

    Parameters
    ----------
    teacher
        The teacher.
    tokenizer
        For the text of the records.
    prompts
        From :func:`~opd_diag.tokenization.encode_prompts`.
    label
        What records call the writer.
    sampling
        As of :func:`~opd_diag.inference.sampling.sample_rollouts`. The server is given a seed keyed by (seed, prompt),
        which makes it draw the same again as far as it draws anything again.
    progress
        Called with (responses finished, responses in all).
    keep
        Called for each shard, to keep its responses and find them again.

    Returns
    -------
    list of Rollout
        Sorted by (prompt, rollout). Log-probabilities as sampled are kept at temperature 1 alone: at another one
        engines differ in what they return.

    Raises
    ------
    PromptsError
        A prompt and the room for its response exceed the teacher's context.
    ServerError
        The server cannot be reached, or answers what it must not.
    """
    sampling = sampling or Sampling()
    _check_context(teacher, prompts, sampling.max_new_tokens)
    each = sampling.rollouts_per_prompt
    size = max(1, ROWS_PER_SHARD // each)
    cut = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    told = Told(progress, len(prompts) * each)
    rollouts: list[Rollout] = []
    for number, together in enumerate(cut):
        shard = Shard(number, len(cut), [prompt.index for prompt in together])
        rollouts += keep(shard, partial(_made, teacher, tokenizer, together, sampling, label, told))
        told.shard(len(together) * each)
    return sorted(rollouts, key=lambda r: (r.prompt_index, r.rollout_index))


def _made(
    teacher: ServedTeacher,
    tokenizer: Tokenizer,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    label: str,
    told: Told,
) -> list[Rollout]:
    source = Provenance(
        origin="sampled",
        weights=label,
        weights_key=teacher.key,
        step=None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )
    made: list[Rollout] = []
    pool = ThreadPoolExecutor(teacher.at_once)
    try:
        for prompt, drawn in zip(prompts, pool.map(partial(_drawn, teacher, sampling), prompts), strict=True):
            made += [_rollout(prompt, i, of, tokenizer, source) for i, of in enumerate(drawn)]
            told.within(len(made))
    finally:  # after an error nobody waits for what is in flight
        pool.shutdown(wait=False, cancel_futures=True)
    teacher.forwarded.requests += len(prompts)
    teacher.forwarded.tokens += sum(len(p.teacher_ids) for p in prompts) + sum(len(r.response_ids) for r in made)
    return made


def _drawn(teacher: ServedTeacher, sampling: Sampling, prompt: EncodedPrompt) -> list[Sampled]:
    return teacher.server.sampled(
        prompt.teacher_ids,
        n=sampling.rollouts_per_prompt,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=zlib.crc32(f"{sampling.seed} {prompt.index}".encode()) >> 1,
    )


def _rollout(prompt: EncodedPrompt, index: int, drawn: Sampled, tokenizer: Tokenizer, source: Provenance) -> Rollout:
    logprobs = drawn.logprobs if source.plain else None
    return Rollout(
        prompt_index=prompt.index,
        rollout_index=index,
        prompt_id=prompt.prompt.id,
        group=prompt.prompt.group,
        prompt_ids=prompt.ids,
        teacher_prompt_ids=prompt.teacher_ids,
        response_ids=tuple(drawn.ids),
        stop_reason=drawn.stop_reason,
        provenance=source,
        sampled_logprobs=None if logprobs is None else tuple(logprobs.tolist()),
        answer=prompt.prompt.answer,
        is_correct=is_correct(tokenizer.plain_text(drawn.ids), prompt.prompt.answer),
        prompt_text=tokenizer.text(prompt.ids),
        response_text=tokenizer.text(drawn.ids),
    )


def _check_context(teacher: ServedTeacher, prompts: Sequence[EncodedPrompt], max_new_tokens: int) -> None:
    for prompt in prompts:
        length = len(prompt.teacher_ids)
        if teacher.context is not None and length + max_new_tokens > teacher.context:
            raise PromptsError(
                f"Prompt {prompt.prompt.id} has {length} tokens; with --max-new-tokens {max_new_tokens} that exceeds "
                f"the {teacher.context} tokens that {teacher.name} takes. Lower --max-new-tokens, leave the prompt "
                "out, or let the server take more."
            )
