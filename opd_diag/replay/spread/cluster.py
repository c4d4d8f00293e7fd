"""Ray: joined or started, its room for workers, and a worker as the pool knows it."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError, OpdDiagError, WorkerError
from opd_diag.records.settings import Settings
from opd_diag.replay.parts import Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.spread.calls import Answer, Call, Told
from opd_diag.replay.spread.node import folders_of, for_workers
from opd_diag.replay.spread.pool import Lost, Pool
from opd_diag.replay.spread.server import KnownServer
from opd_diag.replay.spread.worker import Hello, Needs, Worker
from opd_diag.servers.addresses import KEY_VARIABLE

EVERY = 1.0
"""Seconds between two looks at the progress of a worker."""

PATIENCE = 600.0
"""Seconds until a worker must be there; once one is, the others are waited for no longer than `GRACE`."""
GRACE = 120.0

OBJECT_STORE = 256 * 2**20
"""Bytes of Ray's memory for what crosses between processes, on a machine of our own: shards have some ten megabytes."""

LISTENING = 20.0
"""Seconds in which a cluster must answer."""

LEAVING = 5.0
"""Seconds that a worker has to take away what it kept."""


@dataclass(frozen=True)
class Room:
    """What a cluster has."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Asked:
    """How many workers there shall be, and what each has."""

    workers: int
    cpus: int
    gpus: float
    device: str
    """``cpu`` or ``cuda``."""

    @classmethod
    def of(cls, settings: Settings, room: Room) -> Asked:
        """Settle what the settings leave open.

        Raises
        ------
        InputError
            The cluster has no room for it.
        """
        cpus, wanted = settings.cpus_per_worker, settings.gpus_per_worker
        gpus = wanted if wanted is not None else float(room.gpus >= 1 and settings.device != "cpu")
        if settings.device == "cuda" and gpus == 0:
            raise InputError(
                "Device 'cuda' needs workers with GPUs. The cluster has "
                f"{room.gpus:g}; give each worker some with --gpus-per-worker, or use --device cpu."
            )
        fits = int(room.cpus // cpus)
        if gpus:
            fits = min(fits, int(room.gpus // gpus if gpus >= 1 else room.gpus * int(1 / gpus)))
        workers = settings.workers or fits
        if workers > fits or not workers:
            each = f"{cpus} CPU{'s' * (cpus > 1)}" + (f" and {gpus:g} GPU{'s' * (gpus > 1)}" if gpus else "")
            raise InputError(
                f"The cluster has {room.cpus:g} CPUs and {room.gpus:g} GPUs, room for {fits} workers of {each} each, "
                f"and {workers or 'at least 1'} must fit. Ask for fewer with --workers, or less for each with "
                "--cpus-per-worker and --gpus-per-worker; nodes that are still to come must be up first."
            )
        return cls(workers, cpus, gpus, "cuda" if gpus and settings.device != "cpu" else "cpu")


@contextmanager
def joined() -> Iterator[Any]:
    """Give Ray, connected: to the cluster that is connected to already, that of RAY_ADDRESS, or one of this machine.

    Raises
    ------
    InputError
        There is no cluster at RAY_ADDRESS, or Ray cannot be started here.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and what it imports: of its own future, and of the user's environment
        import ray

        if ray.is_initialized():
            yield ray
            return
        address = os.environ.get("RAY_ADDRESS")
        _refuse_silent(address)
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address:
            how |= {"address": "auto"}
        else:
            how |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            _quiet_about_the_lost(ray)
            with _without_key():
                ray.init(**how)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            if address:
                raise _no_cluster(address, reason) from error
            raise InputError(
                f"Ray cannot be started on this machine: {reason} Leave --engine out to run in one process."
            ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _without_key() -> Iterator[None]:
    """Take the key of a server out of the environment, which all processes that Ray starts here have for good."""
    key = os.environ.pop(KEY_VARIABLE, None)
    try:
        yield
    finally:
        if key is not None:
            os.environ[KEY_VARIABLE] = key


def _refuse_silent(address: str | None) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():  # auto, or another kind of address
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENING).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(f"{address}", f"{error}.") from error


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        f"No Ray cluster answers at RAY_ADDRESS={address}: {reason.rstrip('. ')}. Start one with ray start --head, set "
        "RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to use this machine alone."
    )


