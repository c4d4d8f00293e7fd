"""What can go wrong, as one small tree; every message says what was expected, what was found, what to do.

::

    OpdDiagError                 shown by the terminal as one sentence, exit code 2, no traceback
    ├── InputError               a file, folder or option of the user's cannot be used as it is
    │   ├── RunFolderError       the run folder or its manifest
    │   ├── CheckpointError      one checkpoint; the others go on
    │   ├── PromptsError         the prompts file
    │   ├── RolloutsError        a rollouts file
    │   └── StoreError           OUT_DIR and the files of ours in it
    ├── TokenizerMismatchError   an id that occurs means different text to student and teacher
    ├── ModelError               a model gives what it must not (another head, NaN logits)
    ├── ServerError              a server cannot be used, or answers what it must not
    ├── WorkerError              a worker of a cluster was lost again and again
    ├── RankError                a process with a shard of a model was lost, or failed alone
    └── MissingExtra             an optional dependency is not installed

To add one, derive it here and give it a line above.
"""

from __future__ import annotations

from typing import ClassVar


class OpdDiagError(Exception):
    """The base of every error that opd-diag raises on purpose."""

    code: str | None = None
    """Short name of what it is about, in capitals, as ``NO_CHECKPOINTS``; None where it has none."""

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InputError(OpdDiagError, ValueError):
    """A file, folder or option of the user's cannot be used as it is."""


class RunFolderError(InputError):
    """The run folder is missing, empty, or its manifest cannot be read."""


class CheckpointError(InputError):
    """One checkpoint cannot be loaded; a report names it and goes on with the others."""


class PromptsError(InputError):
    """The prompts file is missing, empty or has a line that is no prompt."""


class RolloutsError(InputError):
    """A rollouts file is missing, empty or has a line that is no rollout."""


class StoreError(InputError):
    """OUT_DIR cannot be written, belongs to another run, or a file of ours in it is damaged."""


class TokenizerMismatchError(OpdDiagError, ValueError):
    """An id that occurs in rollouts or kept tokens decodes differently under student and teacher."""

    code = "TOKENIZER_MISMATCH"


class ModelError(OpdDiagError, RuntimeError):
    """A model gives what it must not: logits that its own head does not, or values that are not numbers."""


class ServerError(OpdDiagError, RuntimeError):
    """A server cannot be used, or answers what it must not."""


class WorkerError(OpdDiagError, RuntimeError):
    """A worker of a cluster was lost as often as one is replaced, ran out of memory, or never came."""


class RankError(OpdDiagError):
    """A process that holds a shard of a model was lost, or failed where the others did not."""

    ends_process: ClassVar[bool] = False
    """Whether this process may end where it waits in torch for a lost one: it may where it is a terminal command."""


class MissingExtra(OpdDiagError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"This needs {package}, which is not installed: run pip install 'opd-diag[{extra}]'.")
