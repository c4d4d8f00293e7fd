"""What vLLM is asked, and what it cannot be asked."""

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import ALL, Question, connect

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(48)
IDS = (1, 2, 3, 4, 5)


def refused(url, **options):
    with pytest.raises(ServerError) as caught:
        connect(f"vllm={url}", **options)
    return str(caught.value)


def test_more_than_its_limit():
    with stand_in("vllm", MODEL, top_limit=20) as url:
        assert refused(url, top=21) == (
            f"vLLM at {url} gives at most 20 ids a row, 21 are wanted. Start it with --max-logprobs 21, or ask for at "
            "most 20."
        )
        assert refused(url, top=ALL) == (
            f"vLLM at {url} gives at most 20 ids a row; the whole vocabulary is wanted. Start it with --max-logprobs "
            "-1, or ask for fewer."
        )
        server = connect(f"vllm={url}", top=20)
        with pytest.raises(ServerError, match=" gives at most 20 ids a row, 32 are wanted"):
            server.answer(Question(IDS, 2, 32))


def test_more_than_the_vocabulary():
    with stand_in("vllm", MODEL, top_limit=None) as url:
        assert refused(url, top=49) == (
            f"The model of vLLM at {url} has 48 ids, 49 of a row are wanted. Ask for at most 48."
        )


def test_a_limit_that_it_does_not_tell():
    """Older releases refuse to be asked for all in other words: then what is needed is asked for."""
    with stand_in("vllm", MODEL, misbehave={"refuses": 1}) as url:
        url_of_all = connect(f"vllm={url}", top=8)
    assert url_of_all.about.top_limit == 20
    refuse = {"refuses": 3}
    with stand_in("vllm", MODEL, misbehave=refuse, from_start=True) as url:
        assert refused(url, top=8) == f"{url}/v1/models refuses what it was asked: HTTP 422, it is refuses\\x1b[31m"


WHY_NOT = {
    False: ("HTTP 400, prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)."),
    None: "HTTP 404, Not Found.",
}


@pytest.mark.parametrize("exact", WHY_NOT)
def test_ids_that_cannot_be_given(exact):
    with stand_in("vllm", MODEL, exact=exact) as url:
        server = connect(f"vllm={url}", top=8)
        with pytest.raises(ServerError) as caught:
            server.answer(Question(IDS, 4, 8, at=np.array([[7]])))
    assert str(caught.value) == (
        f"vLLM at {url} cannot be asked for given ids. Exact values at given ids need vLLM 0.32 or newer on its V2 "
        f"model runner, started with --enable-scale-out; it answers {WHY_NOT[exact]}"
    )


def test_what_is_sent():
    with stand_in("vllm", MODEL) as url:
        connect(f"vllm={url}", top=8).answer(Question(IDS, 3, 8, after=True))
    assert url.asked[-1] == (
        "/v1/completions",
        {
            "model": "teacher",
            "prompt": [1, 2, 3, 4, 5, 5],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 8,
            "return_token_ids": True,
        },
    )


def test_what_is_sent_with_given_ids():
    """More ids than its limit are asked in pieces; the most probable come with the first."""
    at = np.arange(2 * 25).reshape(2, 25) % 48
    with stand_in("vllm", MODEL, top_limit=20) as url:
        connect(f"vllm={url}", top=8).answer(Question(IDS, 3, 8, at=at))
    (first, body), (second, more) = url.asked[-2:]
    assert first == second == "/inference/v1/generate"
    assert body == {
        "model": "teacher",
        "token_ids": [1, 2, 3, 4, 5],
        "sampling_params": {
            "max_tokens": 1,
            "temperature": 0.0,
            "detokenize": False,
            "prompt_logprob_token_ids": at[:, :20].tolist(),
            "prompt_logprob_start": 2,
            "prompt_logprobs": 8,
        },
        "return_token_ids": True,
    }
    assert more["sampling_params"]["prompt_logprob_token_ids"] == at[:, 20:].tolist()
    assert "prompt_logprobs" not in more["sampling_params"]


def test_at_temperature_zero_one_response_stands_for_all():
    with stand_in("vllm", MODEL) as url:
        sampled = connect(f"vllm={url}", top=8).sampled(IDS, n=3, max_new_tokens=3, temperature=0.0, top_p=1.0, seed=0)
    assert url.asked[-1][1]["n"] == 1
    greedy = list(IDS)
    for _ in range(3):
        greedy.append(int(MODEL(greedy)[-1].argmax()))
    assert [one.ids for one in sampled] == [tuple(greedy[5:])] * 3