def _quiet_about_the_lost(ray: Any) -> None:
    """Keep what Ray says of lost workers off standard output, where it has no setting for that: we say it ourselves."""
    internals: Any = getattr(ray._private, "worker", None)
    if hasattr(internals, "print_to_stdstream"):
        internals.print_to_stdstream = lambda *words, **how: None


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What the user has set stands."""


@contextmanager
def workers_of(plan: ReplayPlan, out_dir: Path, progress: Progress) -> Iterator[tuple[Pool, str]]:
    """Give workers for a plan, and the kind of device that they compute on; who gets them closes the pool.

    Raises
    ------
    InputError
        The cluster has no room, or one of its machines does not see a folder of the plan.
    ServerError
        One of its machines does not reach the teacher's server.
    WorkerError
        No worker comes.
    """
    with joined() as ray:
        has = ray.cluster_resources()
        asked = Asked.of(plan.settings, Room(has.get("CPU", 0.0), has.get("GPU", 0.0)))
        shipped = replace(plan, settings=replace(plan.settings, device=asked.device))
        sent = ray.put(pickle.dumps(for_workers(shipped)))
        kind = ray.remote(max_restarts=0, max_concurrency=2)(Worker)  # a second call tells how far the first one is
        new = kind.options(num_cpus=asked.cpus, num_gpus=asked.gpus)
        needs = Needs(folders_of(for_workers(plan)), metadata.version("opd-diag"), socket.gethostname())
        server = None if plan.served is None else KnownServer.of(plan.served, asked.workers)

        def hired() -> _RayWorker:
            return _RayWorker(ray, new.remote(sent, out_dir.resolve(), asked.cpus), needs, server)

        def begun() -> list[_RayWorker]:
            return _those_that_come(ray, [hired() for _ in range(asked.workers)], progress)

        pool = Pool(asked.workers, begun, lambda: hired().there())
        yield pool, asked.device


def _those_that_come(ray: Any, coming: Sequence[_RayWorker], progress: Progress) -> list[_RayWorker]:
    """Wait for workers; once one is there, not much longer for the others, whose room others may have taken."""
    what, here, reason = "ray: workers", 0, ""
    pending = {worker.hello: worker for worker in coming}
    there: list[_RayWorker] = []
    progress(what, 0, len(coming))
    while pending:
        ready, _ = ray.wait(list(pending), timeout=GRACE if there else PATIENCE)
        if not ready:
            break
        for reference in ready:
            worker = pending.pop(reference)
            try:
                there.append(worker.there())
            except Lost as lost:  # another one takes its place when it is needed
                reason = f" The last one: {lost}"
            except OpdDiagError:  # none can work: they give back the room they hold
                for one in coming:
                    one.let_go()
                raise
        here += len(ready)
        progress(what, here, len(coming))
    for worker in pending.values():
        worker.let_go()
    if not there:
        raise WorkerError(
            f"None of {len(coming)} workers came within {PATIENCE / 60:.0f} minutes, or each was lost at once: the "
            f"cluster may be busy, or its nodes may lack opd-diag. See what ray status says there.{reason}"
        )
    return there


class _RayWorker:
    """A worker of a Ray cluster."""

    def __init__(self, ray: Any, actor: Any, needs: Needs, server: KnownServer | None) -> None:
        self._ray, self._actor = ray, actor
        self.hello = actor.hello.remote(needs, server)
        self._said: Hello | None = None

    @property
    def node(self) -> str:
        """Name of its machine."""
        return "a node" if self._said is None else f"node {self._said.node}"

    @property
    def pid(self) -> int | None:
        """Its process."""
        return None if self._said is None else self._said.pid

    def there(self) -> _RayWorker:
        """Wait until it is there.

        Raises
        ------
        Lost
            It is gone.
        InputError, ServerError
            It cannot work where it is.
        """
        said: Hello = self._got(self.hello, timeout=PATIENCE)
        self._said = said
        if said.problem is not None:
            raise said.problem.error()
        return self

    def do(self, call: Call, tell: Callable[[Told], None]) -> Answer:
        """Have it make something."""
        answer = self._actor.do.remote(call)
        while not self._ray.wait([answer], timeout=EVERY)[0]:
            tell(self._got(self._actor.told.remote()))
        given: Answer = self._got(answer)
        return given

    def let_go(self) -> None:
        """End it, and what it kept on its machine, if it is there."""
        with suppress(self._ray.exceptions.RayError):  # it is gone
            if self._said is not None:
                self._ray.get(self._actor.leave.remote(), timeout=LEAVING)
        self._ray.kill(self._actor)

    def _got(self, reference: Any, timeout: float | None = None) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout)
        except errors.RayTaskError:  # a bug, with all that led to it
            raise
        except errors.RayError as error:
            self._ray.kill(self._actor)  # one that cannot be reached may still hold what the next one needs
            raise Lost(f"{self.node}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say in one line why a worker was lost."""
    text = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError" or "running low on memory" in text:
        return "its machine ran out of memory, and Ray ended it."
    if type(error).__name__ == "GetTimeoutError":
        return "it did not come in time; the cluster may be busy."
    last = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()][-1:]
    detail = text.partition("Worker exit detail: ")[2].partition(" Some common causes")[0] or "".join(last)
    return f"it was killed or crashed ({detail[:300].rstrip('. ')})."
