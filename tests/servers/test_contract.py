"""Answers that must not be believed, one fault each, and the whole sentence that it is told by."""

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers import Patience, Question, connect
from opd_diag.servers.contract import Rows, believed
from opd_diag.servers.server import About

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(48)
IDS = (11, 12, 13, 14, 15, 16)
ROWS = MODEL(IDS)
"""Row j predicts token j + 1."""
MEND = "Update the server, and ask it without anything between that changes answers."
ORDER = f"Rows are missing or in another order. {MEND}"
VLLM_LOGITS = "These are logits: start the server with --logprobs-mode raw_logprobs."
SGLANG_LOGITS = "These are no log-probabilities at temperature 1: take a release that answers them."


def best(row, k):
    return sorted(range(48), key=lambda i: (-row[i], i))[:k]


def value(number):
    return f"{number:.6g}"


def told(engine, fault, **options):
    at = np.array([[7, 8], [9, 10], [20, 21]]) if fault.startswith("at_") else None
    with stand_in(engine, MODEL, misbehave=fault, **options) as url:
        server = connect(f"{engine}={url}", top=4, patience=Patience(tries=1))
        with pytest.raises(ServerError) as caught:
            server.answer(Question(IDS, 3, 4, at=at))
    return str(caught.value).replace(url, "URL")


def row(token, expected, found, mend=MEND):
    return f"answers what cannot be: in the row of token {token} {expected} expected, found {found}. {mend}"


def mass(row_of, shift=1.2):
    return np.exp(np.minimum(ROWS[row_of - 1][best(ROWS[row_of - 1], 4)] + shift, -0.01)).sum()


HEAVY_TOKEN = next(t for t in (3, 4, 5) if mass(t) > 1.001)
"""The first row of which four ids, each e^1.2 times as probable, are more than all."""

LAST = best(ROWS[4], 4)
OWN_IN_LAST = 16 in LAST


def listed(row_of, own):
    """The first ids of a row as vLLM lists them."""
    return ", ".join(map(str, [own, *(one for one in best(ROWS[row_of - 1], 4) if one != own)][:4]))


ARRAY = ": floating-point numbers of shape (3, 2) were expected for the ids asked"
PAIRS = "ids with their log-probabilities were expected in"

VLLM = {
    "other_ids": f": the 6 ids that were sent were expected back, found 6 which differ from them at token 5. {MEND}",
    "no_echo": (
        ": the ids that were sent were expected back, found none. Update it to vLLM 0.10.2 or newer, which answers "
        "return_token_ids."
    ),
    "few_rows": (
        ": 6 rows of prompt log-probabilities were expected, found 5. Start it with --no-enable-prefix-caching, or "
        "update it: old releases lose rows that they have in the prefix cache."
    ),
    "swapped_rows": (
        f": the row of token 4 was expected to have the token's own id, 15; found ids {listed(5, 16)}. {ORDER}"
    ),
    "own_missing": (
        ": the row of token 5 was expected to have the token's own id, 16; found ids "
        f"{', '.join(str(one) for one in LAST if one != 16)}. {ORDER}"
    ),
    "short_row": (
        f": in the row of token 5 4 ids and the token's own were expected, found {2 - OWN_IN_LAST}. {MEND}"
    ),
    "no_values": (
        f": in the row of token 5 ids with their log-probabilities were expected, found ids {listed(5, 16)}. {MEND}"
    ),
    "negative_id": " " + row(5, "ids of 0 to 47 were", "-7"),
    "id_beyond": " " + row(5, "ids of 0 to 47 were", "777"),
    "twice": " " + row(5, f"{5 - OWN_IN_LAST} different ids were", "id 16 twice"),
    "null": " " + row(5, "log-probabilities were", "a value that is no number"),
    "logits": " " + row(3, "log-probabilities of at most 0 were", value(ROWS[2][14] + 9), VLLM_LOGITS),
    "heavy": " " + row(HEAVY_TOKEN, "probabilities that sum to at most 1 were", value(mass(HEAVY_TOKEN)), VLLM_LOGITS),
    "light": " " + row(
        3,
        "probabilities that sum to 1 were",
        "at most " + value(np.exp(-9) * (np.exp(ROWS[2][best(ROWS[2], 4)]) @ [1, 1, 1, 45])),
        VLLM_LOGITS,
    ),
    "at_shape": f"{ARRAY}, found float32 of shape (2, 2). {MEND}",
    "at_pickled": f"{ARRAY}, found object of shape (3, 2). {MEND}",
}  # fmt: skip

