"""A model that is loaded when it is first needed: where everything is stored, never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from opd_diag.inference import HeadCheck, Model, check_head, load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import Settings
from opd_diag.runs import fingerprint
from opd_diag.tokenization import Tokenizer


@dataclass
class LazyModel:
    """A checkpoint, and its model once someone asks for it."""

    checkpoint: Checkpoint
    settings: Settings
    name: str
    """How messages call it."""
    tokenizer: Tokenizer
    checked: bool = False
    """Whether its head was checked in this process."""

    @cached_property
    def key(self) -> str:
        """Fingerprint of the weights."""
        return fingerprint(self.checkpoint)

    @cached_property
    def model(self) -> Model:
        """The model, loaded."""
        return load_model(
            self.checkpoint,
            name=self.name,
            key=self.key,
            dtype=self.settings.dtype,
            device=self.settings.device,
            stop_ids=self.tokenizer.stop_ids,
            trust_remote_code=self.settings.trust_remote_code,
        )

    def checked_on(self, ids: Sequence[int]) -> HeadCheck:
        """Check the head of the model on one sequence."""
        check = check_head(self.model, list(ids))
        self.checked = True
        return check


def longest_ids(rollouts: Sequence[Rollout]) -> tuple[int, ...]:
    """Give prompt and response of the rollout with the longest response, to check heads on."""
    longest = max(rollouts, key=lambda r: len(r.response_ids))
    return (*longest.prompt_ids, *longest.response_ids)
