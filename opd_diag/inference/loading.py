"""From a folder or hub id to a model that can be run: no remote code unless asked for, of pickles tensors alone."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from opd_diag.errors import CheckpointError
from opd_diag.inference.configs import generation_settings, read_config
from opd_diag.inference.device_maps import Sharded, Spread, Wanted
from opd_diag.inference.hooks import has_hooks, own_kept
from opd_diag.inference.leading import Ranks
from opd_diag.inference.libraries import errors_of, quiet
from opd_diag.inference.model import Model, own_stop_ids, wrap_model
from opd_diag.inference.placing import dispatched, settled
from opd_diag.inference.sharding import here
from opd_diag.inference.weights import loaded
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.contents import Stamp, refuse_changed
from opd_diag.runs.fingerprint import checkpoint_stamps
from opd_diag.runs.shapes import config_source

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(  # noqa: PLR0913 - what a user may say of how a model is loaded
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    key: str = "",
    dtype: str = "float32",
    device: str = "auto",
    device_map: Wanted | None = None,
    stop_ids: tuple[int, ...] = (),
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    stamps: Mapping[Path, Stamp] | None = None,
) -> Model:
    """Load a checkpoint: full weights, shards put together, or an adapter merged (in float32) into its base model.

    Parameters
    ----------
    checkpoint
        From :func:`~opd_diag.runs.find_checkpoints`, or made by hand.
    name
        As tables and messages call it; default: its label.
    key
        Fingerprint of the weights.
    dtype
        ``float32``, ``bfloat16`` or ``float16``, of the body; the head computes in float32.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
    device_map
        ``auto``, ``balanced``, ``sequential``, or a device for each module, to spread the model over several
        (:mod:`opd_diag.inference.placing`); or shards of every layer, in as many processes as long as it is in
        memory (:mod:`opd_diag.inference.sharding`). In place of `device`.
    stop_ids
        Ids that end a response besides those of the model's generation settings: the tokenizer's.
    trust_remote_code
        Whether code that comes with the model may run.
    allow_pickle
        Whether a torch whose reader of pickled weights has a known hole may read some
        (:mod:`opd_diag.inference.pickles`).
    stamps
        What its files were when `key` was taken; default: what they are now.

    Returns
    -------
    Model
        It has its weights in memory of its own: whatever is written to the files afterwards does not reach it.

    Raises
    ------
    CheckpointError
        The folder cannot be loaded: blocked, damaged, of an unknown architecture, lacking weights, or written to; or
        its weights are pickles that name more than tensors.
    MissingExtra
        An adapter, and peft is not installed; a model to be spread, and accelerate is not.
    InputError
        The device is unknown or not there, the map does not fit the model, or it cannot be in shards.
    RankError
        A process with a shard cannot load it, or is lost.

    Notes
    -----
    When a process with a shard is lost later, whoever uses the model gets a RankError. Where torch waits for that
    process and cannot be told, this takes ten minutes; a terminal command says why and ends there, with exit code 2.
    """
    if checkpoint.blocker is not None:
        raise CheckpointError(f"{checkpoint.label}: {checkpoint.blocker} {checkpoint.way_out or ''}".strip())
    of_weights: dict[str, Any] = {"dtype": DTYPES[dtype], "trust_remote_code": trust_remote_code}
    where = settled(checkpoint, device, device_map, **of_weights)
    stamps = checkpoint_stamps(checkpoint) if stamps is None else stamps
    about: dict[str, Any] = {"name": name, "key": key, "stop_ids": stop_ids}
    if isinstance(where, Sharded):
        return _in_shards(where.ranks, (checkpoint, where, of_weights, allow_pickle, dict(stamps)), about)
    with unchanged(stamps), quiet(), errors_of(checkpoint):
        spread = None if isinstance(where, torch.device) else where
        model = loaded(checkpoint, **of_weights, allow_pickle=allow_pickle, spread=spread)
        model = _owned(model.to(where)) if spread is None else _spread(model, spread)
    return wrap_checkpoint(model, checkpoint, **about)


def load_shard(
    checkpoint: Checkpoint,
    sharded: Sharded,
    of_weights: Mapping[str, Any],
    allow_pickle: bool,
    stamps: Mapping[Path, Stamp],
) -> Any:
    """Load the shard that is this rank's, as a transformers model; all ranks must.

    Raises
    ------
    CheckpointError
        As of :func:`load_model`.
    """
    with unchanged(stamps), quiet(), errors_of(checkpoint):
        return _owned(loaded(checkpoint, **of_weights, allow_pickle=allow_pickle, spread=sharded))


def _in_shards(ranks: int, of_shards: tuple[Any, ...], about: Mapping[str, Any]) -> Model:
    """Start the other ranks and load the model with them."""
    with ExitStack() as undone:
        together = Ranks(ranks)
        undone.callback(together.close)
        with together.together("load", *of_shards):
            hf = load_shard(*of_shards)
        with together.together("wrap"):
            model = wrap_checkpoint(hf, of_shards[0], **about, ranks=together)
        with quiet(), errors_of(of_shards[0]), torch.inference_mode():  # a plan that does not fit shows when it is used
            model.own_logits(torch.zeros((1, 2), dtype=torch.long))
        weakref.finalize(hf, undone.pop_all().close)
    return model


def stored_stop_ids(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> tuple[int, ...] | None:
    """Read the ids that end a response of a checkpoint from its settings, as loading it would, and load no weights.

    Returns
    -------
    tuple of int, or None
        Those of its generation settings, or else of its config; None where neither can be read.
    """
    config = config_source(checkpoint)
    with quiet():
        settings = generation_settings(*([] if checkpoint.kind == "adapter" else [str(checkpoint.path)]), config)
        ids = None if settings is None else settings.eos_token_id
        if ids is None:
            try:
                ids = read_config(config, trust_remote_code=trust_remote_code).get_text_config().eos_token_id
            except (OSError, TypeError, ValueError, AttributeError):
                return None
    return tuple(sorted({*(ids if isinstance(ids, list) else () if ids is None else [ids])}))


def wrap_checkpoint(
    hf_model: Any,
    checkpoint: Checkpoint,
    *,
    name: str | None,
    key: str,
    stop_ids: tuple[int, ...],
    ranks: Ranks | None = None,
) -> Model:
    """Make a :class:`Model` of a transformers model that holds a checkpoint. Parameters as :func:`load_model`."""
    stops = (*own_stop_ids(hf_model), *stop_ids)
    known = {"label": checkpoint.label, "step": checkpoint.step, "key": key, "ranks": ranks}
    return wrap_model(hf_model, name=name or checkpoint.label, stop_ids=stops, **known)


@contextmanager
def unchanged(stamps: Mapping[Path, Stamp]) -> Iterator[None]:
    """Refuse what was read inside unless the files are, at the end, what they were.

    Raises
    ------
    CheckpointError
        Something wrote to one of them: that is then also why they did not load, if they did not.
    """
    try:
        yield
    except CheckpointError:
        for file, stamp in stamps.items():
            refuse_changed(file, stamp)
        raise
    for file, stamp in stamps.items():
        refuse_changed(file, stamp)


def _owned(model: Any) -> Any:
    """Give the weights memory of their own.

    As transformers leaves them on a CPU they can be the mapped file itself: who writes to it changes the model, and
    who cuts it short kills the process.
    """
    for tensor in map(here, (*model.parameters(), *model.buffers())):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model


def _spread(model: Any, spread: Spread) -> Any:
    """Do what :func:`_owned` does, wherever weights lie, and spread what transformers put in memory in one piece."""
    if not has_hooks(model):
        return dispatched(_owned(model), spread)
    own_kept(model)
    return _owned(model)
