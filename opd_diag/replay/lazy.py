"""A model that is put in memory when it is first needed: where everything is stored, never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from opd_diag.inference import HeadCheck, Model, check_head
from opd_diag.inference.device_maps import wanted_places
from opd_diag.inference.swapping import Resident
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import Settings
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import CheckpointContent, checkpoint_content, refuse_other
from opd_diag.tokenization import Tokenizer


@dataclass
class LazyModel:
    """A checkpoint, and its model once someone asks for it."""

    checkpoint: Checkpoint
    settings: Settings
    name: str
    """How messages call it."""
    tokenizer: Tokenizer
    resident: Resident = field(default_factory=Resident)
    """Where it is put in memory; of several models that share one, the last that was asked for is there."""
    digests: Digests = field(default_factory=Digests)
    """What is known of files."""
    role: str = "student"
    """``student`` or ``teacher``, as ``--device-map`` names them."""
    before: Callable[[], None] | None = None
    """Called before weights are read; may refuse."""
    checked: bool = False
    """Whether its head was checked in this process."""

    @cached_property
    def content(self) -> CheckpointContent:
        """What its files held when they were first read: the parts that are stored are of these bytes."""
        return checkpoint_content(self.checkpoint, self.digests)

    @cached_property
    def key(self) -> str:
        """Fingerprint of the weights."""
        return self.content.key

    @property
    def model(self) -> Model:
        """The model. Ask again rather than keep it: it is gone when another one takes its place in memory.

        Raises
        ------
        CheckpointError
            It cannot be loaded, or its files no longer hold what they did.
        """
        return self.resident.model(self.checkpoint, self.key) or self._loaded()

    def refuse_changed(self) -> CheckpointContent:
        """Give what its files hold now; refuse what was written to since they were first read.

        Raises
        ------
        CheckpointError
            Naming the first file that differs.
        """
        now = checkpoint_content(self.checkpoint, self.digests)
        refuse_other(self.content, now)
        return now

    def _loaded(self) -> Model:
        now = self.refuse_changed()
        if self.before is not None:
            self.before()
        return self.resident.load(
            self.checkpoint,
            now,
            name=self.name,
            dtype=self.settings.dtype,
            device=self.settings.device,
            device_map=wanted_places(self.settings.device_map, self.settings.tensor_parallel).get(self.role),
            stop_ids=self.tokenizer.stop_ids,
            trust_remote_code=self.settings.trust_remote_code,
            allow_pickle=self.settings.allow_pickle,
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
