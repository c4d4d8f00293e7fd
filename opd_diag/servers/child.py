"""A module in a process of its own: lines of JSON in, lines of JSON out, and its end whatever happens here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from opd_diag.text import visible

LEAVES_WITHIN = 10.0
"""Seconds that a process has to end by itself, once it is asked nothing more."""

LOG_BYTES = 4096
"""Of what it wrote to standard error last, in which its last line is looked for."""


class NoAnswer(Exception):
    """Why a process gave no answer, as the end of a sentence about it."""


class Child:
    """A process that runs a module, until it is closed.

    Parameters
    ----------
    module
        Name of the module, as ``python -m`` takes it.
    variables
        Environment variables that differ from this process's.
    """

    def __init__(self, module: str, variables: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # -P: files in the working directory are no modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **variables},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends that one
        )

    def send(self, line: Mapping[str, Any]) -> None:
        """Write a line; where the process has ended, the next answer says so."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line).encode("ascii") + b"\n")
            self._process.stdin.flush()

    def answer(self, most: int) -> dict[str, Any]:
        """Read a line of at most so many bytes.

        Raises
        ------
        NoAnswer
            The process has ended, or the line is no JSON object.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline(most)
        if not line:
            raise NoAnswer(self._ending())
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise NoAnswer(f"answered {visible(repr(line[:40]), keep='')} in place of a line of JSON")
        return said

    def close(self, *, at_once: bool = False) -> None:
        """End the process, which has some seconds for it unless it is to end at once, or Ctrl-C is pressed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0 if at_once else LEAVES_WITHIN)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with all that it started, which is of its session
            self._process.wait()
            self._process.stdout.close()
            self._log.close()

    def _ending(self) -> str:
        """Say how the process ended, and what it said last."""
        try:
            code = self._process.wait(LEAVES_WITHIN)
        except subprocess.TimeoutExpired:
            return "answers no more"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = self._last_line()
        return f"{how}; it said last: {last}" if last else how

    def _last_line(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_BYTES))
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return words(lines[-1]) if lines else ""


def words(said: object) -> str:
    r"""Give what another program says, in one line of limited length, to be followed by a full stop.

    Examples
    --------
    >>> words("No model\n  here.")
    'No model here'
    """
    line = visible(" ".join(str(said).split()), keep="")
    return (line if len(line) <= 300 else line[:299] + "…").rstrip(".")
