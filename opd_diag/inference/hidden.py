"""Last hidden states at chosen places of whole sequences: what heads turn into logits, and what states look like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_diag.inference.batches import length_sorted_batches, right_padded
from opd_diag.inference.loading import Model
from opd_diag.records.rollout import Rollout

Place = tuple[int, int]
"""(row of the rollout, position): the state before that response token."""


@torch.inference_mode()
def teacher_hidden(teacher: Model, rollouts: Sequence[Rollout], places: Sequence[Place]) -> Tensor:
    """Give the teacher's last hidden state at chosen states.

    Parameters
    ----------
    teacher
        The model; it sees each rollout's `teacher_prompt_ids`.
    rollouts
        Whose states are meant; only those that `places` name are run.
    places
        (row of the rollout, position) of each state.

    Returns
    -------
    Tensor
        (len(places), d), float32, on the CPU, in the order of `places`.
    """
    rows = sorted({row for row, _ in places})
    sequences = [[*rollouts[row].teacher_prompt_ids, *rollouts[row].response_ids] for row in rows]
    found: dict[Place, Tensor] = {}
    for batch in length_sorted_batches([len(s) for s in sequences]):
        wanted = [(b, place) for b, i in enumerate(batch) for place in places if place[0] == rows[i]]
        columns = [len(rollouts[row].teacher_prompt_ids) + position - 1 for _, (row, position) in wanted]
        hidden = hidden_at(teacher, [sequences[i] for i in batch], [b for b, _ in wanted], columns)
        found |= {place: state for (_, place), state in zip(wanted, hidden.float().cpu(), strict=True)}
    return torch.stack([found[place] for place in places])


def hidden_at(model: Model, sequences: Sequence[Sequence[int]], rows: list[int], columns: list[int]) -> Tensor:
    """Run the body over padded `sequences` and give the (n, d) hidden states at (row, column)."""
    hidden = model.hidden(right_padded(sequences, model.device))
    return hidden[rows, columns]
