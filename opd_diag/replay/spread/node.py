"""What a worker finds and keeps on its machine: folders of weights, the teacher's hidden states."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from opd_diag.errors import StoreError
from opd_diag.inference import Keep, Shard
from opd_diag.inference.shards import keep_nothing
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.store import Store
from opd_diag.runs.logged import LogsOfRun

T = TypeVar("T")

WAY_OUT = "Set TMPDIR to a folder with room on that machine."


class Scratch(Store):
    """What a worker has in place of OUT_DIR: parts are made and handed over, hidden states stay on the machine.

    Workers of one machine share its folder. Files appear whole, and are named by all that decides their content, so
    that any number of workers may write and read at once.
    """

    handed: Any = None
    """The part that was made last."""

    def part(
        self,
        name: str,
        key: str,
        *,
        make: Callable[[], T],
        save: Callable[[Path, T], None],
        load: Callable[[Path], T],
        share: bool = True,
    ) -> T:
        """Make a part and keep it in hand."""
        self.handed = made = make()
        return made

    def shards(
        self,
        key: str,
        suffix: str,
        *,
        save: Callable[[Path, T], None],
        load: Callable[[Path], T],
        part_of_nothing: bool = False,
    ) -> Keep[T]:
        """Keep shards that are part of nothing as files; others are handed over one by one, and not kept here."""
        if not part_of_nothing:
            return keep_nothing

        def kept(shard: Shard, make: Callable[[], T]) -> T:
            path = self.path(content_key([key, shard.number, shard.count, shard.rows]) + suffix)
            if path.is_file():
                return load(path)
            made = make()
            save(path, made)
            return made

        return kept

    def leave(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.out_dir, ignore_errors=True)


def scratch_folder(out_dir: Path) -> Path:
    """Give the folder of an OUT_DIR on this machine, ours alone: a replay that was killed finds it again.

    Raises
    ------
    StoreError
        It cannot be made, or is another user's.
    """
    user = Path(tempfile.gettempdir()) / f"opd-diag-{os.getuid()}"
    folder = user / content_key(str(out_dir.resolve()))[:16]
    try:
        user.mkdir(mode=0o700, exist_ok=True)
        if user.is_symlink() or user.stat().st_uid != os.getuid():
            raise StoreError(f"The folder {user} for temporary files is another user's. Set TMPDIR to one of your own.")
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot write {folder}: {error.strerror}. {WAY_OUT}") from error
    return folder


@dataclass(frozen=True)
class Folder:
    """A folder that every machine must see."""

    path: str
    whose: str
    """Label of the checkpoint that it belongs to."""


def folders_of(plan: ReplayPlan) -> list[Folder]:
    """Give the folders of weights that are here; what is none here is a hub id, or missing for everyone."""
    found: dict[str, Folder] = {}
    for checkpoint in (*plan.checkpoints, plan.teacher):
        if checkpoint.kind == "served":  # its path is what the server calls it
            continue
        for path in (checkpoint.path, checkpoint.base_model, checkpoint.config):
            if path is not None and os.path.isdir(path):
                found.setdefault(str(path), Folder(str(path), checkpoint.label))
    return list(found.values())


def unseen(folders: Sequence[Folder]) -> Folder | None:
    """Give the first folder that this machine does not see."""
    return next((folder for folder in folders if not os.path.isdir(folder.path)), None)


def for_workers(plan: ReplayPlan) -> ReplayPlan:
    """Give a plan as workers take it: paths that do not depend on the working directory, nothing they do not need.

    A connection to the teacher's server does not cross: each worker makes its own.
    """
    return replace(
        plan,
        checkpoints=tuple(_absolute(c) for c in plan.checkpoints),
        teacher=_absolute(plan.teacher),
        recorded={},
        near={},
        logged=LogsOfRun(),
        served=None,
    )


def _absolute(checkpoint: Checkpoint) -> Checkpoint:
    base, config = checkpoint.base_model, checkpoint.config
    with suppress(OSError):  # a working directory that is gone
        return replace(
            checkpoint,
            path=Path(_folder(checkpoint.path)),
            base_model=None if base is None else _folder(base),
            config=None if config is None else Path(_folder(config)),
        )
    return checkpoint


def _folder(path: str | Path) -> str:
    return os.path.abspath(path) if os.path.isdir(path) else str(path)
