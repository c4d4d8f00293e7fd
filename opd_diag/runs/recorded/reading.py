"""Reading a file of recorded responses, whatever trainer wrote it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.formats import FORMATS, KNOWN, named_like, with_fields
from opd_diag.runs.recorded.lines import first_fields
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, file_of, unreadable

_BY_SUFFIX = {".parquet": "trl", ".pt": "slime", ".pkl": "skyrl-batches"}


def read_recorded(
    file: RecordedFile | str | Path, *, allow_pickle: bool = False, notes: list[str] | None = None
) -> list[Recorded]:
    """Read the responses that a trainer recorded in one file.

    Parameters
    ----------
    file
        One of :func:`find_recorded`, or the path of any file whose format its first line or suffix tells.
    allow_pickle
        Whether code in the file may run; only pickles that hold more than tensors and plain values need it.
    notes
        Gets what a reader of the report must know, one sentence each: a last line that is half written, responses
        that were left out.

    Returns
    -------
    list of Recorded
        At least one, in the order of the file.

    Raises
    ------
    RolloutsError
        The file is missing, empty, of no known format, not whole, or a record in it is not what its format says; the
        message names the line. A pickle that is not allowed has the code ``PICKLE_REFUSED``.
    """
    found = file if isinstance(file, RecordedFile) else recorded_file(file)
    reading = Reading(allow_pickle, [] if notes is None else notes)
    recorded = FORMATS[found.format].read(found, reading)
    if not recorded:
        left_out = f" {' '.join(reading.notes)}" if reading.notes else ""
        raise RolloutsError(f"{found.path} holds no response that can be used.{left_out} Leave the file out.")
    return recorded


def recorded_file(path: str | Path) -> RecordedFile:
    """Tell what a file is: by its name where one format fits and its first line agrees, else by its first line.

    Raises
    ------
    RolloutsError
        The file is missing, cannot be read, is empty, or of no known format.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise RolloutsError(f"Rollouts file {path} does not exist or is no file. Name one with --rollouts.")
    candidates = named_like(path.absolute())
    by_name = next((found for found in candidates if not found.fields), None)
    by_name = by_name or FORMATS.get(_BY_SUFFIX.get(path.suffix, ""))
    file = file_of(path, by_name or _by_first_line(path, candidates))
    if file.format == "verl" and (path.parent / "0.jsonl").exists():
        return replace(file, evaluation=True)
    return file


def _by_first_line(path: Path, candidates: list[Format]) -> Format:
    try:
        fields = first_fields(path)
    except OSError as problem:
        raise unreadable(path, problem) from problem
    found = with_fields(fields, candidates) or with_fields(fields, FORMATS.values())
    if found is not None:
        return found
    if path.stat().st_size == 0:
        raise RolloutsError(f"{path} is empty. If the trainer is writing it, run the command again later.")
    shown = f"the fields {', '.join(sorted(fields)[:10])}" if fields else "no JSON object"
    raise RolloutsError(f"{path} is of no format that opd-diag reads: its first line has {shown}. {KNOWN}")
