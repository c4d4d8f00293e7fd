"""What OpenRLHF, AReaL, KDFlow and ROLL write: Hugging Face folders, each under names of its own."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts.hf import STEP
from opd_diag.runs.layouts.run import Run, checkpoint_at, student_in
from opd_diag.runs.sharded import NEEDS_MERGE, mended, unzeroed

OPENRLHF = re.compile(r"global_step(\d+)_hf", re.ASCII)
AREAL = re.compile(r"epoch(\d+)epochstep(\d+)globalstep(\d+)", re.ASCII)
KDFLOW = re.compile(r"epoch_(\d+)_global_step_(\d+)", re.ASCII)

OPENRLHF_CAVEAT = (
    "OpenRLHF deletes its worst checkpoints, not the oldest, and exports averaged weights where EMA is on; neither can "
    "be seen in the files."
)

_TAG = re.compile(r"(?:best_)?global_step(\d+)", re.ASCII)
_EPOCH = re.compile(r"epoch_(\d+)", re.ASCII)
_STUDENTS = ("student_train", "actor_train")
_ROLL_STATE = "worker_state_pipeline.json"


def openrlhf(run: Run) -> list[Checkpoint]:
    """Give ``global_stepN_hf``, the exports, and of other steps DeepSpeed's shards in ``_actor/``."""
    found = {}
    actor = run.folder / "_actor"
    if run.disk.names(actor):
        for number, folder in run.at(actor).step_folders(_TAG):
            step = run.updates(number, base=1)
            out = f"merged/step-{step}"
            weights = run.classified(folder, out)
            if weights is not None and weights.code == NEEDS_MERGE:
                weights = replace(weights, way_out=unzeroed(actor, out, tag=folder.name))
            found[step] = checkpoint_at(folder, weights, f"step {step}", step, disk=run.disk)
    for number, folder in run.step_folders(OPENRLHF):
        step, weights = run.updates(number, base=1), run.classified(folder)
        found[step] = checkpoint_at(folder, weights, f"step {step}", step, tokenizers=(run.folder,), disk=run.disk)
    return [found[step] for step in sorted(found)]


def areal(run: Run) -> list[Checkpoint]:
    """Give ``epochEepochstepSglobalstepG``; G counts from 0."""
    return _newest(run, AREAL, base=0)


def kdflow(run: Run) -> list[Checkpoint]:
    """Give ``epoch_E_global_step_N``, and ``epoch_E``, the end of an epoch at an unknown step, after the last of it."""
    found = _newest(run, KDFLOW, base=1)
    if not found:
        return []
    places = {match[0]: int(match[1]) for c in found if (match := KDFLOW.fullmatch(c.path.name))}
    for epoch, folder in run.step_folders(_EPOCH):
        after = max((i + 1 for i, c in enumerate(found) if places.get(c.path.name, epoch) <= epoch), default=0)
        note = f"{folder.name} is the end of an epoch; its step is in no name."
        weights = run.classified(folder)
        places[folder.name] = epoch
        found.insert(after, checkpoint_at(folder, weights, folder.name, None, note=note, disk=run.disk))
    return found


def roll(run: Run) -> list[Checkpoint]:
    """Give ``WORKER/checkpoint-N`` of the worker that trains the student, where ``pipeline/`` tells of ROLL.

    N counts from 0. The folder of that worker may be given, too. Distilling, ROLL puts the weights one deeper.
    """
    if _is_roll(run, run.folder):
        root, workers = run.folder, run.disk.folders(run.folder)
    elif _is_roll(run, run.folder.parent):
        root, workers = run.folder.parent, [run.folder.name]
    else:
        return []
    trained = [name for role in _STUDENTS for name in workers if name == role or name.startswith(f"{role}-")]
    found: dict[int, Checkpoint] = {}
    for worker in trained:
        for number, folder in run.at(root / worker).step_folders(STEP):
            step = run.updates(number, base=0)
            if step not in found or not found[step].loadable:
                found[step] = _of_roll(run, folder, step, worker)
    return [found[step] for step in sorted(found)]


def _is_roll(run: Run, root: Path) -> bool:
    pipeline = root / "pipeline"
    steps = [name for name in run.disk.folders(pipeline) if STEP.fullmatch(name)]
    return any(_ROLL_STATE in run.disk.names(pipeline / name / "pipeline") for name in steps)


def _of_roll(run: Run, folder: Path, step: int, worker: str) -> Checkpoint:
    out, inner = f"merged/step-{step}", folder / worker.split("-")[0]
    places = [folder, inner, folder / "default", inner / "default", *_megatron_folders(run, (folder, inner))]
    where, weights = student_in(run, places, out=out) or (folder, None)
    if weights is not None and weights.code == NEEDS_MERGE:
        saved = shlex.quote(str(inner if inner in (where, where.parent) else folder))
        command = f"python mcore_adapter/tools/convert.py --checkpoint_path {saved} --output_path {out}"
        weights = replace(weights, way_out=mended(command, out, clone="ROLL"))
    return checkpoint_at(where, weights, f"step {step}", step, tokenizers=(inner, folder), disk=run.disk)


def _megatron_folders(run: Run, folders: tuple[Path, ...]) -> Iterator[Path]:
    for folder in folders:
        for name in run.disk.folders(folder):
            if re.fullmatch(r"iter_\d{7}|dist_model", name):
                yield folder / name


def _newest(run: Run, pattern: re.Pattern[str], base: int) -> list[Checkpoint]:
    """Give one checkpoint a step; of two folders of one step, which a resumed run leaves, the one written last."""
    by_step: dict[int, list[Path]] = defaultdict(list)
    for number, folder in run.step_folders(pattern):
        by_step[run.updates(number, base)].append(folder)
    found = []
    for step, folders in sorted(by_step.items()):
        newest = max(folders, key=lambda folder: (run.disk.stat(folder).st_mtime_ns, folder.name))
        others = ", ".join(folder.name for folder in folders if folder != newest)
        note = f"{newest.name} is the newest of its step; left out: {others}." if others else None
        weights = run.classified(newest)
        found.append(
            checkpoint_at(newest, weights, f"step {step}", step, tokenizers=(run.folder,), note=note, disk=run.disk)
        )
    return found
