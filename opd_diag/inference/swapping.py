"""One model in memory that becomes one checkpoint after another: only tensors that changed are read.

The first checkpoint is loaded by transformers, with all its checks. Another one with the same config, the same names
and the same shapes is then read into the same tensors, straight from its files. What is read is told by digests: a
tensor whose digest is that of what the model already holds stays. An adapter is merged into a base whose tensors are
read back first, those that the last adapter touched; nothing is ever subtracted, so that numbers do not depend on what
was in memory before.

This holds only where the file's tensors *are* the model's tensors, name by name. Transformers renames and fuses those
of some architectures (mixtures of experts); whether it did is looked at once, after the first load: every tensor of
the model must be named in the file and hold what the file says. Where not, each checkpoint is loaded in the ordinary
way; so are shards and pickles, of which no digest a tensor is known, and models that are spread over devices. Files are
read into place and not mapped: a mapped file that another process cuts short kills whoever looks at it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import torch

from opd_diag.inference.adapters import merged, touched_by
from opd_diag.inference.device_maps import Sharded, Spread, Wanted
from opd_diag.inference.libraries import errors_of, quiet
from opd_diag.inference.loading import DTYPES, load_model, unchanged, wrap_checkpoint
from opd_diag.inference.model import Model
from opd_diag.inference.placing import settled
from opd_diag.inference.stored import Copied, fits, looks_like, read_into
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.contents import StoredTensor
from opd_diag.runs.fingerprint import CheckpointContent, FolderContent

_SAME_MODEL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "_from_model_config")
"""Fields of configs in which checkpoints may differ and still be one model with other weights."""

_OWN_WAYS = ("auto_map", "quantization_config")
"""Fields of a config that say that the model is loaded in a way of its own."""


@dataclass
class _Held:
    """A transformers model, and what its tensors hold."""

    hf: Any
    how: tuple[object, ...]
    """How it was loaded, and what its configs say."""
    shapes: dict[str, tuple[int, ...]]
    """Of all tensors in its files."""
    holds: dict[str, tuple[str, str]]
    """Type and digest of the stored tensor that each tensor holds; those that an adapter touched are missing."""


class Resident:
    """The one model in memory of those that need not be there together."""

    def __init__(self) -> None:
        self.copied = Copied()
        """What was read to put other weights in place."""
        self._held: _Held | None = None
        self._now: tuple[Checkpoint, str, Model] | None = None
        self._where: dict[str, torch.device | Spread | Sharded] = {}
        """Where models of one kind lie: settled once, as the memory that is free has one of them in it later."""

    def model(self, checkpoint: Checkpoint, key: str) -> Model | None:
        """Give the model of a checkpoint if it is the one in memory."""
        return self._now[2] if self._now is not None and self._now[:2] == (checkpoint, key) else None

    def let_go(self) -> None:
        """End the ranks of a model in shards, if one is in memory, and forget what is."""
        now, self._held, self._now = self._now, None, None
        if now is not None and now[2].ranks is not None:
            now[2].ranks.close()

    def load(
        self,
        checkpoint: Checkpoint,
        content: CheckpointContent,
        *,
        name: str,
        dtype: str = "float32",
        device: str = "auto",
        device_map: Wanted | None = None,
        stop_ids: tuple[int, ...] = (),
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
    ) -> Model:
        """Put a checkpoint in memory, in place of what was there; models given before must not be used any more.

        Parameters
        ----------
        checkpoint, name, dtype, device, device_map, stop_ids, trust_remote_code, allow_pickle
            As of :func:`~opd_diag.inference.loading.load_model`.
        content
            What its files hold.

        Returns
        -------
        Model
            Equal to the digit to one that is loaded alone.

        Raises
        ------
        CheckpointError, MissingExtra, InputError
            As :func:`~opd_diag.inference.loading.load_model`. Nothing is in memory then.
        """
        held = self._held
        self.let_go()  # a model that is half overwritten is never found again
        about: dict[str, Any] = {"name": name, "key": content.key, "stop_ids": stop_ids}
        placed: dict[str, Any] = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
        kind = repr((dtype, placed, sorted((n, t.shape) for n, (_, t) in content.weights.tensors.items())))
        where = self._where.get(kind) or settled(checkpoint, **placed, dtype=DTYPES[dtype])
        self._where[kind] = where
        spread = None if isinstance(where, torch.device) else where
        target = device if spread else str(where)
        loading: dict[str, Any] = {"dtype": dtype, "device": target, "trust_remote_code": trust_remote_code}
        with unchanged(content.stamps), quiet(), errors_of(checkpoint):
            settings = None if spread else _settings(checkpoint, content)
            how = (*loading.values(), dtype == "float32" or checkpoint.kind, settings)
            if held is not None and _exchangeable(held, how, content) and self._exchange(held, content):
                model = wrap_checkpoint(held.hf, checkpoint, **about)
            else:
                held = None  # its memory is needed
                if spread:
                    gc.collect()  # modules and their hooks hold each other
                files: dict[str, Any] = {"stamps": content.stamps, "allow_pickle": allow_pickle}
                model = load_model(checkpoint, **about, **loading, device_map=spread, **files)
                held = _hold(model.hf, how, content)
        self._held, self._now = held, (checkpoint, content.key, model)
        return model

    def _exchange(self, held: _Held, content: CheckpointContent) -> bool:
        """Read what differs, and merge the adapter; False where the outcome may not be that of an ordinary load."""
        dtype, device = DTYPES[str(held.how[0])], str(held.how[1])
        touched, ties = _touched(held.hf, content), _ties(held.hf)
        parameters = dict(held.hf.named_parameters(remove_duplicate=False))
        rounded = {name for name in touched & parameters.keys() if parameters[name].dtype != torch.float32}
        held.holds = {name: holds for name, holds in held.holds.items() if name not in rounded}
        for name in touched & parameters.keys():  # merged as in an ordinary load: in float32, on the CPU
            parameters[name].data = parameters[name].data.to("cpu", torch.float32)
        places = held.hf.state_dict()
        for name, stored, handle in _opened(content.weights):
            if name in places and held.holds.get(name) != (stored.dtype, stored.digest):
                read_into(places[name], handle, stored)
                held.holds[name] = stored.dtype, stored.digest
                self.copied.add(stored.size)
        if content.base is None:
            return True
        held.holds = {name: holds for name, holds in held.holds.items() if name not in touched}
        held.hf, changed = merged(held.hf, Path(content.own.name), dtype)
        held.hf.to(device)
        return changed <= touched and _ties(held.hf) == ties


def _hold(hf: Any, how: tuple[object, ...], content: CheckpointContent) -> _Held | None:
    """Give what a model that was just loaded holds; None where its tensors are not those of its files."""
    places, touched = hf.state_dict(), _touched(hf, content)
    found = {name: tensor for name, tensor, _ in _opened(content.weights)}
    ours = {name: tensor for name, tensor in found.items() if name in places}
    if how[-1] is None or not all(fits(places[name], tensor) for name, tensor in ours.items()):
        return None
    if sorted(sum(name in ours for name in tied) for tied in _ties(hf)) != [1] * len(_ties(hf)):
        return None  # one without a name in the files, or with two
    for name, tensor, handle in _opened(content.weights):
        if name in ours and name not in touched and not looks_like(places[name], handle, tensor):
            return None
    shapes = {name: tensor.shape for name, tensor in found.items()}
    return _Held(hf, how, shapes, {n: (t.dtype, t.digest) for n, t in ours.items() if n not in touched})


def _exchangeable(held: _Held, how: tuple[object, ...], content: CheckpointContent) -> bool:
    """Whether a checkpoint is the model in memory with other weights."""
    places = held.hf.state_dict()
    found = {name: tensor for name, (_, tensor) in content.weights.tensors.items()}
    return (
        held.how == how
        and held.shapes == {name: tensor.shape for name, tensor in found.items()}
        and all(fits(places[name], tensor) for name, tensor in found.items() if name in places)
    )


def _touched(hf: Any, content: CheckpointContent) -> set[str]:
    """Name the weights that the adapter changes, those that are one with them included; none of full weights."""
    touched = touched_by(content.adapter_tensors, hf.state_dict())
    return set().union(*(tied for tied in _ties(hf) if tied & touched))


def _ties(hf: Any) -> set[frozenset[str]]:
    """Group the names of the tensors of a model: those of one group are one tensor."""
    names: dict[int, set[str]] = {}
    for name, tensor in hf.state_dict().items():
        names.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(group) for group in names.values()}


def _opened(weights: FolderContent) -> Iterator[tuple[str, StoredTensor, BinaryIO]]:
    """Go through the tensors of a folder, file by file and in the order in which they lie."""
    order = sorted(weights.tensors.items(), key=lambda item: (item[1][0], item[1][1].start))
    for file, group in groupby(order, key=lambda item: item[1][0]):
        with file.open("rb") as handle:
            for name, (_, tensor) in group:
                yield name, tensor, handle


def _settings(checkpoint: Checkpoint, content: CheckpointContent) -> list[Mapping[str, Any] | None] | None:
    """Give what configs say that decides how weights are used; None of a model that is loaded in a way of its own."""
    if checkpoint.kind not in ("full", "adapter"):
        return None
    folder = content.config or content.weights
    settings: list[Mapping[str, Any] | None] = []
    for name in ("config.json", "generation_config.json"):
        if name not in folder.files:
            settings.append(None)
            continue
        config = json.loads((Path(folder.name) / name).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or any(field in config for field in _OWN_WAYS):
            return None
        settings.append({field: value for field, value in config.items() if field not in _SAME_MODEL})
    return settings
