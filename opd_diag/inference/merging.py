"""From weights that a trainer saved for itself to a model that can be run: merged in memory, nothing is written.

The weights come from files that say where their parts belong (:mod:`~opd_diag.inference.ranks`), from torch's
distributed checkpoints (:mod:`~opd_diag.inference.distributed`) or from pickles of whole tensors. They are put together
one by one in memory of their own, and transformers takes them as they are; so one copy of them is in memory, and not
much more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor

from opd_diag.errors import CheckpointError
from opd_diag.inference.adapters import merged_factors
from opd_diag.inference.completeness import refuse_incomplete, some
from opd_diag.inference.configs import generation_settings, read_config
from opd_diag.inference.names import sort_names
from opd_diag.inference.pickles import read_tensors
from opd_diag.runs.sharded import LORA_META


class Source(Protocol):
    """Weights that can be put together."""

    @property
    def names(self) -> list[str]:
        """Names of all tensors, as they are stored."""

    def read(self, wanted: Mapping[str, tuple[int, ...] | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """Put tensors together; `wanted` has the shape of each where it is known, fewer bits are widened to `dtype`."""


def merged_model(
    source: Source,
    folder: Path,
    config: str,
    dtype: torch.dtype,
    *,
    base: Callable[[], Any] | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Put the weights of a folder into a transformers model.

    Parameters
    ----------
    source
        The weights in `folder`.
    folder
        Where they lie; ``lora_train_meta.json`` too, of a run with an adapter.
    config
        Folder or hub id of the config.
    dtype
        Of the model's weights.
    base
        Gives the model under the adapter, in float32, where the factors alone were saved; None: there is no such model.
    trust_remote_code
        Whether code that comes with the config may run.

    Returns
    -------
    transformers model
        With weights in memory of their own.

    Raises
    ------
    CheckpointError
        Weights are missing or left over, have other shapes, or cannot be read.
    """
    skeleton = _skeleton(config, trust_remote_code)
    shapes = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    names = sort_names(source.names, shapes)
    if not names.weights and not names.factors:
        raise CheckpointError(
            f"{folder} holds no weight of a {type(skeleton).__name__}, which {config} describes; found "
            f"{some(sorted(source.names)) or 'no tensor'}. Name the model that was trained with --student or "
            "--base-model."
        )
    kept = dtype if not names.factors else torch.float32
    rank, alpha = _scale(folder) if names.factors else (0, 0.0)
    wanted = {stored: shapes.get(name) for name, stored in names.weights.items()}
    tensors = source.read(wanted | dict.fromkeys(names.factors.values()), kept)
    if names.weights:
        model = _filled(skeleton, {n: tensors.pop(stored) for n, stored in names.weights.items()}, kept, str(folder))
        model.generation_config = generation_settings(str(folder), config) or model.generation_config
    elif base is None:
        raise CheckpointError(
            f"{folder} holds an adapter alone ({len(names.factors)} factors). Name the model under it with "
            "--base-model.",
            code="BASE_MODEL_MISSING",
        )
    else:
        model = base()
    if not names.factors:
        return model
    adapter = {name: tensors.pop(stored) for name, stored in names.factors.items()}
    return merged_factors(model, adapter, rank, alpha, dtype, called=str(folder))


def _skeleton(config: str, trust_remote_code: bool) -> Any:
    """Make the model without weights."""
    known = read_config(config, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(known, trust_remote_code=trust_remote_code)


def _filled(skeleton: Any, tensors: dict[str, Tensor], dtype: torch.dtype, source: str) -> Any:
    model, info = type(skeleton).from_pretrained(
        None,
        config=skeleton.config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused by name
    )
    refuse_incomplete(model, info, source)
    return model


def _scale(folder: Path) -> tuple[int, float]:
    """Read rank and alpha of the factors of an adapter.

    Raises
    ------
    CheckpointError
        Nothing says so.
    """
    try:
        meta = json.loads((folder / LORA_META).read_text(encoding="utf-8"))
        return int(meta["r"]), float(meta["lora_alpha"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} holds the factors of an adapter, but no {LORA_META} that says their rank and scale. Merge it "
            "with the trainer's own tool, or save the adapter with save_pretrained."
        ) from error


class Pickles:
    """The weights in files of ``torch.save``, as ``pytorch_model.bin``."""

    def __init__(self, files: Sequence[Path], *, allow_pickle: bool = False) -> None:
        """Take the files; `allow_pickle` as of :func:`~opd_diag.inference.pickles.read_pickle`."""
        self._tensors: dict[str, Tensor] = {}
        for file in files:
            stored = read_tensors(file, allow_pickle=allow_pickle)
            self._tensors |= {n: t.detach().contiguous() for n, t in stored.items() if isinstance(t, Tensor)}

    @property
    def names(self) -> list[str]:
        """Names of all tensors, as they are stored."""
        return list(self._tensors)

    def read(self, wanted: Mapping[str, tuple[int, ...] | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """Give tensors, and forget them. As of :class:`Source`; shapes are left to transformers."""
        return {name: self._tensors.pop(name) for name in wanted}
