"""Whether a model was loaded whole: every weight from its files, and none of theirs left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opd_diag.errors import CheckpointError


def refuse_incomplete(model: Any, info: Mapping[str, Any], source: str) -> None:
    """Refuse a model of which transformers says that it could not fill every weight, or place every stored one.

    Parameters
    ----------
    model
        The transformers model.
    info
        Its ``output_loading_info``.
    source
        Where its weights come from, for the message.

    Raises
    ------
    CheckpointError
        Naming the first weights.
    """
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


def refuse_other_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...] | None, where: Path) -> None:
    """Refuse a weight that has another shape than the config says; None expects nothing.

    Raises
    ------
    CheckpointError
        As said.
    """
    if expected is not None and shape != expected:
        raise CheckpointError(
            f"{where}: {name} has shape {shape}, its config says {expected}. Save the checkpoint again with the config "
            "that it was trained with."
        )


def some(names: list[str]) -> str:
    """Name the first three, and say whether there are more."""
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _counts(name: str, model: Any) -> bool:
    """Tell whether a weight would change logits: one of the body or the head, not a value head beside them."""
    head = next((n for n, module in model.named_modules() if module is model.get_output_embeddings()), None)
    return name.startswith(tuple(f"{part}." for part in (model.base_model_prefix, head) if part))
