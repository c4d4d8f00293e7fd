"""PEFT adapters: merged into their base model, every weight accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from opd_diag.errors import CheckpointError, MissingExtra


def merged(base: Any, adapter: Path, dtype: torch.dtype) -> Any:
    """Merge an adapter into its base model, then round the weights to `dtype`.

    Raises
    ------
    CheckpointError
        The adapter lacks a weight, or has one that the base has no place for.
    MissingExtra
        peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", extra="peft") from error
    model = peft.PeftModel.from_pretrained(base, str(adapter))
    stored = set(peft.load_peft_weights(str(adapter), device="cpu"))
    wanted = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    missing, surplus = sorted(wanted - stored), sorted(stored - wanted - set(model.state_dict()))
    if missing or surplus:
        kind, names = ("lacks", missing) if missing else ("has no place in its base model for", surplus)
        raise CheckpointError(
            f"The adapter {adapter} {kind} {len(names)} of its weights ({some(names)}). "
            "Save it again, or name the base model that it was trained on with --base-model."
        )
    plain = model.merge_and_unload()
    for parameter in plain.parameters():  # not the buffers: rounded rotary frequencies turn at other angles
        parameter.data = parameter.data.to(dtype)
    return plain


def some(names: list[str]) -> str:
    """Name the first three, and say whether there are more."""
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
