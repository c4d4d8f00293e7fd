"""Finding the checkpoints of a run, choosing among them, and the initial student that trainers do not save."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from opd_diag.errors import CheckpointError, InputError, RunFolderError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts import LAYOUTS, checkpoint_at, first_names, skipped_folders, step_folders
from opd_diag.runs.manifest import MANIFEST_NAME, Manifest, read_manifest
from opd_diag.runs.weights import classify_weights, is_local


def find_checkpoints(
    run_dir: str | Path,
    *,
    base_model: str | None = None,
    layout: str | None = None,
    manifest: Manifest | None = None,
) -> list[Checkpoint]:
    """Find the checkpoints of a run by names and small text files; no tensor is loaded.

    Parameters
    ----------
    run_dir
        Folder of the run, as the trainer wrote it.
    base_model
        Model under the adapters; default: the manifest's, else what each adapter names.
    layout
        How the run is laid out: ``manifest``, ``hf_trainer`` or ``single``; default: the manifest's, else the first
        of these that finds anything.
    manifest
        What ``opd-diag.toml`` of the run says; read from `run_dir` by default.

    Returns
    -------
    list of Checkpoint
        Lowest step first, unknown step last. One that cannot be loaded is in the list, with its blocker.

    Raises
    ------
    RunFolderError
        The folder is missing, is a file, holds no checkpoint or two of the same step; the manifest is broken; there
        is no such layout.
    """
    run_dir = _run_folder(run_dir)
    manifest = read_manifest(run_dir) if manifest is None else manifest
    layout = layout or manifest.settings.get("layout")
    if layout not in (None, *dict(LAYOUTS)):
        raise RunFolderError(f"Expected --layout as one of {', '.join(dict(LAYOUTS))}, found '{layout}'.")
    base_model = base_model or manifest.settings.get("base_model")
    try:
        candidates = (find(run_dir, manifest, base_model) for name, find in LAYOUTS if layout in (None, name))
        found = next((checkpoints for checkpoints in candidates if checkpoints), None)
        if not found:
            raise _nothing_found(run_dir, layout)
    except OSError as error:
        where = error.filename or run_dir
        raise RunFolderError(f"{where} cannot be read: {error.strerror}. Check its permissions.") from error
    _refuse_repeated_steps(found)
    return sorted(found, key=lambda c: (c.step is None, c.step or 0, c.label))


def select_checkpoints(checkpoints: Sequence[Checkpoint], wanted: Sequence[str]) -> list[Checkpoint]:
    """Keep the checkpoints named in `wanted`, by step or label, in their own order; all when `wanted` is empty.

    Raises
    ------
    InputError
        A name that no checkpoint has; the message lists those there are.
    """
    if not wanted:
        return list(checkpoints)
    unknown = [name for name in wanted if not any(name in _names(c) for c in checkpoints)]
    if unknown:
        there = ", ".join(c.label if c.step is None else str(c.step) for c in checkpoints)
        raise InputError(
            f"--checkpoints names {', '.join(unknown)}, which the run does not have. Choose among: {there}."
        )
    return [c for c in checkpoints if any(name in _names(c) for name in wanted)]


def step_zero(student: str, checkpoints: Sequence[Checkpoint], *, base_model: str | None = None) -> Checkpoint:
    """Make the record of the initial student.

    Parameters
    ----------
    student
        A folder or a hub id, with a revision after ``@`` if any.
    checkpoints
        Those found in the run; one of them may be step 0 itself.
    base_model
        Model under it when it is an adapter; default: what the adapter names.

    Raises
    ------
    CheckpointError
        `student` can only be a path, and there is no folder; or the run has another checkpoint of step 0.
    """
    folder = Path(os.path.expanduser(student))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"The student must be a folder or a hub id; {student} is a file. Correct --student.")
    if not folder.exists() and is_local(student):
        raise CheckpointError(f"The student must be a folder or a hub id; {student} does not exist. Correct --student.")
    for checkpoint in checkpoints:
        if checkpoint.step == 0:
            if os.path.realpath(checkpoint.path) == os.path.realpath(folder):
                return checkpoint
            raise CheckpointError(
                f"Step 0 stands twice: the run has {checkpoint.path} and the student is {student}. Leave one out: "
                "the student with no --student (or no 'student' in the manifest), the other with --checkpoints."
            )
    if not folder.exists():
        return Checkpoint("step 0", 0, Path(student), "full", tokenizer=student)
    return checkpoint_at(folder, classify_weights(folder, base_model), "step 0", 0)


def _names(checkpoint: Checkpoint) -> tuple[str, ...]:
    return (checkpoint.label,) if checkpoint.step is None else (checkpoint.label, str(checkpoint.step))


def _run_folder(run_dir: str | Path) -> Path:
    folder = Path(os.path.expanduser(run_dir))
    if "://" in str(run_dir):
        raise RunFolderError(f"Expected a folder on this machine, found the address {run_dir}. Download the run first.")
    if not os.path.isdir(folder):
        found = "is a file" if os.path.isfile(folder) else "does not exist"
        raise RunFolderError(f"Expected the folder a trainer wrote its checkpoints to; {folder} {found}.")
    return folder


def _refuse_repeated_steps(checkpoints: Sequence[Checkpoint]) -> None:
    counts = Counter(c.step for c in checkpoints if c.step is not None)
    repeated = [step for step, count in counts.items() if count > 1]
    if repeated:
        paths = ", ".join(str(c.path) for c in checkpoints if c.step == repeated[0])
        raise RunFolderError(
            f"Expected one checkpoint for each step, found step {repeated[0]} more than once: {paths}. Remove one, or "
            f"list those you mean as [[checkpoints]] in {MANIFEST_NAME}."
        )


def _nothing_found(run_dir: Path, layout: str | None) -> RunFolderError:
    children = [
        run_dir / name
        for name in sorted(os.listdir(run_dir))
        if not name.startswith((".", "tmp-")) and os.path.isdir(run_dir / name)
    ]
    runs = [child for child in children if (child / MANIFEST_NAME).is_file() or step_folders(child)]
    if len(runs) == 1 and layout is None:
        return RunFolderError(f"{run_dir} is no run, but the folder in it is one: pass {runs[0]}.")
    if runs and layout is None:
        shown = ", ".join(map(str, runs[:10])) + (f" and {len(runs) - 10} more" if len(runs) > 10 else "")
        return RunFolderError(f"{run_dir} holds {len(runs)} runs: pass one of {shown}.")
    weights = classify_weights(run_dir)
    looked = "[[checkpoints]] in opd-diag.toml, folders named checkpoint-N, a model in the folder itself"
    parts = [
        f"No checkpoint found in {run_dir}" + (f" with --layout {layout}." if layout else "."),
        f"Looked for: {looked}. Found: {first_names(run_dir)}.",
        f"{weights.blocker} {weights.way_out}" if weights else "",
        f"Nothing to load in: {', '.join(skipped)}." if (skipped := skipped_folders(run_dir)) else "",
        f"Pass the folder that holds the checkpoints, or list them in {run_dir / MANIFEST_NAME}: {_listing(children)}",
    ]
    return RunFolderError(" ".join(part for part in parts if part))


def _listing(children: Sequence[Path]) -> str:
    """Show how the manifest would list the model folders there are, or a made-up one."""
    models = [child.name for child in children if (weights := classify_weights(child)) and weights.files]
    return " ".join(f"[[checkpoints]] step = … path = '{name}'" for name in models[:3] or ["my-model"])
