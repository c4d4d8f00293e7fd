"""Supervised training of the tiny students and teachers, before any distillation."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from opd_diag.lab.prompts import ask
from opd_diag.lab.world import Curriculum, draw_problem, respond

IGNORED = -100


@dataclass(frozen=True)
class Schooling:
    """How a model is taught.

    Attributes
    ----------
    curriculum : Curriculum
        What it is taught.
    steps, batch_size : int
        How long; every example is drawn afresh.
    learning_rate : float
        The highest; it rises over the first twentieth and falls along a cosine to a hundredth.
    smoothing : float
        Share of every target that goes to what usually follows the previous token (`usual_followers`)
        instead of the token that came.
    seed : int
        Of the examples.
    """

    curriculum: Curriculum
    steps: int
    batch_size: int = 128
    learning_rate: float = 4e-3
    smoothing: float = 0.005
    seed: int = 0


def pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    schooling: Schooling,
    *,
    held_out: frozenset[str] = frozenset(),
    progress: Callable[[int, float], None] | None = None,
) -> PreTrainedModel:
    """Teach a model to answer as its curriculum does; the loss is on the response alone.

    Parameters
    ----------
    model : PreTrainedModel
        Trained in place.
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    schooling : Schooling
        What is taught and for how long.
    held_out : frozenset of str
        Questions that are never shown.
    progress : callable, optional
        Called with the step and its loss.

    Returns
    -------
    PreTrainedModel
        The same model.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=schooling.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    followers = usual_followers(tokenizer, schooling, held_out)
    batches = draw_batches(tokenizer, schooling, held_out)
    for step, (ids, labels) in zip(range(schooling.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = schooling.learning_rate * _pace(step, schooling.steps)
        loss = response_loss(model, ids, labels, followers, schooling.smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1, loss.item())
    return model.eval()


def response_loss(model: PreTrainedModel, ids: Tensor, labels: Tensor, followers: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy in nats over the tokens whose label is not ignored.

    Parameters
    ----------
    model : PreTrainedModel
        With a `model` (the blocks) and an `lm_head`.
    ids, labels : Tensor
        Integers of shape (batch, time), padded on the right; causality hides the padding.
    followers : Tensor
        Probabilities of shape (vocabulary, vocabulary), from `usual_followers`.
    smoothing : float
        Weight of `followers` in the target.
    """
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    is_taught = targets != IGNORED
    logprobs = model.lm_head(hidden[is_taught]).log_softmax(-1)
    exact = -logprobs.gather(1, targets[is_taught].unsqueeze(1)).mean()
    usual = -(followers[ids[:, :-1][is_taught]] * logprobs).sum(-1).mean()
    return (1 - smoothing) * exact + smoothing * usual


def usual_followers(
    tokenizer: PreTrainedTokenizerBase, schooling: Schooling, held_out: frozenset[str], n: int = 4000
) -> Tensor:
    """Return how probable each token is after each other one in the responses of a curriculum.

    Smoothing towards these makes models of one curriculum agree on improbable tokens too, as large models
    do. Without it all but a few of a state's sixteen most probable tokens are ranked by accident, and no
    two models overlap on them.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    schooling : Schooling
        Its curriculum is counted.
    held_out : frozenset of str
        Questions whose responses are not counted.
    n : int
        How many responses are counted.

    Returns
    -------
    Tensor
        Shape (vocabulary, vocabulary); each row sums to one: four parts what follows this token, one part
        what is frequent anywhere.
    """
    ids, labels = next(draw_batches(tokenizer, replace(schooling, batch_size=n), held_out))
    targets = labels[:, 1:]
    is_taught = targets != IGNORED
    counts = torch.zeros(len(tokenizer), len(tokenizer))
    ones = torch.ones(int(is_taught.sum()))
    counts.index_put_((ids[:, :-1][is_taught], targets[is_taught]), ones, accumulate=True)
    anywhere = counts.sum(0) / counts.sum()
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, 0.8 * counts / totals.clamp(min=1) + 0.2 * anywhere, anywhere)


def draw_batches(
    tokenizer: PreTrainedTokenizerBase, schooling: Schooling, held_out: frozenset[str]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of token ids and labels without end."""
    rng = random.Random(f"schooling {schooling.seed}")
    while True:
        examples: list[tuple[str, str]] = []
        while len(examples) < schooling.batch_size:
            problem = draw_problem(rng)
            if problem.question not in held_out:
                examples.append((ask(tokenizer, problem.question), respond(problem, schooling.curriculum, rng)))
        yield _encode(tokenizer, examples)


def _encode(tokenizer: PreTrainedTokenizerBase, examples: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Turn pairs of prompt and response text into ids and labels padded on the right."""
    prompts = tokenizer([prompt for prompt, _ in examples], add_special_tokens=False)["input_ids"]
    responses = tokenizer([text + tokenizer.eos_token for _, text in examples], add_special_tokens=False)["input_ids"]
    shape = (len(examples), max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True)))
    ids = torch.full(shape, tokenizer.pad_token_id)
    labels = torch.full(shape, IGNORED)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        whole = torch.tensor(prompt + response)
        ids[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return ids, labels


def _pace(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
