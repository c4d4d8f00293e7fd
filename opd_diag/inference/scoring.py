"""Rollouts → scores: student and teacher, teacher-forced on the same ids, exact over the whole vocabulary.

Both bodies run over packs of whole sequences, a prompt once for all its responses
(:mod:`~opd_diag.inference.packing`); hidden states are kept at response positions only. Both heads then run
over blocks of states whose logits fit a fixed budget of memory, and are reduced in one pass
(:mod:`~opd_diag.inference.onepass`). No tensor of (all tokens, vocabulary) ever exists.

Where the two vocabularies differ by padding rows, both distributions are cut to the common ids and
renormalised; the mass that was cut is a field of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag.errors import ModelError, RolloutsError
from opd_diag.inference.block import BlockPlan, Blocks
from opd_diag.inference.cut import Cut, hidden_at_states, kept_states, positions_of
from opd_diag.inference.hidden import HiddenStates
from opd_diag.inference.linear import AVAILABLE
from opd_diag.inference.memory import give_back
from opd_diag.inference.model import Model
from opd_diag.inference.outline import Filling, Outline
from opd_diag.inference.shards import Keep, Progress, Told, keep_nothing
from opd_diag.records.arrays import Arrays
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT


@torch.inference_mode()
def score(  # noqa: PLR0913 - one place to keep each of what it makes
    student: Model,
    teacher: Model,
    rollouts: Sequence[Rollout],
    *,
    states: str = "on-policy",
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    progress: Progress | None = None,
    keep: Keep[Arrays] = keep_nothing,
    keep_student: Keep[HiddenStates] | None = None,
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
    keep_student, keep_teacher
        The same for each model's last hidden states, which other pairs at the same states can use again: where they
        are found, that body does not run. Default: they are not kept beyond a batch.

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
    scoring = Scoring(student, teacher, student_temperature, teacher_temperature)
    outline = scoring.outline(rollouts, states)
    cut = outline.cut
    told = Told(progress, sum(cut.lengths))

    def shards() -> Iterator[tuple[int, Arrays]]:
        for number in range(len(cut.parts)):
            make = partial(scoring.shard, cut, number, keep_student, keep_teacher, told.within)
            yield number, keep(cut.shard(number), make)
            told.shard(sum(cut.tokens(number)))

    return outline.together(shards())


class Scoring:
    """A student and a teacher, ready to score: a state set is outlined first, then each of its shards is scored."""

    def __init__(self, student: Model, teacher: Model, student_temperature: float, teacher_temperature: float) -> None:
        self.student, self.teacher = student, teacher
        self.plan = _plan(student, teacher, student_temperature, teacher_temperature)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.student.head, self.teacher.head, self.plan)

    @torch.inference_mode()
    def outline(self, rollouts: Sequence[Rollout], states: str) -> Outline:
        """Cut a state set; parameters and errors as :func:`score`."""
        validate(rollouts, self.student, self.teacher, self.plan.vocabulary)
        cut = Cut.of(self.student, self.teacher, rollouts)
        about = _provenance(self.student, self.teacher, states, self.plan) | {"sizes": _sizes(cut, self._blocks)}
        return Outline(cut, self.plan.grid, about)

    @torch.inference_mode()
    def shard(
        self,
        cut: Cut,
        number: int,
        keep_student: Keep[HiddenStates] | None = None,
        keep_teacher: Keep[HiddenStates] | None = None,
        tell: Callable[[int], None] = lambda done: None,
    ) -> Arrays:
        """Give the fields of one shard, its rows in the order of its batches.

        Parameters
        ----------
        cut, number
            Of which set which shard.
        keep_student, keep_teacher
            As of :func:`score`.
        tell
            Called with the tokens that are done after each batch.

        Raises
        ------
        ModelError
            A model gives NaN or infinite logits.
        """
        inside = list(zip(cut.inside(number), cut.tokens(number), strict=True))
        kept = partial(_kept, cut, number, (self.student, keep_student), (self.teacher, keep_teacher))
        return _shard(self.student, self.teacher, inside, self._blocks, kept, tell)


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


class Reader(Protocol):
    """Who reads rollouts: a model here, or one behind a server."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def context(self) -> int | None:
        """Most tokens that it reads; None where there is no limit, or none is known."""


