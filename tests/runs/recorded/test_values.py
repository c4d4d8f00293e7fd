"""Values are of their type or are named."""

import math

import pytest

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded.values import logprobs, mask, messages, number, text, text_or_messages, token_ids, whole


def refusal(read, value) -> str:
    with pytest.raises(RolloutsError) as caught:
        read({"x": value}, "x", "a.jsonl, line 3")
    assert str(caught.value).startswith("a.jsonl, line 3: expected 'x' as ")
    assert str(caught.value).endswith(" Mend it or leave the file out.")
    return (
        str(caught.value)
        .removeprefix("a.jsonl, line 3: expected 'x' as ")
        .removesuffix(" Mend it or leave the file out.")
    )


def test_text_has_no_lone_surrogates():
    assert text({"x": "a\udcffb\ud83d\ude00"}, "x", "") == "a\ufffdb\U0001f600"
    assert text({"x": ""}, "x", "") == ""
    assert refusal(text, 4) == "text, found int (4)."
    assert refusal(text, None) == "text, found null."


def test_messages_lose_the_nulls_that_a_table_adds():
    said = [{"role": "user", "content": "a\udcff", "name": None}, {"role": "assistant", "content": None}]
    kept = ({"role": "user", "content": "a\ufffd"}, {"role": "assistant", "content": None})
    assert messages({"x": said}, "x", "") == text_or_messages({"x": said}, "x", "") == kept
    assert text_or_messages({"x": "a"}, "x", "") == "a"
    for value in ([], [{"content": "a"}], ["a"], {"role": "user"}):
        assert refusal(text_or_messages, value).startswith("text or a list of messages with a 'role', found ")


def test_whole_numbers():
    assert [whole({"x": value}, "x", "") for value in (0, 7, "12", None)] == [0, 7, 12, None]
    assert whole({}, "x", "") is None
    assert [whole(record, "x", "", 5) for record in ({}, {"x": None}, {"x": 0})] == [5, 5, 0]
    for value in (-1, 1.0, True, "", "-1", "٣", "1" * 30):
        assert refusal(whole, value).startswith("a whole number from 0, found ")


def test_numbers():
    assert [number({"x": value}, "x", "") for value in (0, 0.5, None, math.nan, math.inf)] == [
        0.0,
        0.5,
        None,
        None,
        None,
    ]
    assert number({"x": 10**400}, "x", "") is None, "JSON can spell what no float holds"
    for value in (True, "1", [1]):
        assert refusal(number, value).startswith("a number or null, found ")


def test_ids_masks_and_log_probabilities():
    assert token_ids({"x": [0, 5]}, "x", "") == (0, 5)
    assert mask({"x": [True, 0, 1.0]}, "x", "") == (True, False, True)
    assert logprobs({"x": [-0.5, -1]}, "x", "") == (-0.5, -1.0)
    assert math.isnan(logprobs({"x": [None]}, "x", "")[0])
    assert logprobs({"x": None}, "x", "") is None
    assert logprobs({"x": [-(10**400), 10**400]}, "x", "") == (-math.inf, math.inf)
    for value in (None, [-1], [True], [1.0], "ab"):
        assert refusal(token_ids, value).startswith("a list of token ids (whole numbers from 0), found ")
    for value in (None, [2], ["1"], [None]):
        assert refusal(mask, value).startswith("a list of 0 and 1, found ")
    for value in (["a"], [True], 0.5):
        assert refusal(logprobs, value).startswith("a list of numbers and nulls, found ")


def test_long_values_are_shown_in_part():
    assert len(refusal(text, list(range(10_000)))) < 100
