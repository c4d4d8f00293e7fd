"""PEFT adapters: merged into their base model, every weight accounted for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from opd_diag.errors import CheckpointError, MissingExtra
from opd_diag.inference.completeness import some
from opd_diag.inference.names import PEFT_PREFIX
from opd_diag.runs.huggingface import ADAPTER, ADAPTER_CONFIG


def touched_by(adapter: Iterable[str], names: Iterable[str]) -> set[str]:
    """Name the weights of a model that an adapter may change: all of each module that a tensor of its names.

    Examples
    --------
    >>> names = ["layers.0.q.weight", "layers.0.q.bias", "layers.0.k.weight", "head.weight"]
    >>> sorted(touched_by(["base_model.model.layers.0.q.lora_A.weight", "base_model.model.head.weight"], names))
    ['head.weight', 'layers.0.q.bias', 'layers.0.q.weight']
    """
    parts = [name.removeprefix(PEFT_PREFIX).split(".") for name in adapter]
    modules = {".".join(p[:n]) for p in parts for n in range(1, len(p))}
    return {name for name in names if name.rpartition(".")[0] in modules}


def merged(base: Any, adapter: Path, dtype: torch.dtype, *, called: str | None = None) -> tuple[Any, set[str]]:
    """Merge an adapter into its base model, then round the weights to `dtype`.

    Parameters
    ----------
    base
        The transformers model; it becomes the merged one.
    adapter
        Folder of the adapter.
    dtype
        Of the merged weights.
    called
        What messages call the adapter; default: its folder.

    Returns
    -------
    model, set of str
        The model without peft, and names of the weights that were merged into or replaced.

    Raises
    ------
    CheckpointError
        The adapter lacks a weight, or has one that the base has no place for.
    MissingExtra
        peft is not installed.
    """
    peft = _peft()
    model = peft.PeftModel.from_pretrained(base, str(adapter))
    stored = set(peft.load_peft_weights(str(adapter), device="cpu"))
    wanted = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    missing, surplus = sorted(wanted - stored), sorted(stored - wanted - set(model.state_dict()))
    if missing or surplus:
        kind, names = ("lacks", missing) if missing else ("has no place in its base model for", surplus)
        raise CheckpointError(
            f"The adapter {called or adapter} {kind} {len(names)} of its weights ({some(names)}). "
            "Save it again, or name the base model that it was trained on with --base-model."
        )
    changed = {
        f"{name}.{weight}"
        for name, module in model.get_base_model().named_modules()
        for part in ("base_layer", "original_module")
        if hasattr(module, part)
        for weight, _ in getattr(module, part).named_parameters()
    }
    plain = model.merge_and_unload()
    for parameter in plain.parameters():  # not the buffers: rounded rotary frequencies turn at other angles
        parameter.data = parameter.data.to(dtype)
    return plain, changed


def merged_tensors(base: Any, tensors: Mapping[str, Tensor], config: Path, dtype: torch.dtype, *, called: str) -> Any:
    """Merge an adapter whose tensors were read already; `config` is its ``adapter_config.json``.

    Others as of :func:`merged`. What peft reads is a folder of safetensors for the moment.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(config, Path(folder, config.name))
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, Path(folder, ADAPTER))
        return merged(base, Path(folder), dtype, called=called)[0]


def merged_factors(
    base: Any, factors: Mapping[str, Tensor], rank: int, alpha: float, dtype: torch.dtype, *, called: str
) -> Any:
    """Merge LoRA factors that no ``adapter_config.json`` describes.

    Parameters
    ----------
    base, dtype, called
        As of :func:`merged`.
    factors
        By the names that peft gives them in a file; also whole modules that were trained beside them.
    rank, alpha
        Their product is scaled by alpha / rank.
    """
    modules = {name.removeprefix(PEFT_PREFIX).partition(".lora_")[0] for name in factors if ".lora_" in name}
    whole = {name.removeprefix(PEFT_PREFIX).rpartition(".")[0] for name in factors if ".lora_" not in name}
    config = _peft().LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=sorted(modules), modules_to_save=sorted(whole) or None
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return merged_tensors(base, factors, Path(folder, ADAPTER_CONFIG), dtype, called=called)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", extra="peft") from error
    return peft
