"""Prompts → rollouts of a teacher behind a server, which draws with random numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from opd_diag.inference.drawn_elsewhere import Asked, Elsewhere, sample_elsewhere
from opd_diag.inference.sampling import refuse_long
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.shards import Keep, Progress, keep_nothing
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
    refuse_long(
        [(prompt, prompt.teacher_ids) for prompt in prompts],
        sampling.max_new_tokens,
        teacher.context,
        name=teacher.name,
        or_else=", leave the prompt out, or let the server take more",
    )
    source = Provenance.sampled(sampling, weights=label, weights_key=teacher.key, step=None)
    writer = Elsewhere(
        draw=partial(_drawn, teacher, sampling),
        sampling=sampling,
        source=source,
        stream=str(sampling.seed),
        as_teacher=True,
        keeps_logprobs=source.plain,
    )
    return sample_elsewhere(writer, tokenizer, prompts, progress=progress, keep=keep)


def _drawn(
    teacher: ServedTeacher, sampling: Sampling, asked: Sequence[Asked]
) -> Iterator[tuple[int, Sequence[Sampled]]]:
    """Ask for the responses to some prompts, as many at once as the server is given requests."""
    pool = ThreadPoolExecutor(teacher.at_once)
    tokens = 0
    try:
        for place, drawn in enumerate(pool.map(partial(_of_one, teacher, sampling), asked)):
            tokens += len(asked[place][0]) + sum(len(one.ids) for one in drawn)
            yield place, drawn
    finally:  # after an error nobody waits for what is in flight
        pool.shutdown(wait=False, cancel_futures=True)
    teacher.forwarded.requests += len(asked)
    teacher.forwarded.tokens += tokens


def _of_one(teacher: ServedTeacher, sampling: Sampling, asked: Asked) -> list[Sampled]:
    ids, seed = asked
    return teacher.server.sampled(
        ids,
        n=sampling.rollouts_per_prompt,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
    )
