"""What one folder holds, told from names and small text files: weights of some kind, and what blocks loading them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from opd_diag.runs.disk import Disk
from opd_diag.runs.holdings import Place, Weights
from opd_diag.runs.huggingface import adapter, full, unfinished
from opd_diag.runs.sharded import sharded

__all__ = ["Weights", "classify_weights", "has_tokenizer"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def classify_weights(
    folder: Path,
    base_model: str | None = None,
    *,
    configs: Sequence[Place] = (),
    out: str | None = None,
    disk: Disk | None = None,
) -> Weights | None:
    """Tell what a folder holds without loading it; None when nothing in it looks like a model.

    The order is that of transformers: an adapter wins over full weights beside it, one whole file over shards; what
    trainers write for themselves comes after both.

    Parameters
    ----------
    folder
        The folder to look at; if it is missing, that is the blocker.
    base_model
        Model under an adapter, in place of what the adapter itself names.
    configs
        Folders, or hub ids, that ``config.json`` may come from where it does not lie in `folder`, best first.
    out
        Where a command that mends it puts its result; default: ``merged/<name of the folder>``.
    disk
        What is known of the disk; default: nothing.
    """
    disk = disk or Disk()
    try:
        disk.entries(folder)
        return (
            adapter(disk, folder, base_model)
            or full(disk, folder, configs)
            or sharded(disk, folder, configs, out or f"merged/{folder.name or 'model'}")
            or unfinished(disk, folder)
        )
    except OSError as error:
        where, there = error.filename or folder, {errno.ENOENT: "does not exist", errno.ENOTDIR: "is a file"}
        if error.errno in there and Path(where) == folder:
            blocker = f"Expected a model folder, but {folder} {there[error.errno]}."
            return Weights("full").blocked("NO_WEIGHTS", blocker, "Correct the path.")
        blocker = f"{where} cannot be read: {error.strerror}."
        return Weights("full").blocked("UNREADABLE", blocker, "Check that the file exists and that you may read it.")


def has_tokenizer(folder: Path, disk: Disk | None = None) -> bool:
    """Whether files of a tokenizer lie in `folder`."""
    return not (disk or Disk()).names(folder).isdisjoint(_TOKENIZERS)