def validate(rollouts: Sequence[Rollout], student: Reader, teacher: Reader, vocabulary: int) -> None:
    """Refuse rollouts that the two cannot be scored on; `vocabulary` is the number of their common ids.

    Raises
    ------
    RolloutsError
        No rollout has a state, an id lies outside the common vocabulary, or a sequence exceeds a context.
    """
    if not any(r.state_positions for r in rollouts):
        raise RolloutsError(f"Nothing to score: none of the {len(rollouts)} rollouts has a response token.")
    for rollout in rollouts:
        highest = max(*rollout.prompt_ids, *rollout.teacher_prompt_ids, *rollout.response_ids, 0)
        if highest >= vocabulary:
            raise RolloutsError(
                f"Rollout {rollout.name} holds token id {highest}, but {student.name} and {teacher.name} have only "
                f"{vocabulary} ids in common. These rollouts belong to another tokenizer."
            )
        for reader, prompt in ((student, rollout.prompt_ids), (teacher, rollout.teacher_prompt_ids)):
            length = len(prompt) + len(rollout.response_ids)
            if reader.context is not None and length > reader.context:
                raise RolloutsError(
                    f"Rollout {rollout.name} has {length} tokens, {reader.name} takes {reader.context}. "
                    "Lower --max-new-tokens or leave the prompt out."
                )


KeptPair = tuple[HiddenStates | None, HiddenStates | None]
"""Hidden states of a shard, of student and teacher, where they are kept."""

_Kept = tuple[Model, Keep[HiddenStates] | None]


def _kept(cut: Cut, number: int, student: _Kept, teacher: _Kept) -> KeptPair:
    ours = kept_states(student[0], cut, number, student[1], as_teacher=False)
    return ours, kept_states(teacher[0], cut, number, teacher[1], as_teacher=True)


def _shard(
    student: Model,
    teacher: Model,
    batches: list[tuple[list[Rollout], int]],
    blocks: Blocks,
    kept: Callable[[], KeptPair],
    tell: Callable[[int], None],
) -> Arrays:
    """Score batches, each given with its tokens, one after the other; their rows follow each other."""
    ends = np.cumsum([0, *(sum(len(positions_of(r)) for r in batch) for batch, _ in batches)])
    filling = Filling(int(ends[-1]))
    states = kept()
    done = 0
    for n, (batch, tokens) in enumerate(batches):
        rows = np.arange(ends[n], ends[n + 1])
        if len(rows):
            found = [None if of is None else of.rows(int(ends[n]), int(ends[n + 1])) for of in states]
            _score_batch(_Batch(student, teacher, batch, rows), blocks, found, filling)
        done += tokens
        tell(done)
    return filling.arrays


def _score_batch(batch: _Batch, blocks: Blocks, found: Sequence[Tensor | None], filling: Filling) -> None:
    student, rollouts = batch.student, batch.rollouts
    ours, theirs = found
    ours = hidden_at_states(student, rollouts) if ours is None else ours
    theirs = hidden_at_states(batch.teacher, rollouts, as_teacher=True) if theirs is None else theirs
    sampled = torch.tensor([(*r.response_ids, -1)[p] for r in rollouts for p in positions_of(r)], device=student.device)
    give_back()
    for start in range(0, len(sampled), blocks.rows):
        block = slice(start, start + blocks.rows)
        fields = blocks.score(ours[block].to(student.device), theirs[block].to(student.device), sampled[block])
        arrays = {name: value.cpu().numpy() for name, value in fields.items()}
        _refuse_nan(arrays, start, batch)
        filling.put(batch.rows[block], arrays)
    blocks.release()


def _refuse_nan(arrays: Mapping[str, npt.NDArray[Any]], start: int, batch: _Batch) -> None:
    for model, name in ((batch.student, "student_entropy"), (batch.teacher, "teacher_entropy")):
        bad = np.flatnonzero(np.isnan(arrays[name]))
        if len(bad):
            places = [(r, p) for r in batch.rollouts for p in positions_of(r)]
            rollout, position = places[start + int(bad[0])]
            raise ModelError(
                f"{model.name} gives NaN or infinite logits at rollout {rollout.name}, position {position}. "
                "Its weights are damaged or overflow in this precision; try --dtype float32."
            )


def _sizes(cut: Cut, blocks: Blocks) -> dict[str, object]:
    """Give what decides in which order numbers are added up."""
    return {
        "tokens_of_a_pack": cut.tokens_of_a_pack,
        "states_of_a_block": blocks.rows,
        "ids_of_a_tile": blocks.one_pass.width,
        "onednn": AVAILABLE,
    }


def _provenance(student: Model, teacher: Model, states: str, plan: BlockPlan) -> dict[str, object]:
    return {
        "states": states,
        "student": of_model(student) | {"label": student.label, "step": student.step},
        "teacher": of_model(teacher),
        "student_temperature": plan.student_temperature,
        "teacher_temperature": plan.teacher_temperature,
        "common_vocabulary": plan.vocabulary,
        "stop_ids": list(plan.stop_ids),
        "dtype": str(student.dtype).removeprefix("torch."),
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def of_model(model: Model) -> dict[str, object]:
    """Say which model it is."""
    parameters = sum(p.numel() for p in model.hf.parameters())
    return {"name": model.name, "key": model.key, "vocabulary": model.vocabulary, "parameters": parameters}
