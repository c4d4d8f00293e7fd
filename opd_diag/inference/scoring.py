"""Rollouts → scores: student and teacher, teacher-forced on the same ids, exact over the whole vocabulary.

Both bodies run over a batch of whole sequences; hidden states are kept at response positions only. Both heads then run
over blocks of states small enough that a few (states × vocabulary) matrices fit a fixed budget of memory, and the
functions of :mod:`opd_diag.metrics` reduce them. No tensor of (all tokens, vocabulary) ever exists.

Where the two vocabularies differ by padding rows, both distributions are cut to the common ids and renormalised; the
mass that was cut is a field of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag.errors import ModelError, RolloutsError
from opd_diag.inference.batches import length_sorted_batches
from opd_diag.inference.block import BlockPlan, score_block
from opd_diag.inference.hidden import hidden_at
from opd_diag.inference.loading import Model
from opd_diag.inference.shards import Keep, Progress, Shard, Told, keep_nothing, shards
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT

BLOCK_BYTES = 33 * 2**20
"""Size of one (states × vocabulary) float32 matrix; some five of them exist at a time. Above 32 MiB the C library
gives such memory back at once instead of keeping it in pieces."""

Arrays = dict[str, npt.NDArray[Any]]
"""Fields of the scores by name, one row a state."""


@torch.inference_mode()
def score(
    student: Model,
    teacher: Model,
    rollouts: Sequence[Rollout],
    *,
    states: str = "on-policy",
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    progress: Progress | None = None,
    keep: Keep[Arrays] = keep_nothing,
) -> Scores:
    """Score student and teacher on every state of `rollouts`.

    Parameters
    ----------
    student, teacher
        The two models; they may be one object.
    rollouts
        At least one; the row of a state points into this sequence.
    states
        Name of the state set, kept in the provenance.
    student_temperature, teacher_temperature
        Of the scored distributions: logits are divided by it.
    progress
        Called with (tokens done, tokens in all) at the start and after each batch.
    keep
        Called for each shard, to keep it and find it again; the scores are the same whatever it found.

    Returns
    -------
    Scores
        All fields, sorted by (rollout, position).

    Raises
    ------
    RolloutsError
        No rollout has a state, an id lies outside the common vocabulary, or a sequence exceeds a model's context.
    ModelError
        A model gives NaN or infinite logits.
    """
    plan = _plan(student, teacher, student_temperature, teacher_temperature)
    _validate(rollouts, student, teacher, plan.vocabulary)
    lengths = [max(len(r.prompt_ids), len(r.teacher_prompt_ids)) + len(r.response_ids) for r in rollouts]
    places = [[(i, p) for p in _positions(rollout)] for i, rollout in enumerate(rollouts)]
    first_row = np.cumsum([0, *(len(p) for p in places)])
    filling = _Filling(int(first_row[-1]))
    told = Told(progress, sum(lengths))
    cut = shards(length_sorted_batches(lengths), lengths)
    for number, batches in enumerate(cut):
        tokens = [sum(lengths[i] for i in batch) for batch in batches]
        inside = [[rollouts[i] for i in batch] for batch in batches]
        make = partial(_shard, student, teacher, list(zip(inside, tokens, strict=True)), plan, told.within)
        rows = np.concatenate([np.arange(first_row[i], first_row[i + 1]) for batch in batches for i in batch])
        filling.put(rows, keep(Shard(number, len(cut), [*batches]), make))
        told.shard(sum(tokens))
    filling.put(slice(None), _where(places))
    return Scores(**filling.arrays, grid=plan.grid, provenance=_provenance(student, teacher, states, plan))


class _Filling:
    """The arrays of the scores, made once at full length, block after block written to its rows."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.arrays: Arrays = {}

    def put(self, rows: Any, fields: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a block."""
        for name, values in fields.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.length, *values.shape[1:]), dtype=values.dtype)
            self.arrays[name][rows] = values


@dataclass(frozen=True)
class _Batch:
    """Rollouts that are forwarded together, and the rows of their states."""

    student: Model
    teacher: Model
    rollouts: list[Rollout]
    rows: npt.NDArray[np.int64]


def _plan(student: Model, teacher: Model, student_temperature: float, teacher_temperature: float) -> BlockPlan:
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    return BlockPlan(
        vocabulary=vocabulary,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        stop_ids=tuple(sorted(i for i in {*student.stop_ids, *teacher.stop_ids} if i < vocabulary)),
        grid=tuple(k for k in CURVE_GRID if k <= vocabulary),
        k_kept=min(K_KEPT, vocabulary),
    )


def _validate(rollouts: Sequence[Rollout], student: Model, teacher: Model, vocabulary: int) -> None:
    if not any(r.state_positions for r in rollouts):
        raise RolloutsError(f"Nothing to score: none of the {len(rollouts)} rollouts has a response token.")
    for rollout in rollouts:
        highest = max(*rollout.prompt_ids, *rollout.teacher_prompt_ids, *rollout.response_ids, 0)
        if highest >= vocabulary:
            raise RolloutsError(
                f"Rollout {rollout.name} holds token id {highest}, but {student.name} and {teacher.name} have only "
                f"{vocabulary} ids in common. These rollouts belong to another tokenizer."
            )
        for model, prompt in ((student, rollout.prompt_ids), (teacher, rollout.teacher_prompt_ids)):
            length = len(prompt) + len(rollout.response_ids)
            if model.context is not None and length > model.context:
                raise RolloutsError(
                    f"Rollout {rollout.name} has {length} tokens, {model.name} takes {model.context}. "
                    "Lower --max-new-tokens or leave the prompt out."
                )


def _positions(rollout: Rollout) -> list[int]:
    """Give the positions to score; one past the end is the terminal state of a truncated rollout."""
    end = [len(rollout.response_ids)] if rollout.truncated else []
    return [*rollout.state_positions, *end]


def _where(places: list[list[tuple[int, int]]]) -> dict[str, npt.NDArray[Any]]:
    pairs = np.array([place for of_rollout in places for place in of_rollout], dtype=np.int32).reshape(-1, 2)
    return {"rollout": pairs[:, 0], "position": pairs[:, 1]}


def _shard(
    student: Model,
    teacher: Model,
    batches: list[tuple[list[Rollout], int]],
    plan: BlockPlan,
    tell: Callable[[int], None],
) -> Arrays:
    """Score batches, each given with its tokens, one after the other; their rows follow each other."""
    ends = np.cumsum([0, *(sum(len(_positions(r)) for r in batch) for batch, _ in batches)])
    filling = _Filling(int(ends[-1]))
    done = 0
    for n, (batch, tokens) in enumerate(batches):
        rows = np.arange(ends[n], ends[n + 1])
        if len(rows):
            _score_batch(_Batch(student, teacher, batch, rows), plan, filling)
        done += tokens
        tell(done)
    return filling.arrays


def _score_batch(batch: _Batch, plan: BlockPlan, filling: _Filling) -> None:
    student, teacher, rollouts = batch.student, batch.teacher, batch.rollouts
    hidden_student = _hidden_at_states(student, rollouts, [r.prompt_ids for r in rollouts])
    hidden_teacher = _hidden_at_states(teacher, rollouts, [r.teacher_prompt_ids for r in rollouts])
    sampled = [(*r.response_ids, -1)[p] for r in rollouts for p in _positions(r)]
    size = max(1, BLOCK_BYTES // (4 * max(student.vocabulary, teacher.vocabulary)))
    for start in _block_starts(len(sampled), size):
        block = slice(start, start + size)
        fields = score_block(
            student.head.logits(hidden_student[block]),
            teacher.head.logits(hidden_teacher[block]),
            torch.tensor(sampled[block], device=student.device),
            plan,
        )
        arrays = {name: value.cpu().numpy() for name, value in fields.items()}
        _refuse_nan(arrays, start, batch)
        filling.put(batch.rows[block], arrays)


def _block_starts(states: int, size: int) -> list[int]:
    """Cut states into blocks of one size; the last overlaps the one before.

    Matrices of one size are given the same memory again and again; odd remainders would fragment it.
    """
    if states <= size:
        return [0]
    return [*range(0, states - size, size), states - size]


def _hidden_at_states(model: Model, rollouts: list[Rollout], prompts: list[tuple[int, ...]]) -> Tensor:
    """Give (states of the batch, d): the hidden state before each scored position."""
    sequences = [[*prompt, *r.response_ids] for prompt, r in zip(prompts, rollouts, strict=True)]
    row = [b for b, r in enumerate(rollouts) for _ in _positions(r)]
    column = [len(prompts[b]) + p - 1 for b, r in enumerate(rollouts) for p in _positions(r)]
    return hidden_at(model, sequences, row, column)


def _refuse_nan(arrays: Mapping[str, npt.NDArray[Any]], start: int, batch: _Batch) -> None:
    for model, name in ((batch.student, "student_entropy"), (batch.teacher, "teacher_entropy")):
        bad = np.flatnonzero(np.isnan(arrays[name]))
        if len(bad):
            places = [(r, p) for r in batch.rollouts for p in _positions(r)]
            rollout, position = places[start + int(bad[0])]
            raise ModelError(
                f"{model.name} gives NaN or infinite logits at rollout {rollout.name}, position {position}. "
                "Its weights are damaged or overflow in this precision; try --dtype float32."
            )


def _provenance(student: Model, teacher: Model, states: str, plan: BlockPlan) -> dict[str, object]:
    return {
        "states": states,
        "student": _of_model(student) | {"label": student.label, "step": student.step},
        "teacher": _of_model(teacher),
        "student_temperature": plan.student_temperature,
        "teacher_temperature": plan.teacher_temperature,
        "common_vocabulary": plan.vocabulary,
        "stop_ids": list(plan.stop_ids),
        "dtype": str(student.dtype).removeprefix("torch."),
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _of_model(model: Model) -> dict[str, object]:
    parameters = sum(p.numel() for p in model.hf.parameters())
    return {"name": model.name, "key": model.key, "vocabulary": model.vocabulary, "parameters": parameters}
