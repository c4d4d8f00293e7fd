"""A server that one process connected to, connected to by another one; over HTTP."""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import replace
from importlib import metadata

import pytest
from servers.stand_in import TinyModel, stand_in

from opd_diag.diagnosis import plan_report
from opd_diag.errors import InputError, ServerError
from opd_diag.records.settings import Settings
from opd_diag.replay.served import served_teacher
from opd_diag.replay.spread.calls import Call
from opd_diag.replay.spread.node import Folder, for_workers
from opd_diag.replay.spread.server import KnownServer, connected
from opd_diag.replay.spread.worker import Needs, Worker
from opd_diag.runs.digests import Digests

KEY, VARIABLE = "a key", "OPD_DIAG_SERVER_KEY"


@pytest.fixture
def known(monkeypatch):
    """(settings, what the replay knows of a server that asks for a key), in an environment without it, as a worker's.

    Five requests in flight, of two workers.
    """
    with stand_in("vllm", TinyModel(), key=KEY) as url:
        monkeypatch.setenv(VARIABLE, KEY)
        settings = Settings(teacher=f"vllm={url}", teacher_top=8, k=8, requests=5)
        found = KnownServer.of(served_teacher(settings, Digests()), 2)
        monkeypatch.setenv(VARIABLE, "")
        yield settings, found


def test_a_worker_connects_with_the_key_and_has_its_share_of_requests(known):
    settings, found = known
    with pytest.raises(ServerError, match="asks for a key"):
        served_teacher(settings, Digests())
    here = connected(found, settings, "a", "a")
    assert (here.at_once, here.top, here.address) == (2, 8, settings.teacher)
    assert here.server.about == found.about
    assert here.server.text([3, 4]) == "3 4"
    assert os.environ[VARIABLE] == KEY


def test_a_key_of_the_nodes_own_is_not_sent(known, monkeypatch):
    settings, found = known
    monkeypatch.setenv(VARIABLE, KEY)
    with pytest.raises(ServerError, match="asks for a key"):
        connected(replace(found, key=None), settings, "a", "a")
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(("workers", "share"), [(1, 5), (3, 1), (5, 1), (64, 1)])
def test_requests_are_shared_and_nobody_has_none(known, workers, share):
    settings, found = known
    served = connected(found, settings, "a", "a")
    assert KnownServer.of(replace(served, at_once=5), workers).at_once == share


def test_what_crosses_is_plain_data_and_shows_no_key(known):
    _, found = known
    assert pickle.loads(pickle.dumps(found)) == found
    assert len(pickle.dumps(found)) < 2000  # Ray puts large ones into files
    assert KEY not in repr(found)


def test_an_address_of_each_machine_is_refused_on_another_one(known):
    settings, found = known
    with pytest.raises(InputError) as raised:
        connected(found, settings, "b", "a")
    assert str(raised.value) == (
        f"{settings.teacher} is every machine's own address: on node b it is not the server of a. Name the server with "
        "--teacher by an address that all nodes reach, and let it listen there (--host 0.0.0.0)."
    )


def elsewhere(found):
    """The same at an address that is no machine's own."""
    return replace(found, about=replace(found.about, url="http://10.0.0.1:8000"))


def test_a_server_that_a_node_does_not_reach(known):
    settings, found = known
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerError) as raised:
            connected(elsewhere(found), replace(settings, teacher=f"vllm={url}"), "b", "a")
    assert str(raised.value) == (
        f"Node b cannot use the teacher's server as a does. {url}/v1/models was asked 3 times without success; what "
        "came last: Connection refused. Look into the server's log, and see that it runs, that the address is right "
        "and that it has less to do."
    )


def test_another_server_behind_the_same_address(known):
    settings, found = known
    other = elsewhere(found)
    with stand_in("vllm", TinyModel(), key=KEY, context=64) as url:
        other = replace(other, about=replace(found.about, url=url))
        with pytest.raises(ServerError) as raised:
            connected(other, replace(settings, teacher=f"vllm={url}"), "a", "a")
    assert str(raised.value) == (
        f"Node a finds another server behind {found.address} than a did: its context is 64, expected 512. Name the "
        "server with --teacher by an address that is the same server's on all nodes."
    )


class TestAWorker:
    @pytest.fixture
    def worker(self, tiny_run, tmp_path, one_thread):
        plan = plan_report(tiny_run.run_dir, out=tmp_path / "out", checkpoints="10")
        return Worker(pickle.dumps(for_workers(plan)), tmp_path / "out", 1)

    @pytest.mark.parametrize(("home", "begins"), [(socket.gethostname(), ""), ("b", f"Node {socket.gethostname()}: ")])
    def test_names_its_node_where_the_replay_runs_on_another(self, worker, monkeypatch, home, begins):
        def refused(call):
            raise ServerError("It says no.")

        assert worker.hello(Needs([], metadata.version("opd-diag"), home), None).problem is None
        monkeypatch.setattr(worker, "_ready", refused)
        answer = worker.do(Call("answers", "step 10", (), {}))
        with pytest.raises(ServerError) as raised:
            answer.given()
        assert str(raised.value) == f"{begins}It says no."

    def test_says_why_it_cannot_work_as_the_error_that_it_is(self, worker, known):
        node, version = socket.gethostname(), metadata.version("opd-diag")
        said = worker.hello(Needs([], "0.0.1", node), None).problem.error()
        assert str(said) == (
            f"Node {node} has opd-diag {version}, this machine has 0.0.1. Install the same version on every node."
        )
        gone = Folder("/gone", "step 10")
        assert type(worker.hello(Needs([gone], version, node), None).problem.error()) is InputError
        settings, found = known
        worker.plan = replace(worker.plan, settings=settings)
        said = worker.hello(Needs([], version, node), replace(found, about=replace(found.about, context=7)))
        assert type(said.problem.error()) is ServerError
        assert worker.hello(Needs([], version, node), found).problem is None
        assert worker.plan.served.at_once == 2
