"""Prompts → rollouts: the student's own responses, reproducible to the token.

Every rollout draws from a random stream of its own, keyed by (seed, checkpoint, prompt, rollout), so that it does not
depend on which others share its batch; batches are a pure function of the prompts' lengths.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import transformers
from torch import Tensor

from opd_diag.errors import ModelError, PromptsError
from opd_diag.inference.drawing import draw, tempered_logprobs
from opd_diag.inference.loading import Model
from opd_diag.inference.shards import Keep, Progress, Shard, Told, keep_nothing
from opd_diag.records.answer import is_correct
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt, Tokenizer

ROWS_PER_BATCH = 128
"""Most responses that grow side by side."""

TOKENS_PER_BATCH = 32768
"""Most tokens, prompts and room for responses together, that their key–value cache may hold."""

CHECKED_TOKENS = 32
"""Tokens of one response in each batch that are scored again in one pass."""


@dataclass
class _Row:
    """One response while it grows."""

    prompt: EncodedPrompt
    seen: tuple[int, ...]
    """The prompt as the writer sees it."""
    rollout_index: int
    uniforms: np.ndarray
    ids: list[int]
    logprobs: list[float]
    stopped: bool = False


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
        Called with (responses finished, responses in all) at the start and after each token of a batch.
    keep
        Called for each batch, to keep its responses and find them again.

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
        raise ModelError(f"{model.name} keeps no key–value cache of the usual kind. {_elsewhere(model)}")
    stop_ids = sorted({*model.stop_ids, *tokenizer.stop_ids})
    rows = [
        _Row(
            prompt,
            prompt.teacher_ids if as_teacher else prompt.ids,
            r,
            _uniforms(model, sampling, prompt.index, r),
            [],
            [],
        )
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

    def made(batch: list[_Row]) -> list[Rollout]:
        for finished in _grow(model, batch, stop_ids, sampling, vocabulary):
            told.within(finished)
        _check_grown(model, batch[-1], sampling, vocabulary)
        return [_rollout(row, tokenizer, source) for row in batch]

    rollouts: list[Rollout] = []
    batches = _batches(rows, sampling.max_new_tokens)
    for number, batch in enumerate(batches):
        shard = Shard(number, len(batches), [(row.prompt.index, row.rollout_index) for row in batch])
        rollouts += keep(shard, partial(made, batch))
        told.shard(len(batch))
    return sorted(rollouts, key=lambda r: (r.prompt_index, r.rollout_index))


def _check_context(model: Model, rows: Sequence[_Row], max_new_tokens: int) -> None:
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


def _batches(rows: list[_Row], max_new_tokens: int) -> list[list[_Row]]:
    ordered = sorted(rows, key=lambda row: -len(row.seen))
    batches: list[list[_Row]] = []
    for row in ordered:
        width = len(batches[-1][0].seen) + max_new_tokens if batches else 0
        if batches and len(batches[-1]) < ROWS_PER_BATCH and (len(batches[-1]) + 1) * width <= TOKENS_PER_BATCH:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _grow(
    model: Model, rows: list[_Row], stop_ids: list[int], sampling: Sampling, vocabulary: int | None
) -> Iterator[int]:
    """Extend every row until it stops or is full, and give how many have stopped after each token.

    Rows that stopped leave the batch.
    """
    tokens, mask = _left_padded([row.seen for row in rows], model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = transformers.DynamicCache(config=model.hf.config.get_text_config())
    stops = torch.tensor(stop_ids, device=model.device)
    alive = list(rows)
    for step in range(sampling.max_new_tokens):
        where = {"position_ids": positions} if model.takes_positions else {}
        hidden = model.hf.base_model(
            input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **where
        ).last_hidden_state[:, -1]
        logits = model.head.logits(hidden)[:, :vocabulary]
        uniforms = torch.tensor([row.uniforms[step] for row in alive], device=model.device)
        ids, logprobs = draw(logits, uniforms, sampling.temperature, sampling.top_p)
        if logprobs.isnan().any():
            raise ModelError(f"{model.name} gives NaN or infinite logits while sampling. Its weights are damaged.")
        stopped = torch.isin(ids, stops)
        for row, token, logprob, stop in zip(alive, ids.tolist(), logprobs.tolist(), stopped.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.stopped = stop
        keep = (~stopped).nonzero().squeeze(-1)
        yield len(rows) - len(keep)
        if not len(keep):
            return
        if len(keep) < len(alive):
            cache.reorder_cache(keep)  # batch_select_indices is not there for layers with linear attention
            alive = [alive[i] for i in keep.tolist()]
        tokens = ids[keep].unsqueeze(-1)
        mask = torch.nn.functional.pad(mask[keep], (0, 1), value=1)
        positions = positions[keep, -1:] + 1


def _check_grown(model: Model, row: _Row, sampling: Sampling, vocabulary: int | None) -> None:
    """Hold what was sampled token by token, padded and cached, against one pass over the whole of it.

    Without it an architecture that keeps its state elsewhere would write nonsense, and nobody would be told.
    """
    n = min(len(row.ids), CHECKED_TOKENS)
    sequence = torch.tensor([[*row.seen, *row.ids[:n]]], device=model.device)
    logits = model.head.logits(model.hidden(sequence)[0, -n - 1 : -1])[:, :vocabulary]
    ids = torch.tensor(row.ids[:n], device=model.device)
    whole = tempered_logprobs(logits, sampling.temperature).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    difference = (whole.cpu() - torch.tensor(row.logprobs[:n])).abs().mean().item()
    if not difference <= (1e-3 if model.dtype == torch.float32 else 0.25):
        raise ModelError(
            f"{model.name} gives other log-probabilities token by token than in one pass (by {difference:.2g} nats "
            f"on average over {n} tokens). {_elsewhere(model)}"
        )


def _elsewhere(model: Model) -> str:
    return (
        f"This architecture ({type(model.hf).__name__}) cannot be sampled from here: sample with the tool that "
        "trained it and give the responses with --rollouts."
    )


def _left_padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(s) for s in sequences)
    tokens = [[s[0]] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _rollout(row: _Row, tokenizer: Tokenizer, source: Provenance) -> Rollout:
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
