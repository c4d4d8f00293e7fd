"""Model and run folders as trainers leave them, without a model: real safetensors bytes, tiny text files."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

TENSORS = save({"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2, np.float32)})
"""Bytes of a whole safetensors file, written by the safetensors library itself."""


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def full_model(folder: Path, **files: bytes | str) -> Path:
    return write(folder, {"config.json": '{"model_type": "llama"}', "model.safetensors": TENSORS} | files)


def adapter(folder: Path, base: str | None = "org/base", **files: bytes | str) -> Path:
    config = json.dumps({"peft_type": "LORA", "base_model_name_or_path": base})
    return write(folder, {"adapter_config.json": config, "adapter_model.safetensors": TENSORS} | files)


def sharded_model(folder: Path, shards: int = 2) -> Path:
    names = [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]
    index = json.dumps({"metadata": {}, "weight_map": {f"layer.{i}": name for i, name in enumerate(names)}})
    files: dict[str, bytes | str] = {"config.json": "{}", "model.safetensors.index.json": index}
    return write(folder, files | dict.fromkeys(names, TENSORS))


def trainer_run(run_dir: Path, steps: tuple[int, ...] = (20, 40, 100), tokenizer: bool = True) -> Path:
    """A run of the Hugging Face Trainer: each save is finished, each has its tokenizer."""
    for step in steps:
        folder = full_model(run_dir / f"checkpoint-{step}")
        write(folder, {"trainer_state.json": json.dumps({"global_step": step}), "training_args.bin": b"\x80"})
        if tokenizer:
            write(folder, {"tokenizer.json": "{}"})
    return run_dir
