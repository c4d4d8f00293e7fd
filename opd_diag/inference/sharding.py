"""Shards of every layer in several processes: which models transformers can part so, and what each rank holds.

In tensor parallelism every rank runs every layer, on a part of its heads and features, and the ranks add up what they
have. transformers knows for many architectures which weight is parted along which of its sides: the model's plan. This
process is rank 0 and starts the others (:mod:`opd_diag.inference.leading`), which do as it does
(:mod:`opd_diag.inference.following`). The head is whole on rank 0, which alone makes logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers
from torch import Tensor

from opd_diag.errors import InputError
from opd_diag.inference.device_maps import Sharded
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.shapes import config_source
from opd_diag.runs.weights import classify_weights

_HEADS = ("num_attention_heads", "num_key_value_heads")
"""What every rank must have the same number of."""


def refuse_unshardable(checkpoint: Checkpoint, sharded: Sharded, model: Any) -> None:
    """Refuse a model that cannot be loaded in shards here.

    Parameters
    ----------
    checkpoint
        Where its weights are.
    sharded
        In how many shards.
    model
        The transformers model of the checkpoint without weights.

    Raises
    ------
    InputError
        Its weights are not full safetensors, its architecture has no plan or its config another one, its heads cannot
        be dealt out, the accelerator is no CUDA GPU, or GPUs or something of transformers are missing.
    """
    ranks, kind = sharded.ranks, type(model).__name__
    distributed_config(ranks)
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type not in ("cuda", "cpu"):
        raise InputError(
            f"--tensor-parallel runs on CUDA GPUs, or on CPUs where there is no accelerator, found {accelerator.type}. "
            "Leave it out."
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and gpus < ranks:
        raise InputError(f"--tensor-parallel {ranks} needs a GPU for each shard, found {gpus}. Use a smaller number.")
    found = classify_weights(checkpoint.path, configs=[config_source(checkpoint)]) if checkpoint.path.is_dir() else None
    if checkpoint.kind != "full" or (found is not None and any(file.suffix == ".bin" for file in found.files)):
        raise InputError(
            f"--tensor-parallel reads full weights in safetensors, which {checkpoint.path} does not hold. Save them so "
            "(save_pretrained), or use --device-map auto."
        )
    if any(_brings_plan(module.config) for module in model.modules() if hasattr(module, "config")):
        raise InputError(
            f"--tensor-parallel parts a model as transformers does its architecture, and the config.json of "
            f"{config_source(checkpoint)} says otherwise (base_model_tp_plan). Take that out, or use --device-map auto."
        )
    if not plan_of(model):
        raise InputError(
            f"transformers {transformers.__version__} has no tensor-parallel plan for {kind}, so --tensor-parallel "
            "cannot part it. Use --device-map auto."
        )
    config = model.config.get_text_config()
    for name in _HEADS:
        heads = getattr(config, name, None)
        if isinstance(heads, int) and heads % ranks:
            raise InputError(
                f"--tensor-parallel {ranks} must divide the heads of the teacher, found {name} {heads}. Use "
                f"{_way_out(config)}."
            )


def plan_of(model: Any) -> dict[str, str]:
    """Give how transformers parts a model: a style for names of modules and weights, ``*`` for any layer's number.

    It is empty where layers are not parted, but at most embeddings and head.
    """
    plan = dict(getattr(model, "_tp_plan", None) or {})
    return plan if any("*" in name for name in plan) else {}


def shard_bytes(model: Any, sharded: Sharded) -> int:
    """Give the bytes of weights that each rank holds; weights used twice count once."""
    plan = plan_of(model)
    return sum(
        parameter.element_size() * (math.ceil(n / sharded.ranks) if _is_parted(name, plan) else n)
        for name, parameter in model.named_parameters()
        if (n := parameter.numel())
    )


def distributed_config(ranks: int) -> Any:
    """Give what tells transformers to load a model in shards.

    Raises
    ------
    InputError
        This transformers is older than what can be told.
    """
    try:
        from transformers.distributed import DistributedConfig

        return DistributedConfig(tp_size=ranks)
    except (ImportError, TypeError) as error:
        raise InputError(
            f"--tensor-parallel needs a transformers whose DistributedConfig has tp_size, as 5.23 has; found "
            f"{transformers.__version__}. Upgrade transformers, or use --device-map auto."
        ) from error


def whole(weight: Tensor) -> Tensor:
    """Give a weight in one piece; of one in shards every rank must ask."""
    made: Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return made


def here(weight: Tensor) -> Tensor:
    """Give what this rank holds of a weight: the tensor itself, of which ``to_local`` would give a view."""
    held: Tensor = getattr(weight, "_local_tensor", weight)
    return held


def _is_parted(name: str, plan: dict[str, str]) -> bool:
    """Whether ranks hold different parts of a weight: so its own style says, or that of its module."""
    general = ".".join("*" if part.isdigit() else part for part in name.split("."))
    module, _, last = general.rpartition(".")
    style = plan.get(general) or plan.get(module) or ""
    return "colwise" in style or ("rowwise" in style and last != "bias")


def _brings_plan(config: Any) -> bool:
    """Whether a config has another plan than its class: a file may name one under which sums come out wrong."""
    name = "base_model_tp_plan"
    return bool(getattr(config, name, None) != getattr(type(config), name, None))


def _way_out(config: Any) -> str:
    heads = [heads for name in _HEADS if isinstance(heads := getattr(config, name, None), int)]
    numbers = [str(n) for n in range(2, min(heads) + 1) if all(count % n == 0 for count in heads)]
    return " or ".join(numbers) if numbers else "--device-map auto"
