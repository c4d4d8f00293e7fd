"""What SGLang is asked: the prompt from its cache, given ids in pieces."""

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import ALL, Question, connect
from opd_diag.servers import sglang as sglang_module

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(48)
IDS = (1, 2, 3, 4, 5, 6, 7)


def test_what_is_sent():
    with stand_in("sglang", MODEL) as url:
        connect(f"sglang={url}", top=8).answer(Question(IDS, 4, 8))
    assert url.asked[-1] == (
        "/generate",
        {
            "input_ids": list(IDS),
            "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": 3,
            "top_logprobs_num": 8,
            "return_text_in_logprobs": False,
            "return_flat_raw_top_logprobs": True,
            "return_flat_raw_top_logprobs_b64": True,
        },
    )


def test_rows_with_many_different_ids_are_asked_in_pieces(monkeypatch):
    monkeypatch.setattr(sglang_module, "MOST_IDS", 5)
    at = np.array([[1, 2, 3], [3, 4, 5], [5, 6, -1], [7, 8, 9], [9, 8, 10]])
    with stand_in("sglang", MODEL) as url:
        server = connect(f"sglang={url}", top=4)
        url.asked.clear()
        answer = server.answer(Question(IDS, 2, 4, at=at))
    asked = [(body["input_ids"], body["logprob_start_len"], body["token_ids_logprob"]) for _, body in url.asked]
    assert asked == [
        ([1, 2, 3, 4], 1, [1, 2, 3, 4, 5]),
        ([1, 2, 3, 4, 5, 6], 3, [5, 6, 7, 8, 9]),
        ([1, 2, 3, 4, 5, 6, 7], 5, [8, 9, 10]),
    ]
    rows = MODEL(IDS)[1:-1]
    wanted = np.where(at < 0, np.nan, np.take_along_axis(rows, np.maximum(at, 0), axis=1))
    np.testing.assert_allclose(answer.at_logprobs, wanted, rtol=1e-9)
    assert answer.topk_ids.shape == (5, 4)


def test_a_seed_each():
    with stand_in("sglang", MODEL) as url:
        connect(f"sglang={url}", top=4).sampled(IDS, n=3, max_new_tokens=2, temperature=1.0, top_p=1.0, seed=40)
    assert [one["sampling_seed"] for one in url.asked[-1][1]["sampling_params"]] == [40, 41, 42]


def test_scaled_values_of_sampled_tokens_are_left_out():
    with stand_in("sglang", MODEL) as url:
        server = connect(f"sglang={url}", top=4)
        sampled = server.sampled(IDS, n=1, max_new_tokens=2, temperature=0.5, top_p=1.0, seed=0)
    assert sampled[0].logprobs is None


def test_no_whole_vocabulary():
    with stand_in("sglang", MODEL) as url, pytest.raises(ServerError) as caught:
        connect(f"sglang={url}", top=ALL)
    assert str(caught.value) == (
        f"SGLang at {url} does not give the whole vocabulary, which is wanted. Ask for a number of ids a row."
    )


def test_a_model_that_writes_nothing():
    with stand_in("sglang", MODEL, generates=False) as url, pytest.raises(ServerError) as caught:
        connect(f"sglang={url}", top=4)
    assert str(caught.value) == f"SGLang at {url} holds a model that gives no next tokens. Serve a language model."


def test_an_id_that_the_model_does_not_have():
    with stand_in("sglang", MODEL) as url:
        server = connect(f"sglang={url}", top=4)
        with pytest.raises(ServerError) as caught:
            server.answer(Question(IDS, 6, 4, at=np.array([[500]])))
    assert str(caught.value) == (
        f"{url}/generate refuses what it was asked: HTTP 400, token_ids_logprob contains out-of-vocabulary ids."
    )
