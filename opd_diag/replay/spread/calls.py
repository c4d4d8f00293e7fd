"""What is sent to a worker and what comes back: errors cross as what they are."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opd_diag import errors
from opd_diag.errors import OpdDiagError
from opd_diag.replay.account import Work
from opd_diag.runs.fingerprint import CheckpointContent

Told = dict[str, tuple[int, int]]
"""By what is being done, (units done, units in all)."""

Tell = Callable[[Told], None]
"""Hears of progress."""


@dataclass(frozen=True)
class Known:
    """What is known of the files of a model: another process need not read them all again to know them."""

    content: CheckpointContent
    digests: Mapping[str, Any]
    """As :meth:`opd_diag.runs.digests.Digests.excerpt` gives them."""


@dataclass(frozen=True)
class Call:
    """What a worker is asked for."""

    what: str
    """Name of what is wanted, as :meth:`opd_diag.replay.parts.Parts.making` has it."""
    label: str
    """Label of the checkpoint that it is wanted of, or of the teacher."""
    of: tuple[object, ...]
    """On what: responses, places, …"""
    known: Mapping[str, Known]
    """Of this checkpoint, and of the teacher where it is loaded, by label."""

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"{self.label}: {_NAMES.get(self.what, self.what)}"


_NAMES = {
    "outline": "scoring",
    "shard": "scoring",
    "answers": "questions to the teacher's server",
    "sampled": "sampling responses",
    "head_check": "check of the head",
    "fits": "second pass",
    "floor": "precision floor",
    "selftests": "self-tests",
}


@dataclass(frozen=True)
class Refusal:
    """An error of ours, on its way to another process."""

    kind: str
    message: str
    code: str | None

    @classmethod
    def of(cls, error: OpdDiagError) -> Refusal:
        """Take what crosses of an error: what led to it stays where it was."""
        return cls(type(error).__name__, str(error), error.code)

    def error(self) -> OpdDiagError:
        """Give the error again."""
        kind: type[OpdDiagError] = getattr(errors, self.kind, OpdDiagError)
        error = kind.__new__(kind)
        OpdDiagError.__init__(error, self.message, code=self.code)
        return error


@dataclass(frozen=True)
class Answer:
    """What a worker gives back."""

    made: bytes
    """What was asked for, pickled: arrays that a cluster's memory holds could not be written to."""
    work: Work
    """What models did for it."""
    told: Told
    """What was not yet told of its progress."""
    refusal: Refusal | None = None

    def given(self) -> Any:
        """Give what was asked for, or raise what stood against it."""
        if self.refusal is not None:
            raise self.refusal.error()
        return pickle.loads(self.made)
