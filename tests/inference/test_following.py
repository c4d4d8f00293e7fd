"""What a rank does of what it is told, over a pipe, alone; with others it is in test_leading.py."""

from __future__ import annotations

import threading
from multiprocessing import Pipe

import pytest
import torch
from models import V, wrapped

from opd_diag.inference.attention import Span
from opd_diag.inference.following import Follower, follow
from opd_diag.inference.packing import Pack, states_before

IDS = torch.arange(5).unsqueeze(0)


@pytest.fixture
def told():
    """Say something to a rank in a thread, and hear what it says."""
    ours, theirs = Pipe()
    thread = threading.Thread(target=follow, args=(theirs, 1))
    thread.start()
    assert ours.recv() == (True, "")

    def say(what, *args):
        ours.send((what, args))
        return ours.recv()

    yield say
    ours.send(("end", ()))
    thread.join(10)
    assert not thread.is_alive()


def test_a_rank_goes_on_after_what_it_cannot(told):
    done, why = told("nothing")
    assert (done, why) == (False, "'Follower' object has no attribute 'nothing'")
    assert told("hidden", IDS.numpy(), {}, None, None) == (False, "AssertionError"), "it has no model"


def test_a_rank_runs_what_it_is_told():
    model = wrapped("llama")
    follower = Follower(1, model=model)
    seen = []
    model.hf.base_model.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((kwargs, output.last_hidden_state)), with_kwargs=True
    )
    with torch.inference_mode():
        follower.hidden(IDS.numpy(), {"use_cache": False}, None, None)
        follower.hidden(IDS.numpy(), {}, torch.float64, None)
        follower.hidden(IDS.numpy(), {"position_ids": torch.tensor([[0, 1, 1, 2, 3]]).numpy()}, None, SPANS)
        own, precise, packed = (states for _, states in seen)
        assert (own.dtype, precise.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(own, precise.float(), atol=1e-4, rtol=0)
        pack = Pack.of([([0], [1]), ([0], [2, 3, 4])])
        assert (pack.ids, pack.positions, pack.spans) == ((0, 1, 2, 3, 4), (0, 1, 1, 2, 3), SPANS)
        assert torch.equal(packed[0, [1, 4]], states_before(model, pack, [(0, 1), (1, 3)]))


SPANS = (Span((0, 1), (1, 2)), Span((0, 1), (2, 5)))


def test_a_rank_keeps_the_places_of_a_cache():
    follower = Follower(1, model=wrapped("llama"))
    with torch.inference_mode():
        follower.open(3, 10, None)
        follower.places("join", [(1, 2, 3), (4,)], [1, 2])
        follower.places("advance", [5, 6, 7])
        assert follower.opened.lengths == [4, 2, 2]
        follower.places("keep", [2])
        assert follower.opened.lengths == [2]


def test_a_rank_keeps_no_head():
    model = wrapped("llama")
    follower = Follower(1, hf=model.hf)
    follower.wrap()
    head = follower.model.head
    assert (head.vocabulary, head.device) == (V, torch.device("cpu"))
    assert head.weight.untyped_storage().nbytes() == 4
    assert head.logits(torch.ones(1, 32)).isnan().all(), "whoever asked it would notice"
