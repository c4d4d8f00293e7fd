"""Rollouts → scores: student and teacher, teacher-forced on the same ids, exact over the whole vocabulary.

Both bodies run over packs of whole sequences, a prompt once for all its responses
(:mod:`~opd_diag.inference.packing`); hidden states are kept at response positions only. Both heads then run
over blocks of states whose logits fit a fixed budget of memory, and are reduced in one pass
(:mod:`~opd_diag.inference.onepass`). No tensor of (all tokens, vocabulary) ever exists.

Where the two vocabularies differ by padding rows, both distributions are cut to the common ids and
renormalised; the mass that was cut is a field of its own.
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
from opd_diag.inference.block import BlockPlan, Blocks
from opd_diag.inference.head import OwnLogits
from opd_diag.inference.hidden import HiddenStates
from opd_diag.inference.linear import AVAILABLE
from opd_diag.inference.memory import give_back
from opd_diag.inference.model import Model
from opd_diag.inference.packing import TOKENS_PER_PACK, Pack, packs, states_before
from opd_diag.inference.shards import Keep, Progress, Shard, Told, keep_nothing, shards
from opd_diag.records.arrays import Arrays, scratch
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT


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
    keep_teacher: Keep[HiddenStates] | None = None,
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
    keep_teacher
        The same for the teacher's last hidden states, which other students at the same states can use again: where
        they are found, the teacher's body does not run. Default: they are not kept beyond a batch.

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
    positions = [np.array(_positions(rollout), dtype=np.int32) for rollout in rollouts]
    first_row = np.cumsum([0, *(len(p) for p in positions)])
    filling = _Filling(int(first_row[-1]))
    told = Told(progress, sum(lengths))
    batches = packs(
        [(r.prompt_ids, r.teacher_prompt_ids) for r in rollouts],
        [(n - len(r.response_ids), len(r.response_ids)) for n, r in zip(lengths, rollouts, strict=True)],
        _tokens_per_pack(student, teacher),
    )
    cut = shards(batches, lengths)
    blocks = Blocks(student.head, teacher.head, plan)
    for number, batches in enumerate(cut):
        tokens = [sum(lengths[i] for i in batch) for batch in batches]
        inside = [[rollouts[i] for i in batch] for batch in batches]
        shard = Shard(number, len(cut), [*batches])
        kept = partial(_teacher_states, teacher, inside, shard, keep_teacher)
        make = partial(_shard, student, teacher, list(zip(inside, tokens, strict=True)), blocks, kept, told.within)
        rows = np.concatenate([np.arange(first_row[i], first_row[i + 1]) for batch in batches for i in batch])
        filling.put(rows, keep(shard, make))
        told.shard(sum(tokens))
    rows_of = np.repeat(np.arange(len(rollouts), dtype=np.int32), np.diff(first_row))
    filling.put(slice(None), {"rollout": rows_of, "position": np.concatenate(positions)})
    tied = int(filling.arrays.pop("tied").sum())
    about = _provenance(student, teacher, states, plan) | {"n_tied": tied, "sizes": _sizes(student, teacher, blocks)}
    return Scores(**filling.arrays, grid=plan.grid, provenance=about)


def _tokens_per_pack(student: Model, teacher: Model) -> int:
    own_logits = any(isinstance(model.head, OwnLogits) for model in (student, teacher))
    return 1 if own_logits else TOKENS_PER_PACK[student.device.type]  # 1: each sequence by itself


class _Filling:
    """The arrays of the scores, made once at full length, block after block written to its rows."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.arrays: Arrays = {}

    def put(self, rows: Any, fields: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a block."""
        for name, values in fields.items():
            if name not in self.arrays:
                self.arrays[name] = scratch((self.length, *values.shape[1:]), values.dtype)
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


def _teacher_states(
    teacher: Model, batches: list[list[Rollout]], shard: Shard, keep: Keep[HiddenStates] | None
) -> HiddenStates | None:
    """Give the teacher's hidden states of a whole shard, found or made; None where nobody keeps them."""
    if keep is None or isinstance(teacher.head, OwnLogits):  # logits would fill disks
        return None

    def make() -> HiddenStates:
        return HiddenStates(torch.cat([_hidden_at_states(teacher, batch, as_teacher=True).cpu() for batch in batches]))

    return keep(shard, make)


def _shard(
    student: Model,
    teacher: Model,
    batches: list[tuple[list[Rollout], int]],
    blocks: Blocks,
    kept: Callable[[], HiddenStates | None],
    tell: Callable[[int], None],
) -> Arrays:
    """Score batches, each given with its tokens, one after the other; their rows follow each other."""
    ends = np.cumsum([0, *(sum(len(_positions(r)) for r in batch) for batch, _ in batches)])
    filling = _Filling(int(ends[-1]))
    teacher_states = kept()
    done = 0
    for n, (batch, tokens) in enumerate(batches):
        rows = np.arange(ends[n], ends[n + 1])
        if len(rows):
            found = None if teacher_states is None else teacher_states.rows(int(ends[n]), int(ends[n + 1]))
            _score_batch(_Batch(student, teacher, batch, rows), blocks, found, filling)
        done += tokens
        tell(done)
    return filling.arrays


def _score_batch(batch: _Batch, blocks: Blocks, found: Tensor | None, filling: _Filling) -> None:
    student, rollouts = batch.student, batch.rollouts
    ours = _hidden_at_states(student, rollouts)
    theirs = _hidden_at_states(batch.teacher, rollouts, as_teacher=True) if found is None else found
    sampled = torch.tensor([(*r.response_ids, -1)[p] for r in rollouts for p in _positions(r)], device=student.device)
    give_back()
    for start in range(0, len(sampled), blocks.rows):
        block = slice(start, start + blocks.rows)
        fields = blocks.score(ours[block], theirs[block].to(student.device), sampled[block])
        arrays = {name: value.cpu().numpy() for name, value in fields.items()}
        _refuse_nan(arrays, start, batch)
        filling.put(batch.rows[block], arrays)
    blocks.release()


def _hidden_at_states(model: Model, rollouts: list[Rollout], *, as_teacher: bool = False) -> Tensor:
    """Give (states of the batch, d): the hidden state before each scored position."""
    pack = Pack.of([(r.teacher_prompt_ids if as_teacher else r.prompt_ids, r.response_ids) for r in rollouts])
    return states_before(model, pack, [(i, p) for i, r in enumerate(rollouts) for p in _positions(r)])


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


def _sizes(student: Model, teacher: Model, blocks: Blocks) -> dict[str, object]:
    """Give what decides in which order numbers are added up."""
    return {
        "tokens_of_a_pack": _tokens_per_pack(student, teacher),
        "states_of_a_block": blocks.rows,
        "ids_of_a_tile": blocks.one_pass.width,
        "onednn": AVAILABLE,
    }


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
