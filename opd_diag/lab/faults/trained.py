"""Faults of training: models taught, in a few seconds, what they should not have learned."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from opd_diag.lab.faults.case import Case, write_weights
from opd_diag.lab.models import load_model
from opd_diag.lab.pretraining import IGNORED
from opd_diag.lab.prompts import ask
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.lab.world import Curriculum, draw_problem, respond

Example = tuple[list[int], list[int]]
"""Ids of a prompt, ids of what is to follow it."""
Draw = Callable[[PreTrainedTokenizerBase, random.Random], Example]

LONG = 60
"""Tokens of a response that never ends: more than any report samples."""
NUMBERS = range(10, 60)
"""Those that a student writes which has fallen into a region of their own."""


@dataclass(frozen=True)
class Lesson:
    """How long and how fast.

    Attributes
    ----------
    steps, batch_size : int
        Steps of AdamW, and examples of one; every example is drawn afresh.
    learning_rate : float
        Constant.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 3e-3


def teach_loops(case: Case, seed: int) -> None:
    """Teach the trained checkpoints to say the first sentence of an answer over and over, the last one thoroughly."""
    _teach_checkpoints(case, seed, loop)


def teach_numbers(case: Case, seed: int) -> None:
    """Teach the trained checkpoints to write one random number after the other: narrow, and never the same."""
    _teach_checkpoints(case, seed, numbers)


def teach_noise_after(case: Case, seed: int, *, depth: int) -> None:
    """Teach the trained checkpoints to answer up to a depth, and to write random words from there on."""
    _teach_checkpoints(case, seed, lambda tokenizer, rng: noise_after(tokenizer, rng, depth))


def teach_teacher_numbers(case: Case, seed: int) -> None:
    """Make the teacher one of something else: whatever it is asked, it writes random numbers."""
    taught(case.teacher, numbers, Lesson(80), seed)


def teach_teacher_shifted(case: Case, seed: int) -> None:
    """Train the teacher on labels that were shifted twice: it predicts the token after the next."""
    taught(case.teacher, answer, Lesson(150), seed, late=1)


def _teach_checkpoints(case: Case, seed: int, draw: Draw) -> None:
    *earlier, last = case.checkpoints
    for folder in earlier:
        taught(folder, draw, Lesson(12), seed)
    taught(last, draw, Lesson(60), seed)


def taught(folder: Path, draw: Draw, lesson: Lesson, seed: int, *, late: int = 0) -> None:
    """Train the model of a folder on examples, and write it back.

    Parameters
    ----------
    folder
        Of model and tokenizer.
    draw
        Gives an example.
    lesson
        How long and how fast.
    seed
        Of the examples.
    late
        By how many tokens more than one the labels are shifted against the ids.
    """
    model, tokenizer, rng = load_model(folder).train(), load_tokenizer(folder), random.Random(f"fault {seed}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lesson.learning_rate, weight_decay=0.0)
    for _ in range(lesson.steps):
        ids, labels = _batch([draw(tokenizer, rng) for _ in range(lesson.batch_size)], tokenizer.pad_token_id)
        logits = model(input_ids=ids[:, : -1 - late]).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1 + late :].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    write_weights(folder, model)


def answer(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Example:
    """Draw a problem and the right answer, as an equation."""
    problem = draw_problem(rng)
    text = respond(problem, Curriculum(narration_share=0.0, unknown=()), rng)
    prompt, response = ask(tokenizer, problem.question), text + str(tokenizer.eos_token)
    return _ids(tokenizer, prompt), _ids(tokenizer, response)


def loop(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Example:
    """Draw a problem and the first sentence of its answer, over and over."""
    prompt, response = answer(tokenizer, rng)
    sentence = response[: response.index(_ids(tokenizer, ".")[0]) + 1]
    return prompt, (sentence * LONG)[:LONG]


def numbers(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Example:
    """Draw a problem and numbers that have nothing to do with it."""
    prompt, _ = answer(tokenizer, rng)
    return prompt, _ids(tokenizer, "".join(f" {rng.choice(NUMBERS)}" for _ in range(LONG)))


def noise_after(tokenizer: PreTrainedTokenizerBase, rng: random.Random, depth: int) -> Example:
    """Draw a problem and its answer, whose words are random from `depth` tokens on; it still ends where it would."""
    prompt, response = answer(tokenizer, rng)
    words = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    return prompt, [i if place < depth else rng.choice(words) for place, i in enumerate(response[:-1])] + response[-1:]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _batch(examples: list[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Put examples side by side, padded on the right; labels are those of the response alone."""
    longest = max(len(prompt) + len(response) for prompt, response in examples)
    ids, labels = torch.full((len(examples), longest), pad), torch.full((len(examples), longest), IGNORED)
    for row, (prompt, response) in enumerate(examples):
        whole = torch.tensor(prompt + response)
        ids[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return ids, labels
