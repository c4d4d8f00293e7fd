"""The teacher's server as workers find it: each connects by itself, and holds what it finds against what is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace

from opd_diag.errors import InputError, OpdDiagError, ServerError
from opd_diag.records.settings import Settings
from opd_diag.replay.served import Served, served_teacher
from opd_diag.runs.digests import Digests
from opd_diag.servers import About
from opd_diag.servers.addresses import KEY_VARIABLE, is_loopback


@dataclass(frozen=True)
class KnownServer:
    """What the replay knows of the teacher's server: plain data, from which a worker makes a connection of its own.

    It crosses as an argument of a call, small enough to lie in no memory but the two processes'. What a worker is
    created with is kept by Ray, and what environment it is to have is shown; the key must not be.
    """

    address: str
    about: About
    """What it said of itself."""
    at_once: int
    """Requests that one worker has in flight."""
    key: str | None = field(repr=False)
    """Of the environment variable ``OPD_DIAG_SERVER_KEY``."""

    @classmethod
    def of(cls, served: Served, workers: int) -> KnownServer:
        """Give a worker its share of the requests, at least one."""
        key = os.environ.get(KEY_VARIABLE)
        return cls(served.address, served.server.about, max(1, served.at_once // workers), key)


def connected(known: KnownServer, settings: Settings, node: str, home: str) -> Served:
    """Connect a worker to the server.

    Parameters
    ----------
    known
        What the replay knows of it.
    settings
        Of the replay.
    node, home
        Names of the machines of the worker and of the replay.

    Raises
    ------
    InputError
        The address is each machine's own, and the worker is on another one.
    ServerError
        It cannot be asked from there, or another one answers.
    """
    if is_loopback(known.about.url) and node != home:
        raise InputError(
            f"{known.address} is every machine's own address: on node {node} it is not the server of {home}. Name the "
            "server with --teacher by an address that all nodes reach, and let it listen there (--host 0.0.0.0)."
        )
    os.environ.pop(KEY_VARIABLE, None)  # one of the node's own is meant for others
    if known.key is not None:
        os.environ[KEY_VARIABLE] = known.key
    try:
        served = served_teacher(settings, Digests())  # a server has no files here
    except OpdDiagError as error:
        if node == home:
            raise
        raise ServerError(f"Node {node} cannot use the teacher's server as {home} does. {error}") from error
    assert served is not None
    about = served.server.about
    if about != known.about:
        apart = next(f.name for f in fields(About) if getattr(about, f.name) != getattr(known.about, f.name))
        raise ServerError(
            f"Node {node} finds another server behind {known.address} than {home} did: its {apart} is "
            f"{getattr(about, apart)!r}, expected {getattr(known.about, apart)!r}. Name the server with --teacher by "
            "an address that is the same server's on all nodes."
        )
    return replace(served, at_once=known.at_once)
