"""The key of a checkpoint: equal weights and configs, equal key, wherever and whenever they were written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_diag.errors import CheckpointError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.runs.contents import FileContent, Stamp, Stop, StoredTensor, changed
from opd_diag.runs.digests import Digests
from opd_diag.runs.huggingface import ADAPTER, ADAPTER_CONFIG, BIN_INDEX, FULL, INDEX
from opd_diag.runs.sharded import LORA_META
from opd_diag.runs.weights import classify_weights

_CONFIGS = ("config.json", "generation_config.json")
_BESIDE = (*_CONFIGS, ADAPTER_CONFIG, BIN_INDEX, LORA_META)
"""What beside weight files decides about weights."""


@dataclass(frozen=True)
class FolderContent:
    """What one folder holds of which weights are made: configs and weight files."""

    name: str
    """The folder; or the hub id, of which nothing else is known here."""
    files: dict[str, FileContent]
    """By name; empty of a hub id."""

    @property
    def known(self) -> Any:
        """What is known of it, for a key."""
        return [[name, content.digest] for name, content in sorted(self.files.items())] or self.name

    @property
    def stamps(self) -> dict[Path, Stamp]:
        """Its files as they were when they were read."""
        return {Path(self.name) / name: content.stamp for name, content in self.files.items()}

    @property
    def tensors(self) -> dict[str, tuple[Path, StoredTensor]]:
        """Its tensors by name, and the file of each, but for those of an adapter; none where a name stands twice."""
        pairs = [
            (tensor, (Path(self.name) / name, stored))
            for name, content in sorted(self.files.items())
            for tensor, stored in content.tensors.items()
            if name != ADAPTER
        ]
        found = dict(pairs)
        return found if len(found) == len(pairs) else {}


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint holds: one folder, or an adapter and the model under it; and where its config lies."""

    own: FolderContent
    base: FolderContent | None
    """None of full weights."""
    config: FolderContent | None = None
    """None where the config lies beside the weights."""

    @property
    def weights(self) -> FolderContent:
        """The full weights: its own, or those under the adapter."""
        return self.own if self.base is None else self.base

    @property
    def adapter_tensors(self) -> frozenset[str]:
        """Names of the tensors of the adapter; none of full weights."""
        adapter = None if self.base is None else self.own.files.get(ADAPTER)
        return frozenset() if adapter is None else frozenset(adapter.tensors)

    @property
    def key(self) -> str:
        """Key of all of it; names of folders do not count."""
        known = [self.own.known, None if self.base is None else self.base.known]
        return content_key(known if self.config is None else [*known, self.config.known])

    @property
    def stamps(self) -> dict[Path, Stamp]:
        """All files as they were when they were read."""
        return {file: stamp for folder in self.folders for file, stamp in folder.stamps.items()}

    @property
    def folders(self) -> list[FolderContent]:
        """All folders that it is of."""
        return [folder for folder in (self.own, self.base, self.config) if folder is not None]


def fingerprint(checkpoint: Checkpoint, digests: Digests | None = None) -> str:
    """Give a key of the weights: the whole content of weight and config files, base included.

    Parameters
    ----------
    checkpoint
        Whose weights; of a hub id, the id is the key.
    digests
        What is already known of its files; they are read where it knows nothing.

    Raises
    ------
    CheckpointError
        A file cannot be read, or something writes to it.

    Notes
    -----
    A copy has the same key. So have two files of the same tensors in another order, for they are the same weights.
    Shards and pickles are taken byte by byte: the same weights, saved by another number of ranks, have another.
    """
    return checkpoint_content(checkpoint, digests or Digests()).key


def checkpoint_content(checkpoint: Checkpoint, digests: Digests, stop: Stop = lambda: False) -> CheckpointContent:
    """Give what a checkpoint holds. Parameters and errors as :func:`fingerprint`; `stop` as of the digests."""
    base, config = checkpoint.base_model, checkpoint.config
    try:
        return CheckpointContent(
            _folder(checkpoint.path, digests, stop),
            None if base is None else _folder(Path(base), digests, stop),
            None if config is None else _content(config, _configs(config), digests, stop),
        )
    except OSError as error:
        where = error.filename or checkpoint.path
        raise CheckpointError(
            f"{checkpoint.label}: {where} cannot be read: {error.strerror}. Check that it is still there and that you "
            "may read it."
        ) from error


def refuse_other(before: CheckpointContent, now: CheckpointContent) -> None:
    """Refuse a checkpoint whose files no longer hold what they did.

    Raises
    ------
    CheckpointError
        Naming the first of them.
    """
    for was, found in zip(before.folders, now.folders, strict=True):
        for name in sorted({*was.files, *found.files}):
            if name not in found.files:
                raise changed(Path(was.name) / name, "it is gone")
            if name not in was.files or was.files[name].digest != found.files[name].digest:
                raise changed(Path(found.name) / name, "it holds other bytes than when this report began")


def checkpoint_stamps(checkpoint: Checkpoint) -> dict[Path, Stamp]:
    """Give the system's stamps of the files of a checkpoint that are there; none is opened."""
    folders = [Path(checkpoint.path), *([Path(checkpoint.base_model)] if checkpoint.base_model else [])]
    files = [folder / name for folder in folders for name in _names(folder)]
    files += [] if checkpoint.config is None else [checkpoint.config / name for name in _configs(checkpoint.config)]
    return {file: Stamp.of(file) for file in files if file.is_file()}


def _folder(model: Path, digests: Digests, stop: Stop) -> FolderContent:
    return _content(model, _names(model), digests, stop)


def _content(folder: Path, names: list[str], digests: Digests, stop: Stop) -> FolderContent:
    return FolderContent(str(folder), {name: digests.of(folder / name, stop) for name in names})


def _names(model: Path) -> list[str]:
    """Name the files of a folder that decide about its weights; none of a hub id."""
    if not model.is_dir():
        return []
    weights = classify_weights(model)
    files = [str(file.relative_to(model)) for file in weights.files] if weights else []
    if FULL not in files:
        files += [FULL, INDEX]  # the first lies beside an adapter, the second says which shard holds what
    return sorted({n for n in (*files, *_BESIDE) if os.path.isfile(model / n)})


def _configs(folder: Path) -> list[str]:
    return [name for name in _CONFIGS if os.path.isfile(folder / name)]
