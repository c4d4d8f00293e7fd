"""The shape of a model as its config says, to tell whether two folders can be steps of one training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import Checkpoint

_FIELDS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)
"""What training never changes; the vocabulary is not among them, for some trainers pad it."""


def shape_difference(first: Checkpoint, second: Checkpoint) -> str | None:
    """Say in which respect two models have other shapes, as ``hidden_size 64 against 32``.

    Returns
    -------
    str or None
        None where they agree, or where one config is not there to be read (a hub model, a broken file).
    """
    ours, theirs = _config(first), _config(second)
    for name in _FIELDS:
        if name in ours and name in theirs and ours[name] != theirs[name]:
            return f"{name} {ours[name]} against {theirs[name]}"
    return None


def config_source(checkpoint: Checkpoint) -> str:
    """Give the folder or hub id of the config of a checkpoint: of an adapter, its base model's."""
    if checkpoint.kind == "adapter":
        return str(checkpoint.base_model)
    return str(checkpoint.config or checkpoint.path)


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        config = json.loads((Path(config_source(checkpoint)) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config
