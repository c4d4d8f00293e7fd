"""What NeMo-RL writes: ``step_N/policy/weights`` beside ``training_info.json``, renamed when it is whole."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.holdings import Weights
from opd_diag.runs.layouts.run import Run, checkpoint_at, student_in
from opd_diag.runs.sharded import NEEDS_MERGE, mended

STEP = re.compile(r"step_(\d+)", re.ASCII)

CAVEAT = (
    "NeMo-RL keeps the checkpoints that scored best (checkpointing.keep_top_k): those that are left are no fair sample "
    "of the run."
)

_MODEL_NAME = re.compile(r"^policy:\n(?:(?:[ #].*)?\n)*?  model_name: *['\"]?([^'\"\n#]+)", re.MULTILINE)


def nemo_rl(run: Run) -> list[Checkpoint]:
    """Give ``step_N/policy/weights``: a consolidated model, an adapter, or a torch distributed checkpoint.

    The step is that of ``step_N``; Megatron's folder inside is always ``iter_0000000``. ``config.yaml`` names the
    model whose config fits where none was saved.
    """
    found = []
    for number, folder in run.step_folders(STEP):
        weights_folder = folder / "policy" / "weights"
        if "training_info.json" not in run.disk.names(folder) or not run.disk.names(weights_folder):
            continue
        step, model = run.updates(number, base=1), weights_folder / "model"
        out = f"merged/step-{step}"
        places = [model / "consolidated", model, weights_folder, weights_folder / "iter_0000000"]
        configs: list[Path | str] = [model / ".hf_metadata", *_model_name(run, folder)]
        where, weights = student_in(run, places, out=out, configs=configs) or (weights_folder, None)
        if weights is not None and weights.code == NEEDS_MERGE:
            weights = replace(weights, way_out=mended(_megatron(folder, where, out), out, clone="NeMo-RL"))
        weights = weights or _sharded_safetensors(run, model)
        tokenizer = folder / "policy" / "tokenizer"
        made = checkpoint_at(
            where, weights, f"step {step}", step, tokenizers=(tokenizer,), complete=True, disk=run.disk
        )
        found.append(made)
    return found


def _model_name(run: Run, folder: Path) -> list[str]:
    """Read ``policy.model_name`` of the run's configuration, without a reader of YAML."""
    try:
        match = _MODEL_NAME.search(run.disk.text(folder / "config.yaml"))
    except (OSError, ValueError):
        return []
    return [match[1].strip()] if match else []


def _megatron(folder: Path, where: Path, out: str) -> str:
    config, shards = shlex.quote(str(folder / "config.yaml")), shlex.quote(str(where))
    return (
        f"uv run --extra mcore examples/converters/convert_megatron_to_hf.py --config {config} --megatron-ckpt-path "
        f"{shards} --hf-ckpt-path {out}"
    )


def _sharded_safetensors(run: Run, model: Path) -> Weights | None:
    shards = tuple(model / name for name in sorted(run.disk.names(model)) if name.endswith(".safetensors"))
    if not shards:
        return None
    blocker = f"{model} holds {len(shards)} safetensors shards of ranks, not of Hugging Face."
    way_out = (
        "Consolidate them with tools/offline_hf_consolidation.py of NeMo-Automodel; for runs to come set "
        "checkpointing.save_consolidated=true."
    )
    return Weights("other", shards).blocked(NEEDS_MERGE, blocker, way_out)
