"""Which checkpoint scores what a trainer recorded: the nearest at or before the weights that wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.recorded import FORMATS, RecordedFile

NO_UPDATES = "of which nothing tells how many updates were behind the weights"
EARLIER = "written before the first checkpoint"
STALER = "staler than --max-staleness"
ENOUGH = "beyond --max-prompts times --rollouts-per-prompt for their checkpoint"


@dataclass(frozen=True)
class Pairing:
    """Which checkpoint scores responses of which weights."""

    steps: tuple[int, ...]
    """Of the checkpoints, increasing; those without a step are paired with nothing."""
    most: int
    """Most updates by which the weights may be ahead of the checkpoint."""

    @classmethod
    def of(cls, checkpoints: Iterable[Checkpoint], max_staleness: int | None) -> Pairing:
        """Pair with these checkpoints.

        Without `max_staleness` the weights may be ahead by less than the smallest distance of two checkpoints, so that
        all checkpoints can have responses of every staleness; of one checkpoint alone, by nothing.

        Examples
        --------
        >>> from pathlib import Path
        >>> checkpoints = [Checkpoint(f"step {s}", s, Path(), "full") for s in (0, 20, 60)]
        >>> pairing = Pairing.of(checkpoints, None)
        >>> pairing.most, pairing.step_of(39), pairing.step_of(40)
        (19, 20, 'staler than --max-staleness')
        """
        steps = tuple(sorted({c.step for c in checkpoints if c.step is not None}))
        gaps = [later - earlier for earlier, later in pairwise(steps)]
        return cls(steps, min(gaps, default=1) - 1 if max_staleness is None else max_staleness)

    def step_of(self, updates: int) -> int | str:
        """Give the step of the checkpoint that scores what weights of so many updates wrote, or why there is none."""
        at_or_before = [step for step in self.steps if step <= updates]
        if not at_or_before:
            return EARLIER
        return at_or_before[-1] if updates - at_or_before[-1] <= self.most else STALER

    def of_no_use(self, file: RecordedFile, full: set[int]) -> str | None:
        """Tell by its name that a file holds nothing of use, and why; None where it must be read.

        What is filed under N was written with N - 1 or N updates, or with fewer where the records name the version of
        the weights. `full` are steps that need no more.
        """
        if file.step is None:
            return None
        older = [step for step in self.steps if step < file.step] if FORMATS[file.format].names_version else []
        found = {self.step_of(updates) for updates in (*older, max(file.step - 1, 0), file.step)}
        steps = {step for step in found if isinstance(step, int)}
        if steps - full:
            return None
        return ENOUGH if steps else str(found.pop())
