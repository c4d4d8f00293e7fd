"""Rollouts → scores: student and teacher, teacher-forced on the same ids, exact over the whole vocabulary.

Both bodies run over a batch of whole sequences; hidden states are kept at response positions only. Both heads then run
over blocks of states small enough that a few (states × vocabulary) matrices fit a fixed budget of memory, and the
functions of :mod:`opd_diag.metrics` reduce them. No tensor of (all tokens, vocabulary) ever exists.

Where the two vocabularies differ by padding rows, both distributions are cut to the common ids and renormalised; the
mass that was cut is a field of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag import metrics
from opd_diag.errors import ModelError, RolloutsError
from opd_diag.inference.batches import length_sorted_batches, right_padded
from opd_diag.inference.loading import Model
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT

BLOCK_BYTES = 24 * 2**20
"""Size of one (states × vocabulary) float32 matrix; some six of them exist at a time."""

Progress = Callable[[int, int], None]
"""(tokens done, tokens in all), called after each batch."""


@dataclass(frozen=True)
class _Plan:
    """What is the same for every block."""

    vocabulary: int
    student_temperature: float
    teacher_temperature: float
    stop_ids: tuple[int, ...]
    grid: tuple[int, ...]
    k_kept: int


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
        Called with (tokens done, tokens in all) after each batch.

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
    parts: list[dict[str, npt.NDArray[np.generic]]] = []
    done = 0
    for batch in length_sorted_batches(lengths):
        places = [(i, p) for i in batch for p in _positions(rollouts[i])]
        if places:
            parts += _score_batch(student, teacher, [rollouts[i] for i in batch], batch, places, plan)
        done += sum(lengths[i] for i in batch)
        if progress is not None:
            progress(done, sum(lengths))
    return _joined(parts, plan, _provenance(student, teacher, states, plan))


def _plan(student: Model, teacher: Model, student_temperature: float, teacher_temperature: float) -> _Plan:
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    return _Plan(
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


def _score_batch(
    student: Model,
    teacher: Model,
    rollouts: list[Rollout],
    rows: list[int],
    places: list[tuple[int, int]],
    plan: _Plan,
) -> list[dict[str, npt.NDArray[np.generic]]]:
    hidden_student = _hidden_at_states(student, rollouts, [r.prompt_ids for r in rollouts])
    hidden_teacher = _hidden_at_states(teacher, rollouts, [r.teacher_prompt_ids for r in rollouts])
    response = dict(zip(rows, (r.response_ids for r in rollouts), strict=True))
    sampled = [response[i][p] if p < len(response[i]) else -1 for i, p in places]
    size = max(1, BLOCK_BYTES // (4 * max(student.vocabulary, teacher.vocabulary)))
    parts = []
    for start in range(0, len(places), size):
        block = slice(start, start + size)
        fields = _score_block(
            student.head.logits(hidden_student[block]),
            teacher.head.logits(hidden_teacher[block].to(teacher.device)),
            torch.tensor(sampled[block], device=student.device),
            plan,
        )
        arrays = {name: value.cpu().numpy() for name, value in fields.items()}
        _refuse_nan(arrays, places[block], rollouts, rows, student, teacher)
        arrays["rollout"] = np.array([i for i, _ in places[block]], dtype=np.int32)
        arrays["position"] = np.array([p for _, p in places[block]], dtype=np.int32)
        parts.append(arrays)
    return parts


def _hidden_at_states(model: Model, rollouts: list[Rollout], prompts: list[tuple[int, ...]]) -> Tensor:
    """Give (states of the batch, d): the hidden state before each scored position."""
    sequences = [[*prompt, *r.response_ids] for prompt, r in zip(prompts, rollouts, strict=True)]
    hidden = model.hidden(right_padded(sequences, model.device))
    row = [b for b, r in enumerate(rollouts) for _ in _positions(r)]
    column = [len(prompts[b]) + p - 1 for b, r in enumerate(rollouts) for p in _positions(r)]
    return hidden[row, column]


def _score_block(student: Tensor, teacher: Tensor, sampled: Tensor, plan: _Plan) -> dict[str, Tensor]:
    """Reduce two (m, V) matrices of logits to the fields of m states; the matrices are overwritten."""
    p, student_cut = _normalised(student, plan.student_temperature, plan.vocabulary)
    q, teacher_cut = _normalised(teacher.to(student.device), plan.teacher_temperature, plan.vocabulary)
    fields = {
        "student_cut_mass": student_cut,
        "teacher_cut_mass": teacher_cut,
        "sampled_ids": sampled.int(),
        "terminal": sampled < 0,
        "student_sampled_logprobs": _at(p, sampled),
        "teacher_sampled_logprobs": _at(q, sampled),
        "student_entropy": metrics.entropy(p),
        "teacher_entropy": metrics.entropy(q),
        "reverse_kl": metrics.reverse_kl(p, q),
        "forward_kl": metrics.forward_kl(p, q),
        "jensen_shannon": metrics.jensen_shannon(p, q),
        "common_mass": metrics.common_mass(p, q),
        "student_stop_logprobs": metrics.stop_logprobs(p, plan.stop_ids),
        "teacher_stop_logprobs": metrics.stop_logprobs(q, plan.stop_ids),
        "gradient_squared_norm": metrics.gradient_squared_norm(p, q),
    }
    return fields | _kept_fields(p, q, plan)


def _kept_fields(p: Tensor, q: Tensor, plan: _Plan) -> dict[str, Tensor]:
    k, size = plan.k_kept, max(plan.k_kept, plan.grid[-1])
    student_logprobs, student_ids = metrics.topk(p, size)
    teacher_logprobs, teacher_ids = metrics.topk(q, size)
    teacher_at_student = q.gather(-1, student_ids)
    kept = metrics.Kept(student_ids, student_logprobs, teacher_at_student, teacher_ids, teacher_logprobs)
    curve = metrics.concentration(kept, plan.grid)
    return {
        "student_topk_ids": student_ids[:, :k].int(),
        "student_topk_logprobs": student_logprobs[:, :k],
        "teacher_at_student_topk_logprobs": teacher_at_student[:, :k],
        "teacher_topk_ids": teacher_ids[:, :k].int(),
        "teacher_topk_logprobs": teacher_logprobs[:, :k],
        "student_at_teacher_topk_logprobs": p.gather(-1, teacher_ids[:, :k]),
        "curve_shared": curve.shared.int(),
        "curve_student_shared_mass": curve.student_shared_mass,
        "curve_teacher_shared_mass": curve.teacher_shared_mass,
        "curve_student_mass": curve.student_mass,
        "curve_teacher_mass": curve.teacher_mass,
    }


def _normalised(logits: Tensor, temperature: float, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Give log-probabilities over the common vocabulary, in place, and the mass that was cut."""
    if temperature != 1.0:
        logits.div_(temperature)
    common = logits[:, :vocabulary]
    norm = common.logsumexp(-1)
    rest = logits[:, vocabulary:]
    cut = torch.zeros_like(norm) if not rest.shape[1] else torch.sigmoid(rest.logsumexp(-1) - norm)
    return common.sub_(norm.unsqueeze(-1)), cut


def _at(logprobs: Tensor, ids: Tensor) -> Tensor:
    values = logprobs.gather(-1, ids.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return values.masked_fill(ids < 0, math.nan)


def _refuse_nan(
    arrays: dict[str, npt.NDArray[np.generic]],
    places: list[tuple[int, int]],
    rollouts: list[Rollout],
    rows: list[int],
    student: Model,
    teacher: Model,
) -> None:
    for model, name in ((student, "student_entropy"), (teacher, "teacher_entropy")):
        bad = np.flatnonzero(np.isnan(arrays[name].astype(np.float64)))
        if len(bad):
            row, position = places[int(bad[0])]
            rollout = rollouts[rows.index(row)]
            raise ModelError(
                f"{model.name} gives NaN or infinite logits at rollout {rollout.name}, position {position}. "
                "Its weights are damaged or overflow in this precision; try --dtype float32."
            )


def _joined(parts: list[dict[str, npt.NDArray[np.generic]]], plan: _Plan, provenance: dict[str, object]) -> Scores:
    return Scores.joined([Scores(**part, grid=plan.grid, provenance=provenance) for part in parts])  # type: ignore[arg-type]


def _provenance(student: Model, teacher: Model, states: str, plan: _Plan) -> dict[str, object]:
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
