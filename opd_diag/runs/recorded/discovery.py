"""Finding the files in which a trainer recorded responses: by names, and by one first line for each series of files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from opd_diag.runs.disk import asked
from opd_diag.runs.recorded.formats import FORMATS, named_like, with_fields
from opd_diag.runs.recorded.lines import first_fields
from opd_diag.runs.recorded.recorded_file import Format, RecordedFile, file_of, unreadable
from opd_diag.runs.recorded.verl import validations_marked

_DEPTH = 6
"""Folders below the run folder: AReaL writes to ``logs/USER/EXPERIMENT/TRIAL/rollout/VERSION/``."""
_FOLDERS = 10_000
"""Folders that are looked into at most; checkpoints do not count, since they are not looked into."""
_ATTEMPTS = 3
"""Files of a series whose first line is tried, as the newest may be empty yet."""
_REPORT = ".opd-diag.json"
"""What lies in a report of ours, whose rollouts no trainer recorded."""

_SUFFIXES = (".jsonl", ".parquet", ".pt", ".pkl")
_STEPS = re.compile(r"(?:tmp[-_]|old[-_])?(?:checkpoint|global_?step|iter|step|epoch)[-_]?\d", re.ASCII)
_OF_ROLLOUTS = re.compile(r"global_step_\d+_evals", re.ASCII)
_HOLD_STEPS = frozenset({"rollouts", "token_exports"})
_NEVER = frozenset({"wandb", "mlruns", "swanlog", "__pycache__", "node_modules"})


def find_recorded(run_dir: str | Path) -> list[RecordedFile]:
    """Find the files in which trainers recorded responses, in a run folder and below.

    Nothing is read but names, and one first line for files of one series; neither torch nor pandas is loaded. Folders
    of checkpoints and reports of ours are not looked into, links are followed once.

    Parameters
    ----------
    run_dir
        Folder of the run, or any folder of recorded responses.

    Returns
    -------
    list of RecordedFile
        By format, then training before evaluation, then step and name. Copies that trainers keep of the same
        responses stand once: ``effective`` before ``all`` (prime-rl), ``rollout_data`` before ``train_data`` (slime).

    Raises
    ------
    RolloutsError
        The folder is missing or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run_dir:
    ...     rollouts = Path(run_dir, "rollouts")
    ...     rollouts.mkdir()
    ...     _ = (rollouts / "40.jsonl").write_text('{"input": "2 + 2 =", "output": " 4", "step": 40}')
    ...     [(file.format, file.step, file.exactness) for file in find_recorded(run_dir)]
    [('verl', 40, 'text-stripped')]
    """
    root = Path(os.path.abspath(os.path.expanduser(run_dir)))
    try:
        os.scandir(root).close()
    except OSError as problem:
        raise unreadable(root, problem) from problem
    told: dict[tuple[str, ...], tuple[Format | None, int]] = {}
    found = []
    for path in _files(root):
        candidates = named_like(path)
        chosen = _chosen(path, candidates, told) if candidates else None
        if chosen is not None:
            found.append(file_of(Path(path), chosen))
    return sorted(_without_copies(validations_marked(found)), key=_order)


def _files(root: Path) -> Iterator[str]:
    """Give the files with a suffix of a format below `root`; each folder once, real ones before links."""
    seen: set[str] = set()
    folders: list[tuple[str, int]] = [(str(root), 0)]
    links: list[tuple[str, int]] = []
    while (folders or links) and len(seen) < _FOLDERS:
        folder, depth = folders.pop() if folders else links.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError:
            continue  # what cannot be listed holds nothing that could be read
        if any(entry.name == _REPORT for entry in listed):
            continue
        for entry in listed:
            if entry.name.endswith(_SUFFIXES) and asked(entry.is_file):
                yield Path(entry.path).as_posix()
            elif depth < _DEPTH and not _passed_over(entry.name, os.path.basename(folder)) and asked(entry.is_dir):
                (links if entry.is_symlink() else folders).append((entry.path, depth + 1))


def _passed_over(name: str, parent: str) -> bool:
    """Tell whether a folder holds no rollouts by its name: hidden, a tool's, or weights of a step."""
    if name.startswith(".") or name in _NEVER:
        return True
    return parent not in _HOLD_STEPS and _STEPS.match(name) is not None and not _OF_ROLLOUTS.fullmatch(name)


def _chosen(
    path: str, candidates: list[Format], told: dict[tuple[str, ...], tuple[Format | None, int]]
) -> Format | None:
    """Choose by the first line, once for a series of files; by the name alone where it says enough."""
    by_line = [found for found in candidates if found.fields]
    if not by_line:
        return candidates[0]
    series = path.rsplit("/", max(found.series for found in by_line))[0]
    key = (series, *(found.name for found in by_line))
    chosen, attempts = told.get(key, (None, 0))
    if chosen is None and attempts < _ATTEMPTS:
        try:
            chosen = with_fields(first_fields(Path(path)), by_line)
        except OSError:
            chosen = None
        told[key] = chosen, attempts + 1
    return chosen


def _without_copies(files: list[RecordedFile]) -> list[RecordedFile]:
    paths = {file.path for file in files}

    def original(path: Path) -> Path:
        if path.name == "traces.jsonl" and path.parent.name == "all":
            return path.parent.parent / "effective" / path.name
        if path.suffix == ".pt" and path.parent.name == "train_data":
            return path.parent.parent / "rollout_data" / path.name
        return path

    return [file for file in files if original(file.path) == file.path or original(file.path) not in paths]


_RANKS = {name: rank for rank, name in enumerate(FORMATS)}


def _order(file: RecordedFile) -> tuple[int, bool, int, str]:
    return _RANKS[file.format], file.evaluation, -1 if file.step is None else file.step, str(file.path)
