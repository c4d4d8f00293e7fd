"""Why a folder is no run that can be used: what was looked for, what was seen, what to do."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opd_diag.errors import RunFolderError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.layouts import LAYOUTS, TRAINERS, Run
from opd_diag.runs.layouts.run import first_names, skipped
from opd_diag.runs.layouts.tinker import download_command

if TYPE_CHECKING:
    from opd_diag.runs.found import FoundRun

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,2}(.*)", re.DOTALL)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_MOST = 10


def existing_folder(run_dir: str | Path) -> Path:
    """Give the folder of a path.

    Raises
    ------
    RunFolderError
        It is no folder on this machine; of an address, the message says how to download it.
    """
    folder = Path(os.path.expanduser(run_dir))
    try:
        if stat.S_ISDIR(os.stat(folder).st_mode):
            return folder
    except PermissionError as error:
        text = f"{folder} cannot be read: {error.strerror}. Check its permissions."
        raise RunFolderError(text, code="UNREADABLE") from error
    except (OSError, ValueError):  # it is not there, or can be nowhere
        pass
    if match := _ADDRESS.fullmatch(str(run_dir)):
        address = f"{match[1]}://{match[2]}"
        text = f"Expected a folder on this machine, found the address {address}. {_download(match[1], address)}"
        raise RunFolderError(text, code="NOT_A_DIRECTORY")
    there = "is a file" if os.path.isfile(folder) else "does not exist"
    text = f"Expected the folder a trainer wrote its checkpoints to; {folder} {there}."
    if there == "does not exist" and _HUB_ID.fullmatch(str(run_dir)):
        text += f" If it is a hub id, download it first: hf download {run_dir} --local-dir {Path(run_dir).name}."
    elif there == "is a file":
        text += " Pass the folder that it lies in."
    raise RunFolderError(text, code="NOT_A_DIRECTORY")


def nothing_found(run: Run, layout: str | None = None) -> RunFolderError:
    """Give the error of a folder without any checkpoint."""
    looked = [n.shows for n in LAYOUTS if n.shows and layout in (None, n.name)]
    weights = run.classified(run.folder)
    empty = {name: None for n in TRAINERS if n.steps and layout in (None, n.name) for name in skipped(run, n.steps)}
    parts = [
        f"No checkpoint found in {run.folder}" + (f" with --layout {layout}." if layout else "."),
        f"Looked for: {', '.join(looked) or layout}. Found: {first_names(run.disk, run.folder)}.",
        f"{weights.blocker} {weights.way_out}" if weights else "",
        f"Nothing to load in: {', '.join(list(empty)[:_MOST])}." if empty else "",
        "Saving was off (save_freq=-1 in verl), or rotation took them away." if empty else "",
        f"Pass the folder that holds the checkpoints, or list them: --steps '{_example(run)}'.",
    ]
    return RunFolderError(" ".join(part for part in parts if part), code="NO_CHECKPOINTS")


def several_runs(run: Run, runs: Mapping[Path, FoundRun | None]) -> RunFolderError:
    """Give the error of a folder that holds more than one run."""
    shown = ", ".join(_one_run(run, folder, found) for folder, found in list(runs.items())[:_MOST])
    more = f" and {len(runs) - _MOST} more" if len(runs) > _MOST else ""
    return RunFolderError(f"{run.folder} holds {len(runs)} runs: pass one of {shown}{more}.", code="MULTIPLE_RUNS")


def ambiguous(folder: Path, layouts: Sequence[tuple[str, int]]) -> RunFolderError:
    """Give the error of a folder that two trainers seem to have written to; `layouts` are names and counts."""
    counts = [f"{name} ({count} checkpoint{'' if count == 1 else 's'})" for name, count in layouts]
    options = " or ".join(f"--layout {name}" for name, _ in layouts)
    text = f"{folder} can be read in {len(layouts)} ways: {', '.join(counts)}. Say which is meant: {options}."
    return RunFolderError(text, code="AMBIGUOUS_LAYOUT")


def refuse_repeated_steps(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse two checkpoints of one step.

    Raises
    ------
    RunFolderError
        Naming both.
    """
    counts = Counter(c.step for c in checkpoints if c.step is not None)
    repeated = [step for step, count in counts.items() if count > 1]
    if repeated:
        paths = [str(c.path) for c in checkpoints if c.step == repeated[0]]
        raise RunFolderError(
            f"Expected one checkpoint for each step, found step {repeated[0]} more than once: {', '.join(paths)}. "
            f"Remove one, or list those you mean: --steps '{repeated[0]}={paths[0]}'.",
            code="DUPLICATE_STEP",
        )


def _download(scheme: str, address: str) -> str:
    quoted = shlex.quote(address)
    if scheme == "tinker":
        return f"Download it first: {download_command(address, 'adapter')}."
    if scheme == "s3":
        return f"Download it first: aws s3 sync {quoted} run."
    if scheme == "gs":
        return f"Download it first: gcloud storage rsync --recursive {quoted} run."
    if scheme == "hf":
        name = address.removeprefix("hf://")
        return f"Download it first: hf download {shlex.quote(name)} --local-dir {shlex.quote(Path(name).name)}."
    return "Download it first."


def _one_run(run: Run, folder: Path, found: FoundRun | None) -> str:
    if found is None:
        return str(folder)
    known = [c.step for c in found.checkpoints if c.step is not None]
    steps = f", steps {min(known)} to {max(known)}" if len(known) > 1 else f", step {known[0]}" if known else ""
    try:
        written = run.disk.stat(found.checkpoints[-1].path).st_mtime
        day = f", {datetime.date.fromtimestamp(written).isoformat()}"
    except (OSError, ValueError, OverflowError):
        day = ""
    count = len(found.checkpoints)
    return f"{folder} ({count} checkpoint{'' if count == 1 else 's'}{steps}{day})"


def _example(run: Run) -> str:
    """Show how ``--steps`` would list the model folders there are, or a made-up one."""
    models = []
    for name in run.disk.folders(run.folder):
        weights = run.classified(run.folder / name)
        if weights is not None and weights.files:
            models.append(f"STEP={run.folder / name}")
    return ",".join(models[:3]) or f"20={run.folder / 'my-model'}"
