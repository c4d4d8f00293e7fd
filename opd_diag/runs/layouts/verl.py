"""What verl (and so thunlp/OPD) writes: ``global_step_N/actor``, as FSDP shards or in Megatron's two layouts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.holdings import Weights
from opd_diag.runs.layouts.run import Run, checkpoint_at, first_names, student_in
from opd_diag.runs.sharded import LORA_META, NEEDS_MERGE, RANK_FILE, mended

STEP = re.compile(r"global_step_(\d+)", re.ASCII)
POINTER = "latest_checkpointed_iteration.txt"
"""As Megatron calls it, too."""

MANIFEST = "ckpt_contents.json"
"""Written last, so that it tells of a finished save."""

_HOUR = 3600


def verl_megatron_v2(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N/actor`` with ``model/``, as verl from 0.9 saves a Megatron actor.

    Weights are those of Hugging Face in ``model/huggingface`` where the manifest has them. With PEFT those are the
    base model's, and the adapter is in ``adapter`` below, if it was exported.
    """
    return [
        _megatron_v2(run, step, actor)
        for step, actor, names in _actors(run)
        if "dist_ckpt" not in names and (MANIFEST in names or _is_v2(run, actor, names))
    ]


def verl_megatron_v1(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N/actor`` with ``dist_ckpt/``, as verl up to 0.8 saves a Megatron actor."""
    found = []
    for step, actor, names in _actors(run):
        if "dist_ckpt" not in names:
            continue
        config, out = actor / "huggingface", f"merged/step-{step}"
        places = [config, config / "adapter", actor / "dist_ckpt"]
        folder, weights = student_in(run, places, out=out) or (actor, None)
        where = shlex.quote(str(actor))
        migrate = f"python scripts/migrate_megatron_checkpoint_layout.py --checkpoint {where}"
        weights = _merging(weights, f"{migrate} && {_merger(actor, out)}", out, clone="verl")
        complete = True if MANIFEST in names else None
        found.append(_checkpoint(run, step, folder, weights, tokenizers=(config,), complete=complete))
    return found


def verl_fsdp(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N/actor`` with one file of weights a rank, and config and tokenizer in ``huggingface/``.

    Weights in ``huggingface/`` (``save_contents`` has ``hf_model``) or in ``lora_adapter/`` (verl 0.5 to 0.7) go
    before the shards. The actor of another engine, whose weights nobody knows, is named and blocked.
    """
    return [_fsdp(run, step, actor) for step, actor, names in _actors(run) if not _is_megatron(run, actor, names)]


def verl_sft(run: Run) -> list[Checkpoint]:
    """Give ``global_step_N`` with shards or ``huggingface/`` directly in it, as verl's SFT trainer saves."""
    found = []
    for step, folder in run.step_folders(STEP):
        names = run.disk.names(folder)
        if "huggingface" in names or any(map(RANK_FILE.fullmatch, names)):
            found.append(_fsdp(run, step, folder))
    return found


def _actors(run: Run) -> Iterator[tuple[int, Path, frozenset[str]]]:
    """Go through the actors of all steps: step, folder, names in it; one with nothing in it is being rotated away."""
    for step, folder in run.step_folders(STEP):
        names = run.disk.names(folder / "actor")
        if names:
            yield step, folder / "actor", names


def _is_v2(run: Run, actor: Path, names: frozenset[str]) -> bool:
    return "model" in names and not run.disk.names(actor / "model").isdisjoint({"huggingface", "dist_ckpt"})


def _is_megatron(run: Run, actor: Path, names: frozenset[str]) -> bool:
    return not names.isdisjoint({"dist_ckpt", MANIFEST}) or _is_v2(run, actor, names)


def _fsdp(run: Run, step: int, actor: Path) -> Checkpoint:
    config, adapter, out = actor / "huggingface", actor / "lora_adapter", f"merged/step-{step}"
    folder, weights = student_in(run, [config, adapter, actor], out=out) or (actor, None)
    if weights is not None and weights.kind == "fsdp" and LORA_META in run.disk.names(actor):
        weights = replace(weights, base_model=run.base_model or run.student)
    elif weights is None or weights.code == "NO_WEIGHTS":
        folder, weights = actor, _no_weights(run, actor, config)
    if weights.files and folder == config:
        weights = replace(weights, note=weights.note or _older_than_shards(run, actor, weights))
    return _checkpoint(run, step, folder, weights, tokenizers=(config,))


def _megatron_v2(run: Run, step: int, actor: Path) -> Checkpoint:
    manifest = run.disk.json_object(actor / MANIFEST)[0] if MANIFEST in run.disk.names(actor) else {}
    contents, out = _dict(manifest, "contents"), f"merged/step-{step}"
    entry = _dict(contents, "hf_model") or _dict(contents, "model")
    exported = entry.get("path") if entry.get("format") == "huggingface" else None
    config = _below(actor, exported) or actor / "model" / "huggingface"
    if _dict(manifest, "backend").get("peft") is True or "adapter" in run.disk.names(config):
        own = run if run.base_model else replace(run, base_model=str(config))
        folder, weights = student_in(own, [config / "adapter"], out=out) or (config, None)
        if weights is None:
            blocker = "Its adapter lies in Megatron shards (model/dist_ckpt), apart from the model under it."
            way_out = (
                "Run scripts/megatron_merge_lora.py of a clone of verl with the configuration of the training and "
                f"actor_rollout_ref.model.lora.adapter_path={shlex.quote(str(actor / 'model' / 'dist_ckpt'))}."
            )
            weights = Weights("other").blocked(NEEDS_MERGE, blocker, way_out)
    else:
        folder, weights = student_in(run, [config, actor / "model" / "dist_ckpt"], out=out) or (actor, None)
        weights = _merging(weights, _merger(actor, out), out)
    known = MANIFEST in run.disk.names(actor)
    note = None if known else f"{MANIFEST} is not there yet: the save may not have finished."
    return _checkpoint(run, step, folder, weights, (config,), complete=True if known else None, note=note)


def _checkpoint(
    run: Run,
    step: int,
    folder: Path,
    weights: Weights | None,
    tokenizers: tuple[Path, ...],
    complete: bool | None = None,
    note: str | None = None,
) -> Checkpoint:
    step = run.updates(step, base=1)
    return checkpoint_at(
        folder,
        weights,
        f"step {step}",
        step,
        tokenizers=(*tokenizers, run.folder),
        complete=complete,
        note=note,
        disk=run.disk,
    )


def _no_weights(run: Run, actor: Path, config: Path) -> Weights:
    if run.disk.names(config):
        blocker = f"Found config and tokenizer only in {config}, and no shards in {actor}."
    else:
        blocker = f"Found no weights in {actor}; found {first_names(run.disk, actor)}."
    way_out = (
        "Copy the shards there; for runs to come set actor_rollout_ref.actor.checkpoint.save_contents="
        "[model,optimizer,extra,hf_model]."
    )
    return Weights("full").blocked("NO_WEIGHTS", blocker, way_out)


def _older_than_shards(run: Run, actor: Path, weights: Weights) -> str | None:
    shard = next((name for name in sorted(run.disk.names(actor)) if RANK_FILE.fullmatch(name)), None)
    if shard is None:
        return None
    hours = (run.disk.stat(actor / shard).st_mtime - run.disk.stat(weights.files[0]).st_mtime) / _HOUR
    if hours <= 1:
        return None
    return f"Its Hugging Face weights are {hours:.0f} hours older than the shards beside them; they were used."


def _merging(weights: Weights | None, command: str, out: str, clone: str = "") -> Weights | None:
    if weights is None or weights.code != NEEDS_MERGE:
        return weights
    return replace(weights, way_out=mended(command, out, clone=clone))


def _merger(actor: Path, out: str) -> str:
    where = shlex.quote(str(actor))
    return f"python -m verl.model_merger merge --backend megatron --local_dir {where} --target_dir {out}"


def _dict(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _below(folder: Path, path: Any) -> Path | None:
    """Give the path that a manifest names, unless it leads out of the folder."""
    if not isinstance(path, str) or os.path.isabs(path) or ".." in Path(path).parts:
        return None
    return folder / path
