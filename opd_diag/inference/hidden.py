"""Last hidden states at chosen places of whole sequences: what heads turn into logits, and what states look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from opd_diag.errors import StoreError
from opd_diag.inference.head import OwnLogits
from opd_diag.inference.model import Model
from opd_diag.inference.packing import TOKENS_PER_PACK, Pack, packs, states_before
from opd_diag.records.arrays import load_described, save_arrays
from opd_diag.records.rollout import Rollout

Place = tuple[int, int]
"""(row of the rollout, position): the state before that response token."""


@dataclass(frozen=True)
class HiddenStates:
    """Last hidden states of many states, in memory or in a file that is mapped: as exact as the model was run."""

    source: Tensor | Path
    """(n, d), or the file that holds it."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Give the states from `start` on, before `stop`; of a file, only these are read.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        if isinstance(self.source, Tensor):
            return self.source[start:stop]
        arrays, about = load_described(self.source)
        if "states" not in arrays or about.get("dtype") not in _DTYPES:
            raise StoreError(f"{self.source} holds no hidden states. Delete it and run report again.")
        return torch.from_numpy(arrays["states"][start:stop].copy()).view(_DTYPES[about["dtype"]])

    def save(self, path: Path) -> None:
        """Write them whole or not at all."""
        assert isinstance(self.source, Tensor)
        bits = self.source if self.source.element_size() > 2 else self.source.view(torch.uint16)  # numpy lacks bfloat16
        save_arrays(path, {"states": bits.numpy()}, {"dtype": str(self.source.dtype).removeprefix("torch.")})


_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.bfloat16, torch.float16)}


def teacher_hidden(teacher: Model, rollouts: Sequence[Rollout], places: Sequence[Place]) -> Tensor:
    """Do :func:`hidden_at` for the teacher, which sees each rollout's `teacher_prompt_ids`."""
    return hidden_at(teacher, rollouts, places, as_teacher=True)


@torch.inference_mode()
def hidden_at(
    model: Model, rollouts: Sequence[Rollout], places: Sequence[Place], *, as_teacher: bool = False
) -> Tensor:
    """Give the last hidden state at chosen states.

    Parameters
    ----------
    model
        The model.
    rollouts
        Whose states are meant; only those that `places` name are run.
    places
        (row of the rollout, position) of each state.
    as_teacher
        Whether it sees each rollout's `teacher_prompt_ids`; default: its `prompt_ids`.

    Returns
    -------
    Tensor
        (len(places), d), float32, on the CPU, in the order of `places`; (0, d) without any, then no model is run.
    """
    if not places:
        return torch.zeros(0, model.vocabulary if isinstance(model.head, OwnLogits) else model.head.weight.shape[1])
    rows = sorted({row for row, _ in places})
    prompts = [rollouts[row].teacher_prompt_ids if as_teacher else rollouts[row].prompt_ids for row in rows]
    lengths = [(len(prompt), len(rollouts[row].response_ids)) for prompt, row in zip(prompts, rows, strict=True)]
    found: dict[Place, Tensor] = {}
    for batch in packs(prompts, lengths, TOKENS_PER_PACK[model.device.type]):
        pack = Pack.of([(prompts[i], rollouts[rows[i]].response_ids) for i in batch])
        wanted = [(b, place) for b, i in enumerate(batch) for place in places if place[0] == rows[i]]
        hidden = states_before(model, pack, [(b, position) for b, (_, position) in wanted])
        found |= {place: state for (_, place), state in zip(wanted, hidden.float().cpu(), strict=True)}
    return torch.stack([found[place] for place in places])
