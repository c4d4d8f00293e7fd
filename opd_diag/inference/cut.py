"""How a state set is cut into batches and shards, and the hidden states of whole shards, kept and found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_diag.inference.head import OwnLogits
from opd_diag.inference.hidden import HiddenStates, Place
from opd_diag.inference.model import Model
from opd_diag.inference.packing import TOKENS_PER_PACK, Pack, packs, states_before
from opd_diag.inference.shards import Keep, Shard, shards
from opd_diag.records.rollout import Rollout


@dataclass(frozen=True)
class Cut:
    """Rollouts in batches, and batches in shards: a pure function of prompts, lengths and kinds of models."""

    rollouts: Sequence[Rollout]
    lengths: list[int]
    """Tokens of each, with the longer of the two prompts."""
    tokens_of_a_pack: int
    parts: list[list[list[int]]]
    """By shard, by batch: rows of `rollouts`."""

    @classmethod
    def of(cls, student: Model, teacher: Model, rollouts: Sequence[Rollout]) -> Cut:
        """Cut rollouts as these two models score them."""
        own_logits = any(isinstance(model.head, OwnLogits) for model in (student, teacher))
        tokens = 1 if own_logits else TOKENS_PER_PACK[student.device.type]  # 1: each sequence by itself
        lengths = [max(len(r.prompt_ids), len(r.teacher_prompt_ids)) + len(r.response_ids) for r in rollouts]
        batches = packs(
            [(r.prompt_ids, r.teacher_prompt_ids) for r in rollouts],
            [(n - len(r.response_ids), len(r.response_ids)) for n, r in zip(lengths, rollouts, strict=True)],
            tokens,
        )
        return cls(rollouts, lengths, tokens, shards(batches, lengths))

    def shard(self, number: int) -> Shard:
        """Give the name of a shard, for who keeps it."""
        return Shard(number, len(self.parts), [*self.parts[number]])

    def inside(self, number: int) -> list[list[Rollout]]:
        """Give the batches of a shard."""
        return [[self.rollouts[i] for i in batch] for batch in self.parts[number]]

    def tokens(self, number: int) -> list[int]:
        """Give the tokens of each batch of a shard."""
        return [sum(self.lengths[i] for i in batch) for batch in self.parts[number]]

    def alone(self, number: int) -> Cut:
        """Give a shard as a set of its own, cut into the same batches."""
        rows = [i for batch in self.parts[number] for i in batch]
        new = {row: place for place, row in enumerate(rows)}
        rollouts, lengths = [self.rollouts[i] for i in rows], [self.lengths[i] for i in rows]
        batches = [[new[i] for i in batch] for batch in self.parts[number]]
        return Cut(rollouts, lengths, self.tokens_of_a_pack, [batches])

    def places(self, number: int) -> list[Place]:
        """Give (row of the rollout, position) of each state of a shard, in the order of its hidden states."""
        return [(i, p) for batch in self.parts[number] for i in batch for p in positions_of(self.rollouts[i])]


def positions_of(rollout: Rollout) -> list[int]:
    """Give the positions that are scored; one past the end is the terminal state of a truncated rollout."""
    end = [len(rollout.response_ids)] if rollout.truncated else []
    return [*rollout.state_positions, *end]


def hidden_at_states(model: Model, rollouts: Sequence[Rollout], *, as_teacher: bool = False) -> Tensor:
    """Give (states of a batch, d): the hidden state before each scored position, of the model's own dtype."""
    pack = Pack.of([(r.teacher_prompt_ids if as_teacher else r.prompt_ids, r.response_ids) for r in rollouts])
    return states_before(model, pack, [(i, p) for i, r in enumerate(rollouts) for p in positions_of(r)])


def kept_states(
    model: Model, cut: Cut, number: int, keep: Keep[HiddenStates] | None, *, as_teacher: bool
) -> HiddenStates | None:
    """Give a model's hidden states of a whole shard, found or made; None where nobody keeps them."""
    if keep is None or isinstance(model.head, OwnLogits):  # logits would fill disks
        return None

    def make() -> HiddenStates:
        batches = cut.inside(number)
        return HiddenStates(
            torch.cat([hidden_at_states(model, batch, as_teacher=as_teacher).cpu() for batch in batches])
        )

    return keep(cut.shard(number), make)


@torch.inference_mode()
def hidden_as_scored(
    model: Model, cut: Cut, places: Sequence[Place], keep: Keep[HiddenStates], *, as_teacher: bool
) -> Tensor | None:
    """Give the hidden states at some places as the scoring of the whole set made them.

    Parameters
    ----------
    model
        The model.
    cut
        Of the whole state set, as the scoring has it.
    places
        (row of the rollout, position) of each state.
    keep
        Finds what the scoring kept; a shard that is gone is made again, whole, so that no number depends on it.
    as_teacher
        Whether it sees each rollout's `teacher_prompt_ids`.

    Returns
    -------
    Tensor or None
        (len(places), d), float32, on the CPU; None of a model whose hidden states are not kept.
    """
    found: dict[Place, Tensor] = {}
    wanted = set(places)
    for number in range(len(cut.parts)):
        here = [(row, place) for row, place in enumerate(cut.places(number)) if place in wanted]
        if not here:
            continue
        states = kept_states(model, cut, number, keep, as_teacher=as_teacher)
        if states is None:
            return None
        rows = states.rows(0, len(cut.places(number)))[[row for row, _ in here]].float()
        found |= {place: state for (_, place), state in zip(here, rows, strict=True)}
    return torch.stack([found[place] for place in places])
