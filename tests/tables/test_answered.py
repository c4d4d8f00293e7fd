"""From a place in the text to a position: exact, or unknown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_diag.records.vocabulary import Token
from opd_diag.tables.answered import answered_position, position_after

from .made_up import rollout


def split_at(text, cuts):
    edges = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(min_size=1, max_size=30), st.lists(st.integers(0, 100), max_size=10), st.integers(0, 30))
def test_first_piece_that_begins_at_or_after_the_place(text, cuts, end):
    pieces, end = split_at(text, cuts), min(end, len(text))
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces) + 1)]
    assert position_after(pieces, text, end) == next(i for i, start in enumerate(starts) if start >= end)


@given(st.text(min_size=1, max_size=12), st.integers(0, 12))
def test_bytes_of_one_character_may_be_several_tokens(text, end):
    """As vocabularies write them: each byte of what is not ASCII is a token."""
    pieces, before = [], []
    for character in text:
        before.append(len(pieces))
        raw = character.encode()
        pieces += [character] if len(raw) == 1 else [f"<0x{byte:02X}>" for byte in raw]
    before.append(len(pieces))
    end = min(end, len(text))
    assert position_after(pieces, text, end) == before[end]


@pytest.mark.parametrize(
    ("pieces", "text", "end", "expected"),
    [
        ([" So", " 4"], "So 4.", 4, 2),  # the place is where the last piece ends
        ([" So", " 4"], "So 4.", 5, None),
        ([" So", " 4", "."], "So 4.", 4, 2),  # sentencepiece drops the first space
        (["So", " ", "4"], "So4", 3, None),  # a space that decoding dropped
        (["<0xE2><0x82>", "<0xAC>", "4"], "€4", 2, 3),
        (["<0xE2>", "4"], "\ufffd4", 2, None),  # half a character: the text has another
        (["<0x41>"], "<0x41>", 6, 1),  # written out in the text itself
        (["", "4"], "4", 1, None),
        (["4"], "4", 0, 0),
        ([], "", 0, 0),
        ([], "4", 1, None),
    ],
)
def test_by_hand(pieces, text, end, expected):
    assert position_after(pieces, text, end) == expected


TEXTS = ["So", " the", " answer", " is", " 2", "8", ".", "</s>", " Paris"]
VOCABULARY = {i: Token(text, special=text == "</s>") for i, text in enumerate(TEXTS)}


def answering(ids, text=None, **options):
    return rollout(
        response_ids=tuple(ids), response_text="".join(TEXTS[i] for i in ids) if text is None else text, **options
    )


def test_position_is_that_of_the_state_after_the_answer():
    assert answered_position(answering([0, 1, 2, 3, 4, 5, 6, 7]), VOCABULARY) == 6
    assert answered_position(answering([0, 1, 2, 3, 4, 5, 7]), VOCABULARY) == 6
    twice = answering([1, 2, 3, 4, 6, 1, 2, 3, 4, 5, 6, 7])
    assert answered_position(twice, VOCABULARY) == 10


@pytest.mark.parametrize(
    ("made", "tokens"),
    [
        (answering([0, 1, 2, 3, 4], stop_reason="length"), VOCABULARY),  # 2, or 28
        (answering([0, 1, 2, 3, 8, 7]), VOCABULARY),  # a word: nothing says where it ends
        (answering([0, 1, 4, 5, 6, 7]), VOCABULARY),  # no marker
        (answering([0, 1, 2, 3, 4, 5, 7]), None),
        (answering([0, 1, 2, 3, 4, 5, 7]), {0: VOCABULARY[0]}),
        (answering([0, 1, 2, 3, 4, 5, 7], text=""), VOCABULARY),
        (answering([0, 1, 2, 3, 4, 5, 7], text="So the answer is: 28."), VOCABULARY),
    ],
)
def test_unknown_where_it_cannot_be_told(made, tokens):
    assert answered_position(made, tokens) is None


def test_an_answer_in_a_tools_output_is_not_the_students():
    ids = [0, 1, 2, 3, 4, 5, 6, 7]
    assert answered_position(answering(ids, generated=(True,) * 6 + (False, True)), VOCABULARY) == 6
    assert answered_position(answering(ids, generated=(True,) + (False,) * 5 + (True, True)), VOCABULARY) is None
