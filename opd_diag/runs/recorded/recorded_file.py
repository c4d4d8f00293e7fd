"""A file in which a trainer recorded responses, and what one format of such files is like."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import Exactness


@dataclass(frozen=True)
class RecordedFile:
    """One file in which a trainer recorded responses, told by its name and first line."""

    path: Path
    """The file."""
    format: str
    """Name of its format, one of those in ``FORMATS``."""
    step: int | None
    """The number in its name, as the trainer counts; None where only its records tell."""
    exactness: Exactness
    """How exact its records are; single records may be less exact."""
    evaluation: bool = False
    """Whether the responses are to held-out prompts, written between updates; then no update was made on them."""

    @property
    def pickled(self) -> bool:
        """Whether the file is a pickle: some are read only with ``--allow-pickle``."""
        return self.path.suffix in (".pt", ".pkl")


NOT_GENERATED = "no token of them is marked as generated"
"""Why records of ids are left out."""


@dataclass
class Reading:
    """What the reading of one file is allowed to do, and what it has to say."""

    allow_pickle: bool = False
    """Whether code in the file may run."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the report must know: what was left out, and why."""

    def left_out(self, path: Path, count: int, total: int, why: str) -> None:
        """Note that `count` of `total` records are not used; nothing when there are none."""
        if count:
            self.notes.append(f"{path}: {count} of {total} records left out, as {why}.")

    def kept(self, path: Path, made: Sequence[Recorded | None], why: str = NOT_GENERATED) -> list[Recorded]:
        """Give the records out of which something could be made, and note how many others there are."""
        kept = [recorded for recorded in made if recorded is not None]
        self.left_out(path, len(made) - len(kept), len(made), why)
        return kept


Reader = Callable[[RecordedFile, Reading], list[Recorded]]
"""(file, what is allowed) to its responses, in order."""


@dataclass(frozen=True)
class Format:
    """One way in which a trainer records responses."""

    name: str
    """What `RecordedFile.format` calls it."""
    writer: str
    """The trainer, and what it calls the file, for messages."""
    exactness: Exactness
    """How exact its records are at best."""
    name_pattern: re.Pattern[str]
    """Of the end of a file's path with ``/`` between its parts; group ``step`` is the number, if the name has one."""
    read: Reader
    """Reads one file."""
    fields: frozenset[str] = frozenset()
    """Fields that the first line of a JSON file must have; empty for other files, whose name tells enough."""
    series: int = 1
    """How many folders up the files of one run part: below that folder one first line tells for all."""
    names_version: bool = False
    """Whether records name the version of the weights, which may be older by any number of updates than the step."""


def unreadable(path: Path, problem: OSError) -> RolloutsError:
    """Give the error for a file or folder that the system does not let us read."""
    return RolloutsError(f"{path} cannot be read: {problem.strerror}. Check it and its permissions.")


_EVALUATION = re.compile(r"(?:^|[^a-z])e?val(?:s|uation|idation)?(?:[^a-z]|$)")


def file_of(path: Path, found: Format) -> RecordedFile:
    """Give the record of a file whose format is known: step and kind of prompts come from its name."""
    named = found.name_pattern.search(path.absolute().as_posix())
    step = named and named.groupdict().get("step")
    evaluation = bool(named and _EVALUATION.search(named[0].rpartition("/")[0].lower()))
    return RecordedFile(path, found.name, int(step) if step else None, found.exactness, evaluation)


def updates_before(step: int | None, file: RecordedFile) -> int | None:
    """Give the updates behind the weights that wrote what is filed under `step`, for trainers that count from 1.

    Rollouts filed under N are sampled before update N; a validation filed under N comes after it.
    """
    if step is None:
        return None
    return step if file.evaluation else max(step - 1, 0)
