"""Which stored tensors are which weights of a model: names as trainers wrap them, and as transformers has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

_WRAPPERS = re.compile(r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)(?=\.)")
"""Modules that FSDP, activation checkpointing and torch.compile put around others."""

_ROOTS = ("", "model.", "app.model.", "module.", "model.module.")
"""Where in what was saved the model is: accelerate and NeMo-RL put it under ``model``, prime-rl under ``app.model``."""

PEFT_PREFIX = "base_model.model."
"""What peft puts before every name of the model under an adapter."""

_FACTOR = re.compile(r"\.(lora_[A-Za-z_]+)(\.default)?(?=$|\.)")


@dataclass(frozen=True)
class StoredNames:
    """Stored names, sorted out."""

    weights: dict[str, str] = field(default_factory=dict)
    """Stored name by name of the model's weight."""
    factors: dict[str, str] = field(default_factory=dict)
    """Stored name by the name that peft gives a weight of an adapter in a file of its own."""


def sort_names(stored: Iterable[str], expected: Collection[str]) -> StoredNames:
    """Tell which stored tensors are weights of a model.

    Parameters
    ----------
    stored
        Names of tensors, as a trainer saved them: also of optimiser states and what else lies in a checkpoint.
    expected
        Names of the model's weights. Those that are stored may differ where transformers renames or fuses on loading.

    Returns
    -------
    StoredNames
        Both empty where no stored name is one of the model's.

    Examples
    --------
    >>> names = ["model.model.norm.weight", "model.lm_head._orig_mod.weight", "optim.model.norm.weight.exp_avg"]
    >>> sort_names(names, ["model.norm.weight", "lm_head.weight"]).weights
    {'model.norm.weight': 'model.model.norm.weight', 'lm_head.weight': 'model.lm_head._orig_mod.weight'}
    """
    plain = {_WRAPPERS.sub("", name).removeprefix("."): name for name in stored}
    tops = {name.partition(".")[0] for name in expected}
    found = [_under(root + peft, plain, tops) for root in _ROOTS for peft in ("", PEFT_PREFIX)]
    return max(found, key=lambda names: _matches(names, expected))


def _under(root: str, plain: dict[str, str], tops: set[str]) -> StoredNames:
    """Sort out the names under a root, those of the model's own parts alone."""
    names = StoredNames()
    for name, stored in plain.items():
        inner = name.removeprefix(root)
        if not name.startswith(root) or inner.partition(".")[0] not in tops:
            continue
        if _FACTOR.search(inner) or ".modules_to_save." in inner:
            names.factors[PEFT_PREFIX + _file_name(inner)] = stored
        else:
            names.weights[inner.replace(".base_layer.", ".").replace(".original_module.", ".")] = stored
    return names


def _file_name(inner: str) -> str:
    """Give the name under which peft writes a weight of an adapter.

    Examples
    --------
    >>> _file_name("model.layers.0.q.lora_A.default.weight"), _file_name("lm_head.modules_to_save.default.weight")
    ('model.layers.0.q.lora_A.weight', 'lm_head.weight')
    """
    return _FACTOR.sub(r".\1", inner).replace(".modules_to_save.default.", ".")


def _matches(names: StoredNames, expected: Collection[str]) -> int:
    modules = {name.rpartition(".")[0] for name in expected}
    touched = sum(_FACTOR.split(name.removeprefix(PEFT_PREFIX))[0] in modules for name in names.factors)
    return sum(name in expected for name in names.weights) + touched
