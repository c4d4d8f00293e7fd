"""Which way the weights of a checkpoint come into memory: by what its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from opd_diag.errors import CheckpointError
from opd_diag.inference.adapters import merged, merged_tensors
from opd_diag.inference.completeness import refuse_incomplete
from opd_diag.inference.configs import generation_settings, read_config
from opd_diag.inference.device_maps import Sharded, Spread
from opd_diag.inference.distributed import DistributedCheckpoint
from opd_diag.inference.merging import Pickles, Source, merged_model
from opd_diag.inference.pickles import read_tensors
from opd_diag.inference.ranks import RankFiles
from opd_diag.inference.sharding import distributed_config
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.huggingface import ADAPTER, ADAPTER_BIN, ADAPTER_CONFIG
from opd_diag.runs.shapes import config_source
from opd_diag.runs.weights import Weights, classify_weights
from opd_diag.tokenization import split_revision


def loaded(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    *,
    trust_remote_code: bool,
    allow_pickle: bool,
    spread: Spread | Sharded | None = None,
) -> Any:
    """Load the weights of a checkpoint into a transformers model.

    Parameters
    ----------
    checkpoint
        Which; nothing blocks it.
    dtype
        Of its weights.
    trust_remote_code, allow_pickle
        As of :func:`~opd_diag.inference.loading.load_model`.
    spread
        A device for each module, to which full weights in safetensors are read; all others are put together in the
        memory of the CPU first, and left there. Or shards, of which this rank's is loaded.

    Raises
    ------
    CheckpointError, MissingExtra
        As of :func:`~opd_diag.inference.loading.load_model`. Errors of the libraries pass.
    """
    trusted: dict[str, Any] = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    path, base = checkpoint.path, str(checkpoint.base_model)
    if checkpoint.kind == "adapter":
        model = _full(base, base, torch.float32, **trusted)
        if (path / ADAPTER).is_file() or not (path / ADAPTER_BIN).is_file():
            return merged(model, path, dtype)[0]
        tensors = read_tensors(path / ADAPTER_BIN, allow_pickle=allow_pickle)
        return merged_tensors(model, tensors, path / ADAPTER_CONFIG, dtype, called=str(path))
    if checkpoint.kind in ("fsdp", "distributed"):
        return merged_model(
            _source(checkpoint, allow_pickle),
            path,
            config_source(checkpoint),
            dtype,
            base=None if checkpoint.base_model is None else lambda: _full(base, base, torch.float32, **trusted),
            trust_remote_code=trust_remote_code,
        )
    return _full(str(path), config_source(checkpoint), dtype, **trusted, spread=spread)


def _source(checkpoint: Checkpoint, allow_pickle: bool) -> Source:
    """Look once more what the folder holds: a checkpoint may be made by hand, or be written to since it was found."""
    found = classify_weights(checkpoint.path, configs=[config_source(checkpoint)])
    if found is not None:
        _refuse_blocked(found, checkpoint.path)
    if found is None or found.kind != checkpoint.kind:
        raise CheckpointError(f"{checkpoint.path} holds no shards any more. Copy or save the checkpoint again.")
    if found.kind == "fsdp":
        return RankFiles(found.files, allow_pickle=allow_pickle)
    return DistributedCheckpoint(found.folder or checkpoint.path, allow_pickle=allow_pickle)


def _full(
    source: str,
    config: str,
    dtype: torch.dtype,
    *,
    trust_remote_code: bool,
    allow_pickle: bool,
    spread: Spread | Sharded | None = None,
) -> Any:
    files = _pickled(Path(source), config)
    if files:
        pickles = Pickles(files, allow_pickle=allow_pickle)
        return merged_model(pickles, Path(source), config, dtype, trust_remote_code=trust_remote_code)
    name, revision = split_revision(source)
    elsewhere: dict[str, Any] = {}
    if config != source:
        known = read_config(config, trust_remote_code=trust_remote_code)
        settings = generation_settings(source, config) or transformers.GenerationConfig.from_model_config(known)
        elsewhere = {"config": known, "generation_config": settings}
    place: dict[str, Any] = {"device_map": spread}
    if isinstance(spread, Sharded):
        place = {"distributed_config": distributed_config(spread.ranks)}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, by name
        **place,
        **elsewhere,
    )
    refuse_incomplete(model, info, source)
    return model


def _pickled(folder: Path, config: str) -> tuple[Path, ...]:
    """Give the files of weights that are pickles, where there are no others.

    Raises
    ------
    CheckpointError
        Some are missing.
    """
    found = classify_weights(folder, configs=[config]) if folder.is_dir() else None
    if found is None or found.kind != "full" or not any(file.suffix == ".bin" for file in found.files):
        return ()
    _refuse_blocked(found, folder)
    return found.files


def _refuse_blocked(found: Weights, folder: Path) -> None:
    if found.blocker is not None:
        raise CheckpointError(f"{folder}: {found.blocker} {found.way_out or ''}".strip(), code=found.code)
