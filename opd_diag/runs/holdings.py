"""What one folder holds, as a record, and where its config comes from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opd_diag.records.checkpoint import CheckpointKind
from opd_diag.runs.disk import Disk

CONFIG = "config.json"

SAVE_AGAIN = "Wait until it is saved, or copy or save it again; until then it is left out."
NAME_CONFIG = f"Copy {CONFIG} of the model that was trained into it, or name that model with --student or --base-model."

Place = Path | str
"""A folder, or a hub id."""


@dataclass(frozen=True)
class Weights:
    """What one folder holds."""

    kind: CheckpointKind
    """As in :class:`~opd_diag.records.checkpoint.Checkpoint`."""
    files: tuple[Path, ...] = ()
    """The weight files that are there, in order of name; empty when there are none."""
    folder: Path | None = None
    """The folder of the files where that is another than was asked for."""
    base_model: str | None = None
    """Path or hub id of the model under an adapter; None for full weights, or when nothing names it."""
    config: Path | None = None
    """Folder or hub id that ``config.json`` comes from where none lies beside the files."""
    code: str | None = None
    """Short name of what `blocker` is about, in capitals; None without one."""
    blocker: str | None = None
    """Why the weights cannot be loaded, one sentence; None when nothing speaks against it."""
    way_out: str | None = None
    """What to do about `blocker`, one sentence."""
    note: str | None = None
    """What a reader should know, one sentence."""

    def blocked(self, code: str, blocker: str, way_out: str) -> Weights:
        """Give the same weights with what blocks them."""
        return replace(self, code=code, blocker=blocker, way_out=way_out)


def is_local(model: str) -> bool:
    """Whether a model name can only be a path, as hub ids have at most one slash and start with a letter or digit.

    Examples
    --------
    >>> [is_local(name) for name in ("org/name@main", "gpt2", "./name", "/models/name", "a/b/c")]
    [False, False, True, True, True]
    """
    return model.startswith((".", "/", "~")) or model.count("/") > 1


def with_config(weights: Weights, disk: Disk, folder: Path, configs: Sequence[Place], what: str) -> Weights:
    """Give weights with the place of their config, or blocked where there is none or it cannot be read.

    Parameters
    ----------
    weights
        What lies in `folder`, nothing blocking it yet.
    disk
        What is known of the disk.
    folder, configs
        Where the config may lie, best first: the folder of the weights, then folders; hub ids are not looked up.
    what
        What of the weights is there, for the message.

    Raises
    ------
    OSError
        A config is there and cannot be read.
    """
    for place in (folder, *map(Path, configs)):
        if CONFIG in disk.names(place):
            problem = disk.json_object(place / CONFIG)[1]
            if problem:
                return weights.blocked("UNREADABLE", problem, SAVE_AGAIN)
            return weights if place == folder else replace(weights, config=place)
    hub = next((place for place in map(str, configs) if not is_local(place) and not os.path.exists(place)), None)
    if hub is not None:
        return replace(weights, config=Path(hub))
    searched = ", ".join(map(str, configs))
    elsewhere = f"; looked in {searched} too" if searched else ""
    return weights.blocked("CONFIG_MISSING", f"It has {what} but no {CONFIG}{elsewhere}.", NAME_CONFIG)
