"""Reading the next checkpoint while this one is at work: its digests are then known, and its bytes in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from opd_diag.errors import CheckpointError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.contents import Stopped
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import checkpoint_content


@contextmanager
def read_ahead(checkpoint: Checkpoint | None, digests: Digests) -> Iterator[None]:
    """Read the files of a checkpoint in the background while the block is at work.

    Parameters
    ----------
    checkpoint
        The next one; None where there is none.
    digests
        Where what was read is remembered. Only what they do not know is read.

    Notes
    -----
    The end of the block waits for the end of the file: what is not read yet would be read next. An error or Ctrl-C does
    not wait. A file that cannot be read is no matter here: whoever needs it next meets the same error and says so.
    """
    if checkpoint is None:
        yield
        return
    stop = threading.Event()

    def read() -> None:
        with suppress(CheckpointError, Stopped):
            checkpoint_content(checkpoint, digests, stop.is_set)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield
        thread.join()
    finally:
        stop.set()
        thread.join()
