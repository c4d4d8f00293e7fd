"""vLLM in this process, held against the model that its stand-in computes with."""

import numpy as np
import pytest

from opd_diag.errors import InputError, ServerError
from opd_diag.servers import ALL, About, Question, connect

from .stand_in import TinyModel

MODEL = TinyModel(48)
IDS = (11, 12, 13, 14, 15, 16)
ROWS = MODEL(IDS)
"""Row j predicts token j + 1."""
V2 = "prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1). "
V2 += "(parameter=prompt_logprob_token_ids)"


def best(row, k):
    return sorted(range(48), key=lambda i: (-row[i], i))[:k]


def refused(question, **options):
    with pytest.raises(ServerError) as caught:
        connect("vllm=org/teacher", top=4, **options).answer(question)
    return str(caught.value)


class TestWhatItSaysOfItself:
    def test_on_the_v2_runner(self, fake):
        fake()
        assert connect(" vllm=org/teacher ", top=20).about == About(
            engine="vllm", version="0.32.0", model="org/teacher", root="org/teacher", context=512, top_limit=None,
            exact_ids=True, why_not_exact=None, sees_all=True, vocab_size=48, url="",
        )  # fmt: skip

    def test_on_another_runner(self, fake):
        fake(exact=False)
        server = connect("vllm=org/teacher", top=20)
        assert not server.about.exact_ids
        with pytest.raises(ServerError) as caught:
            server.answer(Question(IDS, 4, 4, at=np.zeros((2, 1), np.int64)))
        assert str(caught.value) == (
            "vLLM with org/teacher cannot be asked for given ids. Exact values at given ids need vLLM 0.32 or newer on "
            f"its V2 model runner; it says: {V2}."
        )


class TestAnswers:
    def test_the_top_k(self, fake):
        fake()
        answer = connect("vllm=org/teacher", top=4).answer(Question(IDS, 3, 4, after=True))
        assert answer.topk_ids.tolist() == [best(row, 4) for row in ROWS[2:]]
        np.testing.assert_allclose(answer.topk_logprobs, -np.sort(-ROWS[2:], axis=1)[:, :4], atol=1e-6)
        np.testing.assert_allclose(answer.sampled_logprobs, ROWS[[2, 3, 4], [14, 15, 16]], atol=1e-6)
        assert (answer.at_logprobs, answer.received_bytes) == (None, 0)

    def test_the_whole_vocabulary(self, fake):
        fake()
        answer = connect("vllm=org/teacher", top=ALL).answer(Question(IDS, 2, ALL))
        assert answer.topk_ids.tolist() == [best(row, 48) for row in ROWS[1:5]]
        np.testing.assert_allclose(answer.topk_logprobs, -np.sort(-ROWS[1:5], axis=1), atol=1e-6)

    def test_given_ids(self, fake):
        fake()
        at = np.array([[7, -1, 30], [0, 47, -1]])
        answer = connect("vllm=org/teacher", top=4).answer(Question(IDS, 4, 4, at=at))
        assert np.isnan(answer.at_logprobs).tolist() == (at < 0).tolist()
        np.testing.assert_allclose(answer.at_logprobs[0, [0, 2]], ROWS[3, [7, 30]], atol=1e-6)
        np.testing.assert_allclose(answer.at_logprobs[1, :2], ROWS[4, [0, 47]], atol=1e-6)

    def test_no_row(self, fake):
        of = fake()
        server = connect("vllm=org/teacher", top=4)
        asked = len(of.calls)
        answer = server.answer(Question(IDS, 6, 4))
        assert (answer.topk_ids.shape, answer.sampled_logprobs.shape, len(of.calls)) == ((0, 4), (0,), asked)

    def test_ids_that_are_impossible(self, fake):
        fake(TinyModel(48, never=(5, 6)))
        answer = connect("vllm=org/teacher", top=ALL).answer(Question(IDS, 2, ALL))
        assert answer.topk_ids[:, -2:].tolist() == [[5, 6]] * 4
        assert np.isneginf(answer.topk_logprobs[:, -2:]).all()

    def test_text(self, fake):
        fake()
        assert connect("vllm=org/teacher", top=4).text(np.array([5, 6])) == "5 6"


