"""At which token a response has given its answer: from a place in the text to a position."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from opd_diag.records.answer import answer_end
from opd_diag.records.rollout import Rollout
from opd_diag.records.vocabulary import Token

_LONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_LONE_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")
"""How a vocabulary writes tokens that are part of a character (:class:`~opd_diag.records.vocabulary.Token`)."""


def answered_position(rollout: Rollout, tokens: Mapping[int, Token] | None) -> int | None:
    """Find the position of the first state after the answer of a response is complete.

    Parameters
    ----------
    rollout
        One response with its text.
    tokens
        What ids look like; None: unknown.

    Returns
    -------
    int or None
        Index of the response token that the state predicts; the number of tokens where the last one completes the
        answer. None where the text has no complete answer (:func:`~opd_diag.records.answer.answer_end`), where it is
        not the student's own but a tool's, or where tokens and text do not go together up to there.
    """
    end = answer_end(rollout.response_text)
    if end is None or tokens is None or any(i not in tokens for i in rollout.response_ids):
        return None
    place = position_after([tokens[i].text for i in rollout.response_ids], rollout.response_text, end)
    if place is None or (rollout.generated is not None and not rollout.generated[place - 1]):
        return None
    return place


def position_after(pieces: Sequence[str], text: str, end: int) -> int | None:
    """Find the first token that begins at or after a place in the text.

    The text is walked piece by piece, so the place is exact or unknown. The space before the first piece may be missing
    from the text, as some tokenizers write it.

    Parameters
    ----------
    pieces
        Text of each token.
    text
        Text of all of them.
    end
        Number of characters before the place.

    Returns
    -------
    int or None
        Index of the token, ``len(pieces)`` after the last; None where the pieces do not give the text up to there (as
        of a tokenizer that joins or drops spaces).

    Examples
    --------
    >>> position_after([" the", " answer", " 2", "8", "."], "the answer 28.", 13)
    4
    >>> position_after(["<0xC3>", "<0xA9>", " 2", "8", "."], "é 28.", 4)
    4
    """
    whole, wanted, reached = text.encode("utf-8", "surrogatepass"), len(text[:end].encode("utf-8", "surrogatepass")), 0
    for place, piece in enumerate(pieces):
        if reached >= wanted:
            return place
        spellings = [_bytes_of(piece), piece.encode("utf-8", "surrogatepass")]
        spellings += [spellings[1].removeprefix(b" ")] if place == 0 else []
        fitting = [spelt for spelt in spellings if spelt and whole.startswith(spelt, reached)]
        if not fitting:
            return None
        reached += len(fitting[0])
    return len(pieces) if reached >= wanted else None


def _bytes_of(piece: str) -> bytes:
    """Give the bytes of a token; of one that is part of a character, those that its text names."""
    if _LONE_BYTES.fullmatch(piece):
        return bytes(int(byte, 16) for byte in _LONE_BYTE.findall(piece))
    return piece.encode("utf-8", "surrogatepass")
