"""Rank 0 of a model in shards: it starts the processes of the other ranks, and says what all of them do next.

Whatever runs a body is named to the others and then done by all, so that the sums inside a model meet. Names and
arguments go through a socket that only these processes have; torch's process group carries tensors between the shards
alone, and listens on the loopback interface unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names another one. Ranks
live as long as the model: one that fails alone, or is lost, ends the report with its number and reason.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from opd_diag.errors import InputError, RankError

PATIENCE = timedelta(minutes=10)
"""How long a sum over all ranks may take before torch gives it up."""

GRACE = 10.0
"""Seconds that a rank gets to leave a sum that another one does not come to, before it is ended."""

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""What says where torch's process groups listen; else they do where the name of the machine leads."""

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

Told = tuple[bool, str]
"""Whether a rank did what it was to do, and why not."""


class Ranks:
    """The processes that hold the other shards of a model.

    Parameters
    ----------
    ranks
        How many shards there are, that of this process included.

    Raises
    ------
    InputError
        This process belongs to a process group already, or its system cannot have one.
    RankError
        A process could not be started.
    """

    def __init__(self, ranks: int) -> None:
        if os.name != "posix" or not torch.distributed.is_available():
            raise InputError("--tensor-parallel needs torch.distributed on Linux or macOS. Use --device-map auto.")
        gc.collect()  # a model in shards that is used no more ends its group
        if torch.distributed.is_initialized():
            raise InputError(
                "--tensor-parallel starts a process group, and this process belongs to one already. Use it in a "
                "process of its own, with one model in shards at a time."
            )
        self.folder = Path(tempfile.mkdtemp(prefix="opd-diag-ranks-"))
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._connections: dict[Connection[Any, Any], int] = {}
        self._told: dict[int, Told] = {}
        self._lost: dict[int, str] = {}
        self._changed = threading.Condition()
        self._inside = ""
        """What all are doing."""
        self._closed = False
        self._interfaces = dict.fromkeys((name for name in INTERFACES if name not in os.environ), LOOPBACK)
        os.environ.update(self._interfaces)
        atexit.register(self.close)
        with ExitStack() as undone:
            undone.callback(self.close)
            for rank in range(1, ranks):
                self._start(rank)
            threading.Thread(target=self._listen, name="ranks", daemon=True).start()
            self._await()
            store = str(self.folder / "store")
            with self.together("join", store, ranks, max(1, torch.get_num_threads() // ranks)):
                join(store, 0, ranks)
            undone.pop_all()

    @contextmanager
    def together(self, what: str, *args: Any) -> Iterator[None]:
        """Let all ranks do what this one does inside; what is called within it is not named again.

        Parameters
        ----------
        what, args
            A method of :class:`~opd_diag.inference.following.Follower`, and what it is given.

        Raises
        ------
        RankError
            A rank was lost, or failed where this one did not.
        """
        if self._inside:
            yield
            return
        self._say(what, args)
        self._inside, done = what, False
        try:
            yield
            done = True
        finally:
            self._inside = ""
            self._settle(done=done)

    def close(self) -> None:
        """End the other ranks, at once if they are at work."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        idle = not self._inside and len(self._told) == len(self.processes) and not self._lost
        for connection in self._connections if idle else []:
            _send(connection, ("end", ()))
        for process in self.processes.values():
            try:
                process.wait(5.0 if idle else 0.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in self._interfaces:
            os.environ.pop(name, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, rank: int) -> None:
        here, there = socket.socketpair()
        path = [each for each in sys.path if isinstance(each, str)]  # import passes over all others
        program = f"import sys; sys.path[:] = {path!r}; from opd_diag.inference.following import main; main"
        with there, (self.folder / f"rank-{rank}.txt").open("wb") as said:
            self.processes[rank] = subprocess.Popen(
                [sys.executable, "-c", f"{program}{there.fileno(), rank, os.getpid()}"],
                env={**os.environ, "LOCAL_RANK": str(rank)},  # transformers takes this GPU
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self._connections[Connection(here.detach())] = rank

    def _say(self, what: str, args: Sequence[Any]) -> None:
        self._refuse_ended()
        self._told = {}
        for connection in self._connections:
            _send(connection, (what, tuple(map(_plain, args))))

    def _await(self, seconds: float | None = None) -> dict[int, Told]:
        """Give what all ranks say of what they were to do; {} if some say nothing in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._lost or self._closed or len(self._told) == len(self.processes), seconds
            )
        self._refuse_ended()
        return dict(self._told) if len(self._told) == len(self.processes) else {}

    def _settle(self, *, done: bool) -> None:
        """See that all ranks are where this one is; else end them, and say whose fault it is."""
        if isinstance(sys.exception(), KeyboardInterrupt):  # the others may wait for a sum that does not come
            self.close()
            return
        told = self._await(None if done else GRACE)
        failed = [(rank, why) for rank, (well, why) in told.items() if not well] if done else []
        if failed or not told:
            self.close()
        if failed:
            raise RankError(_said(*failed[0]))

    def _refuse_ended(self) -> None:
        if self._lost:
            rank, why = next(iter(self._lost.items()))
            self.close()
            raise RankError(_said(rank, why))
        if self._closed:
            raise RankError("The ranks of a model in shards were ended. Run the same command again.")

    def _listen(self) -> None:
        """Hear what the others say until all end; what this one waits for where another one is lost is broken off."""
        connections, failed_at = dict(self._connections), 0.0
        while not self._closed:
            for connection in wait([*connections], 1.0):
                assert isinstance(connection, Connection)
                rank = connections[connection]
                try:
                    told = connection.recv()
                except (EOFError, OSError):
                    del connections[connection]
                    self._note(self._lost, rank, self._last_words(rank))
                else:
                    self._note(self._told, rank, told)
            failed = self._lost or not all(done for done, _ in [*self._told.values()])
            failed_at = (failed_at or time.monotonic()) if failed and self._inside else 0.0
            if failed_at and time.monotonic() > failed_at + GRACE:
                self._break_off()
                return

    def _note(self, where: dict[int, Any], rank: int, what: Any) -> None:
        """Keep what is heard of a rank, but not that it is gone because this one ended it."""
        with self._changed:
            if not self._closed:
                where[rank] = what
            self._changed.notify_all()

    def _break_off(self) -> None:
        """End a sum that cannot end: gloo notices that others are gone, NCCL must be told, and else nothing helps.

        Then the terminal program ends with this process; whoever else waits, waits for `PATIENCE`.
        """
        for rank, (done, why) in [*self._told.items()]:
            if not done:
                self._note(self._lost, rank, why)
        for process in self.processes.values():
            process.kill()
        if torch.cuda.is_available() and torch.distributed.is_initialized():
            torch.distributed.distributed_c10d._abort_process_group()
        time.sleep(GRACE)
        if self._inside not in ("", "load") and RankError.ends_process:  # who reads weights will come back
            shutil.rmtree(self.folder, ignore_errors=True)
            os.write(2, f"error: {_said(*next(iter(self._lost.items())))}\n".encode())
            os._exit(2)

    def _last_words(self, rank: int) -> str:
        code = self.processes[rank].wait()
        file = self.folder / f"rank-{rank}.txt"
        lines: list[str] = []
        with suppress(OSError):  # where all is at an end the folder goes
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        why = "the system does that where memory runs out" if code == -signal.SIGKILL else last[:300]
        return f"its process {how}{f': {why}' if why else ''}"


def join(store: str, rank: int, ranks: int) -> None:
    """Make this process a rank of the group that meets in a file."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=PATIENCE
    )


def _send(connection: Connection[Any, Any], what: Any) -> None:
    with suppress(OSError):  # that it is gone is heard
        connection.send(what)


def _plain(x: Any) -> Any:
    """Give arrays in place of tensors, which torch would hand over as shared memory."""
    if isinstance(x, dict):
        return {name: _plain(each) for name, each in x.items()}
    return x.cpu().numpy() if isinstance(x, torch.Tensor) else x


def _said(rank: int, why: str) -> str:
    return f"Rank {rank} of the model in shards failed: {why}"
