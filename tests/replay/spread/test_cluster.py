"""The room of a cluster, and what is said where there is none; workers of a real one are in test_parts.py."""

from __future__ import annotations

import errno
import os
import socket
import sys
import types
from contextlib import nullcontext

import pytest

from opd_diag.errors import InputError, WorkerError
from opd_diag.records.settings import Settings
from opd_diag.replay.spread import cluster
from opd_diag.replay.spread.cluster import Asked, Room, joined

LAPTOP = Room(cpus=8, gpus=0)
NODES = Room(cpus=64, gpus=8)


@pytest.mark.parametrize(
    ("room", "options", "expected"),
    [
        (LAPTOP, {}, Asked(8, 1, 0, "cpu")),
        (LAPTOP, {"workers": 2}, Asked(2, 1, 0, "cpu")),
        (LAPTOP, {"cpus_per_worker": 3}, Asked(2, 3, 0, "cpu")),
        (NODES, {}, Asked(8, 1, 1, "cuda")),
        (NODES, {"device": "cpu"}, Asked(64, 1, 0, "cpu")),
        (NODES, {"gpus_per_worker": 0}, Asked(64, 1, 0, "cpu")),
        (NODES, {"gpus_per_worker": 0.3}, Asked(24, 1, 0.3, "cuda")),  # three on each: a part lies on one GPU
        (NODES, {"gpus_per_worker": 2, "cpus_per_worker": 32}, Asked(2, 32, 2, "cuda")),
        (NODES, {"device": "cuda", "workers": 1}, Asked(1, 1, 1, "cuda")),
    ],
)
def test_what_settings_leave_open(room, options, expected):
    assert Asked.of(Settings(engine="ray", **options), room) == expected


@pytest.mark.parametrize(
    ("room", "options", "message"),
    [
        (
            LAPTOP,
            {"workers": 9},
            "The cluster has 8 CPUs and 0 GPUs, room for 8 workers of 1 CPU each, and 9 must fit. Ask for fewer with "
            "--workers, or less for each with --cpus-per-worker and --gpus-per-worker; nodes that are still to come "
            "must be up first.",
        ),
        (
            NODES,
            {"gpus_per_worker": 16, "cpus_per_worker": 2},
            "The cluster has 64 CPUs and 8 GPUs, room for 0 workers of 2 CPUs and 16 GPUs each, and at least 1 must "
            "fit. Ask for fewer with --workers, or less for each with --cpus-per-worker and --gpus-per-worker; nodes "
            "that are still to come must be up first.",
        ),
        (
            LAPTOP,
            {"device": "cuda"},
            "Device 'cuda' needs workers with GPUs. The cluster has 0; give each worker some with --gpus-per-worker, "
            "or use --device cpu.",
        ),
    ],
)
def test_what_does_not_fit(room, options, message):
    with pytest.raises(InputError) as raised:
        Asked.of(Settings(engine="ray", **options), room)
    assert str(raised.value) == message


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


def fake_ray(**functions):
    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))
    return types.SimpleNamespace(exceptions=exceptions, _private=types.SimpleNamespace(), **functions)


def refusing(monkeypatch, error):
    def init(**how):
        raise error

    monkeypatch.setitem(sys.modules, "ray", fake_ray(is_initialized=lambda: False, init=init))


def test_no_cluster_at_the_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    refusing(monkeypatch, ConnectionError("Could not find\n any running Ray instance."))
    with pytest.raises(InputError) as raised, joined():
        pass
    assert str(raised.value) == (
        "No Ray cluster answers at RAY_ADDRESS=auto: Could not find any running Ray instance. Start one with ray start "
        "--head, set RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to use this machine alone."
    )


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        refusing(monkeypatch, AssertionError("Ray would try for minutes"))
        with pytest.raises(InputError) as raised, joined():
            pass
    assert str(raised.value) == (
        f"No Ray cluster answers at RAY_ADDRESS={address}: [Errno {errno.ECONNREFUSED}] Connection refused. Start one "
        "with ray start --head, set RAY_AUTH_MODE=token if it asks for a token, or unset RAY_ADDRESS to use this "
        "machine alone."
    )


def test_a_machine_on_which_ray_does_not_start(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refusing(monkeypatch, RuntimeError("No room in /dev/shm."))
    with pytest.raises(InputError) as raised, joined():
        pass
    assert str(raised.value) == (
        "Ray cannot be started on this machine: No room in /dev/shm. Leave --engine out to run in one process."
    )


@pytest.mark.parametrize("starts", [True, False])
def test_processes_that_ray_starts_here_have_no_key_of_a_server(monkeypatch, starts):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("OPD_DIAG_SERVER_KEY", "secret")
    inherited = []

    def init(**how):
        inherited.append(os.environ.get("OPD_DIAG_SERVER_KEY"))
        if not starts:
            raise RuntimeError("No room in /dev/shm.")

    monkeypatch.setitem(sys.modules, "ray", fake_ray(is_initialized=lambda: False, init=init, shutdown=lambda: None))
    with nullcontext() if starts else pytest.raises(InputError), joined():
        assert os.environ["OPD_DIAG_SERVER_KEY"] == "secret"
    assert os.environ["OPD_DIAG_SERVER_KEY"] == "secret"
    assert inherited == [None]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("Task was killed."), "its machine ran out of memory, and Ray ended it."),
        (
            ActorDiedError("The actor died.\n\tpid: 3\nIt is dead. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker exits with a connection error code 2. End of file. Some common causes include: (1) much else."),
            "it was killed or crashed (Worker exits with a connection error code 2. End of file).",
        ),
        (ActorDiedError("The node is gone.\n"), "it was killed or crashed (The node is gone)."),
        (
            ActorDiedError("The actor died at its creation:\n  File x\nModuleNotFoundError: No module named 'x'\n"),
            "it was killed or crashed (ModuleNotFoundError: No module named 'x').",
        ),
    ],
)  # fmt: skip
def test_why_a_worker_was_lost(error, reason):
    assert cluster._reason(error) == reason


def test_where_no_worker_comes(monkeypatch):
    """One that is lost at once counts as none."""

    class Coming:
        hello = "reference"

        def there(self):
            raise cluster.Lost("Gone.")

        def let_go(self):
            raise AssertionError("it is gone")

    ray = fake_ray(wait=lambda references, timeout: (list(references), []))
    with pytest.raises(WorkerError) as raised:
        cluster._those_that_come(ray, [Coming()], lambda what, done, total: None)
    assert str(raised.value) == (
        "None of 1 workers came within 10 minutes, or each was lost at once: the cluster may be busy, or its nodes may "
        "lack opd-diag. See what ray status says there. The last one: Gone."
    )
