"""One set of weights of a run: where it is, how it loads, or what blocks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CheckpointKind = Literal["full", "adapter", "fsdp", "distributed", "served", "other"]
"""``full``: Hugging Face weights. ``adapter``: a PEFT adapter. ``fsdp``: the shards that verl and SkyRL write, one file
a rank. ``distributed``: a torch distributed checkpoint. ``served``: behind a server, `path` being its name there.
``other``: weights that must be converted first."""


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights of a run."""

    label: str
    """Name on pages and in tables, for example ``step 40``; unique within a run."""
    step: int | None
    """Optimiser steps behind the weights; None when unknown (then `label` orders them)."""
    path: Path
    """Folder of the weights; for a hub model the id stands here as given."""
    kind: CheckpointKind
    """What `path` holds; an adapter is one on `base_model`."""
    base_model: str | None = None
    """Path or hub id of the model under an adapter; None for full weights."""
    config: Path | None = None
    """Folder of ``config.json`` where that does not lie in `path`, as of shards; None: in `path`."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; None when the folder of the weights has none."""
    complete: bool | None = True
    """Whether the save had finished; None when nothing tells."""
    code: str | None = None
    """Short name of what `blocker` is about, in capitals, as ``INCOMPLETE_WEIGHTS``; None without one."""
    blocker: str | None = None
    """Why it cannot be loaded, one sentence; None when it can."""
    way_out: str | None = None
    """What to do about `blocker`, one sentence."""
    note: str | None = None
    """Anything a reader of the report must know about it, one sentence."""
    files: tuple[Path, ...] = ()
    """Its weight files as far as they are there; empty for a hub model."""

    @property
    def loadable(self) -> bool:
        """Whether nothing is known that blocks loading."""
        return self.blocker is None

    @property
    def slug(self) -> str:
        """File-name form: ``step-000040``, or the label with everything but letters and digits as dashes.

        Examples
        --------
        >>> Checkpoint("step 40", 40, Path("checkpoint-40"), "full").slug
        'step-000040'
        >>> Checkpoint("final", None, Path("."), "full").slug
        'final'
        """
        if self.step is not None:
            return f"step-{self.step:06d}"
        return "".join(c if c.isalnum() else "-" for c in self.label)
