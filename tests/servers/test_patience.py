"""How long is waited between tries."""

import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import Patience
from opd_diag.servers import transport as transport_module
from opd_diag.servers.transport import Line

from .stand_in import TinyModel, stand_in


@pytest.fixture
def pauses(monkeypatch):
    taken = []
    monkeypatch.setattr(transport_module.time, "sleep", taken.append)
    return taken


def asked(fault, patience):
    with stand_in("vllm", TinyModel(8), misbehave=fault, from_start=True) as url, pytest.raises(ServerError):
        Line(url, patience, None).asked("/v1/completions", {"model": "teacher"}, most=10**6)
    return url


def test_pauses_double_up_to_the_longest(pauses):
    url = asked("unavailable", Patience(tries=6, pause_s=0.5, longest_pause_s=3))
    assert pauses == [0, 1, 2, 3, 3]
    assert len(url.asked) == 6


def test_the_server_may_ask_for_a_pause_but_not_for_a_day(pauses):
    asked("busy_for_long", Patience(tries=3, pause_s=0.5, longest_pause_s=7))
    assert pauses == [7, 7]


def test_the_first_request_is_given_up_soon():
    assert Patience().at_first().tries == 3
    assert Patience(tries=2).at_first().tries == 2
