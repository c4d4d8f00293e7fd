"""One server that is away, busy, slow, broken or no server at all: bounded tries, one sentence, no key in it."""

import contextlib
import socket

import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import Patience, Question, connect
from opd_diag.servers.transport import Line

from .stand_in import TinyModel, stand_in

QUICK = Patience(tries=3, pause_s=0.001, longest_pause_s=0.01, connect_s=1, answer_s=0.2)
LOOK = "Look into the server's log, and see that it runs, that the address is right and that it has less to do."
OTHER_SERVER = "Ask a server of the engine that is named before the address."
MODEL = TinyModel(16)
QUESTION = Question((1, 2, 3, 4, 5), 2, 4)


def message(url, patience=QUICK):
    server = connect(f"vllm={url}", top=4, patience=patience)
    url.asked.clear()
    with pytest.raises(ServerError) as caught:
        server.answer(QUESTION)
    return str(caught.value)


LASTING = {
    "busy": "HTTP 429, it is busy\\x1b[31m",
    "unavailable": "HTTP 503, it is unavailable\\x1b[31m",
    "broken": "HTTP 500, it is broken\\x1b[31m",
    "reset": "Connection reset by peer",
    "cut": "the connection broke off",
    "slow": "no whole answer within 0.2 s",
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_tried_so_often_and_told(fault):
    with stand_in("vllm", MODEL, misbehave=fault) as url:
        told = message(url)
        assert (
            told == f"{url}/v1/completions was asked 3 times without success; what came last: {LASTING[fault]}. {LOOK}"
        )
        assert len(url.asked) == 3


@pytest.mark.parametrize("fault", ["busy", "unavailable", "broken", "reset", "cut", "slow"])
def test_what_passes_is_ridden_out(fault):
    with stand_in("vllm", MODEL) as url:
        wanted = connect(f"vllm={url}", top=4).answer(QUESTION)
    with stand_in("vllm", MODEL, misbehave={fault: 2}) as url:
        answer = connect(f"vllm={url}", top=4, patience=QUICK).answer(QUESTION)
    assert answer.topk_ids.tolist() == wanted.topk_ids.tolist()
    assert answer.sampled_logprobs.tolist() == wanted.sampled_logprobs.tolist()


def test_once_is_once():
    with stand_in("vllm", MODEL, misbehave="broken") as url:
        told = message(url, Patience(tries=1))
    assert told == (
        f"{url}/v1/completions was asked once without success; what came last: HTTP 500, it is broken\\x1b[31m. {LOOK}"
    )


def test_a_server_that_went_away_meanwhile():
    with stand_in("vllm", MODEL) as url:
        server = connect(f"vllm={url}", top=4, patience=QUICK)
    with pytest.raises(ServerError) as caught:
        server.answer(QUESTION)
    assert str(caught.value) in {
        f"{url}/v1/completions was asked 3 times without success; what came last: {why}. {LOOK}"
        for why in ("Connection refused", "Connection reset by peer")
    }


def test_no_server():
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ServerError) as caught:
            connect(f"vllm={url}", top=4, patience=QUICK)
    assert str(caught.value) == (
        f"{url}/v1/models was asked 3 times without success; what came last: Connection refused. {LOOK}"
    )


def test_no_such_host():
    with pytest.raises(ServerError) as caught:
        connect("vllm=http://nowhere.invalid:1", top=4, patience=Patience(tries=1, connect_s=1))
    assert str(caught.value).startswith(
        "http://nowhere.invalid:1/v1/models was asked once without success; what came last: "
    )


REFUSALS = {
    "refuses": "{url}/v1/completions refuses what it was asked: HTTP 422, it is refuses\\x1b[31m",
    "redirect": (
        "{url}/v1/completions sends on to http://elsewhere.example/generate, which is not followed. Give the address "
        "that answers."
    ),
    "no_json": (
        f"{{url}}/v1/completions answers no JSON but '<html>Welcome to a router\\\\x1b[31m</html>'. {OTHER_SERVER}"
    ),
    "huge": (
        f"{{url}}/v1/completions answers more than the 1,056,256 bytes that such an answer can have. {OTHER_SERVER}"
    ),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_would_come_again_is_asked_once(fault):
    with stand_in("vllm", MODEL, misbehave=fault) as url:
        assert message(url, Patience(tries=3, pause_s=0.001)) == REFUSALS[fault].format(url=url)
        assert len(url.asked) == 1


def test_a_number_that_json_does_not_have():
    with stand_in("vllm", MODEL, misbehave="bare_nan") as url:
        told = message(url)
        assert told.startswith(f"{url}/v1/completions answers no JSON but '{{")
        assert len(url.asked) == 1


def test_a_key(monkeypatch):
    monkeypatch.setenv("OPD_DIAG_SERVER_KEY", " s3cret\n")
    with stand_in("vllm", MODEL, key="s3cret") as url:
        server = connect(f"vllm={url}", top=4, patience=QUICK)
        server.answer(QUESTION)
    assert {headers["Authorization"] for headers in url.headers} == {"Bearer s3cret"}
    assert "s3cret" not in repr(server.about) + repr(vars(server)) + repr(vars(server._line))


def test_a_key_is_asked_for():
    with stand_in("vllm", MODEL, key="s3cret") as url, pytest.raises(ServerError) as caught:
        connect(f"vllm={url}", top=4, patience=QUICK)
    assert str(caught.value) == (
        f"{url} asks for a key (HTTP 401): put it into the environment variable OPD_DIAG_SERVER_KEY."
    )
    assert len(url.asked) == 1


def test_a_wrong_key_is_not_repeated(monkeypatch):
    monkeypatch.setenv("OPD_DIAG_SERVER_KEY", "wr0ng")
    with stand_in("vllm", MODEL, key="s3cret") as url:
        with pytest.raises(ServerError) as caught:
            connect(f"vllm={url}", top=4, patience=QUICK)
        reply = Line(url, QUICK, "wr0ng").asked("/v1/models", most=1000)
    assert str(caught.value) == (
        f"{url} does not take the key in the environment variable OPD_DIAG_SERVER_KEY (HTTP 401): correct it."
    )
    assert reply.words == "Unauthorized: Bearer …"
