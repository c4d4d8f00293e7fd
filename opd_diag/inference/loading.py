"""From a folder or hub id to a model that can be run: no unpickling, no remote code unless asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from opd_diag.errors import CheckpointError, InputError
from opd_diag.inference.adapters import merged, some
from opd_diag.inference.libraries import errors_of, quiet
from opd_diag.inference.model import Model, own_stop_ids, wrap_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.contents import Stamp, refuse_changed
from opd_diag.runs.fingerprint import checkpoint_stamps
from opd_diag.tokenization import split_revision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    key: str = "",
    dtype: str = "float32",
    device: str = "auto",
    stop_ids: tuple[int, ...] = (),
    trust_remote_code: bool = False,
    stamps: Mapping[Path, Stamp] | None = None,
) -> Model:
    """Load a checkpoint: full weights, or a PEFT adapter merged (in float32) into its base model.

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
    stop_ids
        Ids that end a response besides those of the model's generation settings: the tokenizer's.
    trust_remote_code
        Whether code that comes with the model may run.
    stamps
        What its files were when `key` was taken; default: what they are now.

    Returns
    -------
    Model
        It has its weights in memory of its own: whatever is written to the files afterwards does not reach it.

    Raises
    ------
    CheckpointError
        The folder cannot be loaded: blocked, damaged, of an unknown architecture, lacking weights, or written to.
    MissingExtra
        An adapter, and peft is not installed.
    InputError
        The device is unknown or not there.
    """
    if checkpoint.blocker is not None:
        raise CheckpointError(f"{checkpoint.label}: {checkpoint.blocker} {checkpoint.way_out or ''}".strip())
    target = resolve_device(device)
    where = checkpoint.base_model if checkpoint.kind == "adapter" else str(checkpoint.path)
    load_dtype = torch.float32 if checkpoint.kind == "adapter" else DTYPES[dtype]
    with unchanged(checkpoint_stamps(checkpoint) if stamps is None else stamps), quiet(), errors_of(checkpoint):
        model = _full(str(where), load_dtype, trust_remote_code)
        if checkpoint.kind == "adapter":
            model, _ = merged(model, checkpoint.path, DTYPES[dtype])
        model = _owned(model.to(target))
    return wrap_checkpoint(model, checkpoint, name=name, key=key, stop_ids=stop_ids)


def stored_stop_ids(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> tuple[int, ...] | None:
    """Read the ids that end a response of a checkpoint from its settings, as loading it would, and load no weights.

    Returns
    -------
    tuple of int, or None
        Those of its generation settings, or else of its config; None where neither can be read.
    """
    where = checkpoint.base_model if checkpoint.kind == "adapter" else str(checkpoint.path)
    name, revision = split_revision(str(where))
    with quiet():
        try:
            settings = transformers.GenerationConfig.from_pretrained(name, revision=revision)
        except (OSError, TypeError, ValueError):  # most folders of trainers have none
            settings = transformers.GenerationConfig()
        ids = settings.eos_token_id
        if ids is None:
            try:
                ids = _config(name, revision, trust_remote_code).eos_token_id
            except (OSError, TypeError, ValueError, AttributeError):
                return None
    return tuple(sorted({*(ids if isinstance(ids, list) else () if ids is None else [ids])}))


def _config(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    config = transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    return config.get_text_config()


def wrap_checkpoint(
    hf_model: Any, checkpoint: Checkpoint, *, name: str | None, key: str, stop_ids: tuple[int, ...]
) -> Model:
    """Make a :class:`Model` of a transformers model that holds a checkpoint. Parameters as :func:`load_model`."""
    stops = (*own_stop_ids(hf_model), *stop_ids)
    known = {"label": checkpoint.label, "step": checkpoint.step, "key": key}
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


def resolve_device(device: str) -> torch.device:
    """Give the device of a name; ``auto`` takes CUDA where it is there.

    Raises
    ------
    InputError
        The name is no device, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        if target.type not in ("cpu", "cuda"):  # mps has no float64
            raise RuntimeError(target.type)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"Device '{device}' is not available here. Use --device cpu or --device auto.") from error
    return target


def _full(source: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    name, revision = split_revision(source)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, by name
    )
    missing, mismatched = sorted(info["missing_keys"]), sorted(str(m[0]) for m in info["mismatched_keys"])
    if missing or mismatched:
        kind, names = ("lacks", missing) if missing else ("has other shapes than its config says for", mismatched)
        raise CheckpointError(
            f"{source} {kind} {len(names)} weights ({some(names)}). They would be random: save the checkpoint again."
        )
    surplus = [name for name in sorted(info["unexpected_keys"]) if _counts(name, model)]
    if surplus:
        raise CheckpointError(
            f"{source} has {len(surplus)} weights that its config leaves no place for ({some(surplus)}). They would "
            "be left out: save the checkpoint again with the config that it was trained with."
        )
    return model


def _owned(model: Any) -> Any:
    """Give the weights memory of their own.

    As transformers leaves them on a CPU they can be the mapped file itself: who writes to it changes the model, and
    who cuts it short kills the process.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model


def _counts(name: str, model: Any) -> bool:
    """Tell whether a weight would change logits: one of the body or the head, not a value head beside them."""
    head = next((n for n, module in model.named_modules() if module is model.get_output_embeddings()), None)
    return name.startswith(tuple(f"{part}." for part in (model.base_model_prefix, head) if part))
