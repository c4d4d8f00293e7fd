"""Both engines through the one interface: rows against the model itself, limits, text, sampling."""

import math

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import ALL, Question, Server, connect

from .stand_in import TinyModel, stand_in

ENGINES = ["vllm", "sglang"]
NAMES = {"vllm": "vLLM", "sglang": "SGLang"}
MODEL = TinyModel(48)
IDS = tuple(np.random.default_rng(5).integers(0, 48, 40).tolist())


def connected(engine, url, top=8):
    return connect(f"{engine}={url}", top=top)


def best(rows, k):
    """The k best of each row by sorting in plain Python, of equal values the lower id first."""
    return [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in rows]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flat", [True, False, "list"])
def test_rows_are_the_models_own(engine, flat):
    with stand_in(engine, MODEL, flat=flat) as url:
        server = connected(engine, url)
        assert isinstance(server, Server)
        answer = server.answer(Question(IDS, 12, 8))
    wanted = MODEL(IDS)[11:-1]
    np.testing.assert_allclose(answer.sampled_logprobs, wanted[np.arange(28), IDS[12:]], rtol=1e-9)
    assert answer.topk_ids.tolist() == best(wanted, 8)
    np.testing.assert_allclose(answer.topk_logprobs, -np.sort(-wanted, axis=1)[:, :8], rtol=1e-6)
    assert answer.at_logprobs is None
    assert answer.topk_logprobs.dtype == np.float64
    assert answer.received_bytes > 28 * 8 * 8


@pytest.mark.parametrize("engine", ENGINES)
def test_the_row_behind_the_last_token(engine):
    with stand_in(engine, MODEL) as url:
        server = connected(engine, url)
        answer, alone = server.answer(Question(IDS, 38, 8, after=True)), server.answer(Question(IDS, 40, 8, after=True))
        nothing = server.answer(Question(IDS, 40, 8))
    wanted = MODEL(IDS)[37:]
    assert answer.topk_ids.tolist() == best(wanted, 8)
    np.testing.assert_allclose(answer.sampled_logprobs, wanted[np.arange(2), IDS[38:]], rtol=1e-9)
    assert alone.topk_ids.tolist() == best(wanted[2:], 8)
    assert alone.sampled_logprobs.shape == (0,)
    assert (nothing.topk_ids.shape, nothing.sampled_logprobs.shape, nothing.received_bytes) == ((0, 8), (0,), 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("width", [3, 25])
def test_exact_values_at_given_ids(engine, width):
    at = np.random.default_rng(1).integers(-1, 48, (21, width))
    at[4] = -1
    with stand_in(engine, MODEL, top_limit=10) as url:
        server = connected(engine, url)
        assert (server.about.exact_ids, server.about.why_not_exact) == (True, None)
        answer = server.answer(Question(IDS, 20, 8, after=True, at=at))
    rows = MODEL(IDS)[19:]
    for row, ids, values in zip(rows, at, answer.at_logprobs, strict=True):
        for one, value in zip(ids, values, strict=True):
            assert math.isnan(value) if one < 0 else value == pytest.approx(row[one], abs=1e-5)
    assert answer.topk_ids.tolist() == best(rows, 8)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_never_comes_is_minus_infinity(engine):
    never = TinyModel(10, never=(3, 7))
    with stand_in(engine, never) as url:
        answer = connect(f"{engine}={url}", top=10).answer(Question((1, 2, 4, 5), 1, 10))
    assert answer.topk_ids[:, 8:].tolist() == [[3, 7]] * 3
    assert np.isneginf(answer.topk_logprobs[:, 8:]).all()
    assert np.isfinite(answer.topk_logprobs[:, :8]).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_of_equal_ids_the_lower_comes_first(engine):
    def equal(ids):
        return np.full((len(ids), 6), -np.log(6))

    with stand_in(engine, equal) as url:
        answer = connect(f"{engine}={url}", top=6).answer(Question((5, 4, 3), 1, 6))
    assert answer.topk_ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_the_whole_vocabulary():
    with stand_in("vllm", MODEL, top_limit=None) as url:
        server = connected("vllm", url, top=ALL)
        assert (server.about.sees_all, server.about.top_limit, server.about.vocab_size) == (True, None, 48)
        answer = server.answer(Question(IDS, 30, ALL, after=True))
    rows = MODEL(IDS)[29:]
    assert answer.topk_ids.tolist() == best(rows, 48)
    np.testing.assert_allclose(np.exp(answer.topk_logprobs).sum(axis=1), 1, rtol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_text_with_its_special_tokens(engine):
    with stand_in(engine, MODEL, text=lambda ids: "".join(f"<{one}>" for one in ids)) as url:
        assert connected(engine, url).text(np.array([3, 4])) == "<3><4>"
    with stand_in(engine, MODEL, text=None) as url:
        assert connected(engine, url).text([3, 4]) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_sampled_responses(engine):
    prompt = IDS[:5]
    with stand_in(engine, MODEL, stop_id=21) as url:
        server = connected(engine, url)
        settings = {"n": 6, "max_new_tokens": 4, "temperature": 1.0, "top_p": 1.0}
        sampled, again = server.sampled(prompt, seed=3, **settings), server.sampled(prompt, seed=3, **settings)
        other = server.sampled(prompt, seed=50, **settings)
    assert [one.ids for one in sampled] == [one.ids for one in again] != [one.ids for one in other]
    assert len({one.ids for one in sampled}) > 1
    assert {one.stop_reason for one in sampled} == {"stop", "length"}
    for one in sampled:
        rows = MODEL([*prompt, *one.ids])[4:-1]
        np.testing.assert_allclose(one.logprobs, rows[np.arange(len(one.ids)), list(one.ids)], rtol=1e-9)
        assert (one.ids[-1] == 21) == (one.stop_reason == "stop")
        assert len(one.ids) <= 4


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_of_a_servers_own_preferences_is_left(engine):
    with stand_in(engine, MODEL) as url:
        server = connected(engine, url)
        server.sampled(IDS[:5], n=2, max_new_tokens=3, temperature=0.7, top_p=0.9, seed=0)
    body = url.asked[-1][1]
    params = body if engine == "vllm" else body["sampling_params"][1]
    neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert {name: params[name] for name in neutral} == neutral
    assert (params["temperature"], params["top_p"]) == (0.7, 0.9)


TOO_LONG = {
    "vllm": "Start it with --max-model-len 41, or leave longer sequences out.",
    "sglang": "Start it with --context-length 41, or leave longer sequences out.",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sequence_that_is_too_long(engine):
    with stand_in(engine, MODEL, context=40) as url:
        server = connected(engine, url)
        assert server.answer(Question(IDS[:39], 30, 8)).topk_ids.shape == (9, 8)
        with pytest.raises(ServerError) as caught:
            server.answer(Question(IDS, 30, 8))
        asked = len(url.asked)
        with pytest.raises(ServerError):
            server.answer(Question(IDS[:39], 30, 8, after=True))
        assert len(url.asked) == asked
    assert str(caught.value) == (
        f"{NAMES[engine]} at {url} reads at most 40 tokens, 41 are needed for a sequence of 40. {TOO_LONG[engine]}"
    )