SGLANG = {
    "fewer_read": f": 6 ids were sent, it has read 5. {MEND}",
    "few_rows": f": 3 rows of input_token_logprobs were expected, found 2. {MEND}",
    "swapped_rows": f": the row of token 4 was expected to be that of id 15, found 16. {ORDER}",
    "no_values": (
        f": in the row of token 5 1 {PAIRS} input_token_logprobs, found 1. {MEND}"
    ),
    "short_row": (
        f": in the row of token 5 4 {PAIRS} input_top_logprobs, found 3. {MEND}"
    ),
    "negative_id": " " + row(5, "ids of at least 0 were", "-7"),
    "twice": " " + row(5, "4 different ids were", f"id {LAST[0]} twice"),
    "null": " " + row(5, "log-probabilities were", "a value that is no number"),
    "logits": " " + row(3, "log-probabilities of at most 0 were", value(ROWS[2][14] + 9), SGLANG_LOGITS),
    "heavy": " "
    + row(HEAVY_TOKEN, "probabilities that sum to at most 1 were", value(mass(HEAVY_TOKEN)), SGLANG_LOGITS),
    "at_other_ids": f": values at the 6 ids that were given were expected in each row, found others. {MEND}",
}  # fmt: skip


@pytest.mark.parametrize("fault", VLLM)
def test_vllm(fault):
    assert told("vllm", fault) == "vLLM at URL" + VLLM[fault]


@pytest.mark.parametrize("fault", SGLANG)
def test_sglang(fault):
    assert told("sglang", fault, flat=False) == "SGLang at URL" + SGLANG[fault]


@pytest.mark.parametrize(("engine", "from_row"), [("vllm", -1), ("sglang", 1)])
def test_values_at_given_ids_in_other_rows(engine, from_row):
    """Each row has its own best ids given, and gets another row's values."""
    at = np.array([best(row, 2) for row in ROWS[2:5]])
    with stand_in(engine, MODEL, misbehave="at_shifted") as url, pytest.raises(ServerError) as caught:
        connect(f"{engine}={url}", top=4).answer(Question(IDS, 3, 4, at=at))
    one = at[0, 0]
    values = [ROWS[2][one], ROWS[2:5][from_row][best(ROWS[4], 2)[0] if engine == "vllm" else one]]
    name = {"vllm": "vLLM", "sglang": "SGLang"}[engine]
    assert str(caught.value) == f"{name} at {url} " + row(
        3, f"one log-probability of id {one} was", f"{value(values[0])} and {value(values[1])}"
    )


def test_sglang_two_values_of_one_token():
    own = best(ROWS[4], 4)[0]
    ids = (*IDS[:5], own)
    with stand_in("sglang", MODEL, misbehave="two_values") as url, pytest.raises(ServerError) as caught:
        connect(f"sglang={url}", top=4).answer(Question(ids, 3, 4))
    first = ROWS[4][own]
    assert str(caught.value) == f"SGLang at {url} " + row(
        5, f"one log-probability of id {own} was", f"{value(first)} and {value(first - 0.5)}"
    )


def test_sglang_compact_and_short():
    assert (
        told("sglang", "short_row")
        == f"SGLang at URL: 12 values of the most probable ids were expected, found 11. {MEND}"
    )


ABOUT = About("vllm", None, "m", None, None, None, True, None, False, None, "URL")
GOOD = {"own": [-1.0], "ids": [7, 8], "logprobs": [-0.5, -1.0]}


