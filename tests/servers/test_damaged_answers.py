"""Any value of an answer replaced by anything: it is believed, or refused in one sentence; nothing else happens."""

import copy
import random

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import Patience, Question, connect
from opd_diag.servers.transport import Reply

from .stand_in import TinyModel, stand_in

WEIRD = [None, True, -1, 7, 10**30, 0.5, -9999.0, "", "x", "7", "AAAA", [], {}, [[]], [None, [1]], {"7": {}}, {"x": 1}]


def places(data, path=()):
    """Every path into JSON."""
    yield path
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in inner:
        yield from places(value, (*path, step))


def damaged(data, path, value):
    data = copy.deepcopy(data)
    if not path:
        return value
    inner = data
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return data


def replayed(server, ask, changed):
    """Ask, with one reply changed on the way."""
    plain = server._line._once

    def once(*args):
        reply, wanted = plain(*args)
        return Reply(reply.status, changed(reply.data), reply.size, reply.words), wanted

    server._line._once = once
    try:
        return ask()
    finally:
        del server._line._once


def outcome(server, ask, spoilt):
    """What is said of a damaged answer; nothing where it is believed."""
    try:
        replayed(server, ask, lambda _: spoilt)
    except ServerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("engine", "flat"), [("vllm", True), ("sglang", True), ("sglang", False)])
@pytest.mark.parametrize("what", ["rows", "given", "sampled"])
def test_one_value_is_another(engine, flat, what):
    numbers, good = random.Random(0), []
    with stand_in(engine, TinyModel(12), flat=flat) as url:
        server = connect(f"{engine}={url}", top=3, patience=Patience(tries=1))
        ask = {
            "rows": lambda: server.answer(Question((1, 2, 3), 1, 3)),
            "given": lambda: server.answer(Question((1, 2, 3), 1, 3, at=np.array([[1, 2], [3, -1]]))),
            "sampled": lambda: server.sampled((1, 2), n=2, max_new_tokens=2, temperature=1.0, top_p=1.0, seed=0),
        }[what]
        replayed(server, ask, lambda data: good.append(data) or data)
        paths = list(places(good[0]))
        spoilt = [damaged(good[0], numbers.choice(paths), numbers.choice(WEIRD)) for _ in range(100)]
        told = {outcome(server, ask, one) for one in spoilt}
    name = {"vllm": "vLLM", "sglang": "SGLang"}[engine]
    assert "" in told
    assert len(told) > 5
    assert all(one.startswith(f"{name} at {url}") for one in told if one)