class TestSampling:
    def test_each_response_has_a_stream_of_its_own(self, fake):
        fake(stop_id=3)
        server = connect("vllm=org/teacher", top=4)
        drawn = server.sampled(IDS, n=3, max_new_tokens=30, temperature=1.0, top_p=0.9, seed=7)
        assert len({one.ids for one in drawn}) == 3
        for one in drawn:
            assert one.stop_reason == ("stop" if one.ids[-1] == 3 else "length")
            rows = MODEL([*IDS, *one.ids])[len(IDS) - 1 : -1]
            np.testing.assert_allclose(one.logprobs, rows[np.arange(len(one.ids)), one.ids], atol=1e-6)
        again = server.sampled(IDS, n=3, max_new_tokens=30, temperature=1.0, top_p=0.9, seed=7)
        assert [one.ids for one in again] == [one.ids for one in drawn]

    def test_at_temperature_zero_one_response_stands_for_all(self, fake):
        fake()
        server = connect("vllm=org/teacher", top=4)
        drawn = server.sampled(IDS, n=3, max_new_tokens=3, temperature=0.0, top_p=1.0, seed=0)
        greedy = list(IDS)
        for _ in range(3):
            greedy.append(int(MODEL(greedy)[-1].argmax()))
        assert [one.ids for one in drawn] == [tuple(greedy[6:])] * 3

    def test_fewer_than_asked(self, fake):
        fake(spoil="few_responses")
        with pytest.raises(ServerError) as caught:
            connect("vllm=org/teacher", top=4).sampled(IDS, n=3, max_new_tokens=3, temperature=1.0, top_p=1.0, seed=0)
        assert str(caught.value) == (
            "vLLM with org/teacher: 3 responses were expected, found 2. Install another release of vLLM."
        )

    def test_what_vllm_refuses(self, fake):
        fake()
        with pytest.raises(ServerError) as caught:
            connect("vllm=org/teacher", top=4).sampled(IDS, n=1, max_new_tokens=3, temperature=1.0, top_p=1.5, seed=0)
        assert str(caught.value) == (
            "vLLM with org/teacher refuses what it was asked: top_p must be in (0, 1], got 1.5. (parameter=top_p, "
            "value=1.5)."
        )


BAD = "Install another release of vLLM."
SPOILT = {
    "other_ids": f": the ids that were asked about were expected back, found others. {BAD}",
    "few_rows": f": 5 rows of 5 prompt log-probabilities were expected, found 4. {BAD}",
    "shifted": (
        f": the row of token 3 was expected to be that of id 14, found 15. Rows are missing or in another order. {BAD}"
    ),
    "logits": (
        " answers what cannot be: in the row of token 3 log-probabilities of at most 0 were expected, found "
        f"{ROWS[2, 14] + 9:.6g}. {BAD}"
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("fault", SPOILT)
    def test_answers_that_must_not_be_believed(self, fake, fault):
        fake(spoil=fault)
        assert refused(Question(IDS, 3, 4)) == f"vLLM with org/teacher{SPOILT[fault]}"

    def test_an_id_that_it_does_not_know(self, fake):
        fake()
        assert refused(Question((1, 2, 50), 1, 4)) == (
            "vLLM with org/teacher refuses what it was asked: Token id 50 is out of vocabulary."
        )

    def test_a_sequence_that_is_too_long(self, fake):
        fake(context=6)
        assert refused(Question(IDS, 1, 4)) == (
            "vLLM with org/teacher reads at most 6 tokens, 7 are needed for a sequence of 6. Leave longer ones out."
        )

    def test_more_than_the_vocabulary(self, fake):
        fake()
        with pytest.raises(ServerError) as caught:
            connect("vllm=org/teacher", top=49)
        assert str(caught.value) == (
            "The model of vLLM with org/teacher has 48 ids, 49 of a row are wanted. Ask for at most 48."
        )

    def test_the_name_of_a_model(self, fake):
        fake()
        with pytest.raises(InputError) as caught:
            connect("vllm=org/teacher", model="other\x1b", top=4)
        assert str(caught.value) == (
            "The name of a model, other\\x1b, is for a server that has several; vllm=org/teacher is loaded here. Leave "
            "the name out."
        )