def one_row(own_id=8, at=None, **changed):
    question = Question((1, own_id), 1, 2, at=None if at is None else np.array([at]))
    given = {**GOOD, **changed}
    rows = Rows(given["own"], np.array([len(given["ids"])]), given["ids"], given["logprobs"], given.get("values"))
    return believed(question, rows, ABOUT, 100)


def refusal(**changed):
    with pytest.raises(ServerError) as caught:
        one_row(**changed)
    return str(caught.value)


def test_a_good_row():
    answer = one_row(at=[8, -1, 30], values=[[-1.0, np.nan, -2.5]])
    assert answer.topk_ids.tolist() == [[7, 8]]
    assert answer.topk_logprobs.tolist() == [[-0.5, -1.0]]
    assert answer.sampled_logprobs.tolist() == [-1.0]
    np.testing.assert_array_equal(answer.at_logprobs, [[-1.0, np.nan, -2.5]])
    assert answer.received_bytes == 100


def test_the_own_tokens_extra_entry_is_left_out_by_value_and_ties_by_id():
    answer = one_row(own_id=5, own=[-3.0], ids=[5, 9, 4], logprobs=[-3.0, -0.7, -0.9])
    assert answer.topk_ids.tolist() == [[9, 4]]
    answer = one_row(own_id=5, own=[-0.9], ids=[5, 9, 6], logprobs=[-0.9, -0.7, -0.9])
    assert answer.topk_ids.tolist() == [[9, 5]]


def test_rounding_above_zero_is_zero_and_minus_9999_is_minus_infinity():
    answer = one_row(own_id=7, own=[1e-6], logprobs=[1e-6, -9999.0])
    assert answer.topk_logprobs.tolist() == [[0.0, -np.inf]]
    assert answer.sampled_logprobs.tolist() == [0.0]


def test_an_own_value_above_the_best():
    assert refusal(own_id=3, own=[-0.2]) == (
        "vLLM at URL answers what cannot be: in the row of token 1 id 3 among the best was expected, found it missing "
        f"with -0.2. {MEND}"
    )


def test_two_values_of_one_id():
    assert refusal(own=[-1.5]) == (
        "vLLM at URL answers what cannot be: in the row of token 1 one log-probability of id 8 was expected, found -1 "
        f"and -1.5. {MEND}"
    )


def test_values_at_given_ids_of_another_row():
    assert refusal(at=[7, 30], values=[[-0.8, -4.0]]) == (
        "vLLM at URL answers what cannot be: in the row of token 1 one log-probability of id 7 was expected, found "
        f"-0.5 and -0.8. {MEND}"
    )
    assert refusal(at=[7, 30], values=[[-0.5, -0.6]]) == (
        "vLLM at URL answers what cannot be: in the row of token 1 id 30 among the best was expected, found it missing "
        f"with -0.6. {MEND}"
    )
    assert refusal(at=[7, 30], values=[[-0.5, np.nan]]) == (
        "vLLM at URL answers what cannot be: in the row of token 1 log-probabilities were expected, found a value that "
        f"is no number. {MEND}"
    )


@pytest.mark.parametrize("ids", [["7", "8"], [7.5, 8.0], [2**70, 8], [None, 8]])
def test_ids_that_are_no_integers(ids):
    assert refusal(ids=ids) == f"vLLM at URL answers token ids that are no integers. {MEND}"


@pytest.mark.parametrize("logprobs", [["a", "b"], [{}, []], [[-0.5], [-1.0]]])
def test_log_probabilities_that_are_no_numbers(logprobs):
    assert refusal(logprobs=logprobs) == f"vLLM at URL answers log-probabilities that are no numbers. {MEND}"


def test_values_of_another_shape():
    assert refusal(at=[7, 30], values=[[-0.5]]) == (
        "vLLM at URL answers what cannot be: log-probabilities of shape (1, 2) at the ids asked were expected, found "
        f"shape (1, 1). {MEND}"
    )
