"""Last hidden states kept for those who ask next: another checkpoint of a replay, or another pair of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from opd_diag.inference import Cut, HiddenStates, Keep, Place, hidden_as_scored
from opd_diag.records.files import content_key
from opd_diag.records.rollout import Rollout
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.store import Store

HIDDEN_VERSION = 1
"""Raised whenever hidden states are packed or read in another way."""


@dataclass(frozen=True)
class KeptHidden:
    """Where hidden states are kept, by model and by states."""

    store: Store
    dtype: str

    def states_of(self, model: LazyModel, rollouts: Sequence[Rollout], *, as_teacher: bool) -> Keep[HiddenStates]:
        """Give what keeps a model's states before every scored position; in either role, where both see the same."""
        same_view = all(r.prompt_ids == r.teacher_prompt_ids for r in rollouts)
        role = "either" if same_view else "teacher" if as_teacher else "student"
        return self.under([role, model.key, seen(rollouts)])

    def under(self, decides: list[object]) -> Keep[HiddenStates]:
        """Give what keeps states that all this decides."""
        key = content_key(["hidden", HIDDEN_VERSION, self.dtype, *decides])
        return self.store.shards(key, ".safetensors", save=_save, load=HiddenStates, part_of_nothing=True)

    def at(
        self,
        models: tuple[LazyModel, LazyModel],
        rollouts: Sequence[Rollout],
        places: Sequence[Place],
        *,
        as_teacher: bool,
    ) -> Tensor | None:
        """Give what the scoring of these rollouts by (student, teacher) left of one of them at some places."""
        student, teacher = models
        cut, model = Cut.of(student.model, teacher.model, rollouts), models[as_teacher]
        keep = self.states_of(model, rollouts, as_teacher=as_teacher)
        return hidden_as_scored(model.model, cut, places, keep, as_teacher=as_teacher)


def seen(rollouts: Sequence[Rollout]) -> list[object]:
    """Give what of rollouts decides their scores."""
    return [[r.prompt_ids, r.teacher_prompt_ids, r.response_ids, r.stop_reason, r.generated] for r in rollouts]


def _save(path: Path, states: HiddenStates) -> None:
    states.save(path)
