"""Whether a response gives the reference answer: as a number where the answer is one, else word for word."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:/[1-9]\d*)?|\.\d+"
_NUMBER = re.compile(rf"((?<![\w)\].])[-−])?\\?\$?({_DIGITS})")
"""A minus after a digit or a bracket is a subtraction or a range; a comma counts only between groups of three."""

_REFERENCE = re.compile(rf"([-−+])?\s*\\?\$?({_DIGITS})\s*\\?%?")
_MARKER = re.compile(r"\\boxed\s*\{|####|\banswer\b(?!\s*[.!]+\s*\Z)(?:\s+is)?\s*:?", re.IGNORECASE)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_AROUND = " .!*_$`\"'“”‘’"
"""What people and markdown put around an answer."""


def is_correct(response: str, answer: str | None) -> bool | None:
    r"""Grade a response.

    A number (or a fraction, ``1/2``) as reference answer: of the last marker (``answer``, ``####``, ``\boxed{``) that
    gives an answer, the first number counts; or the last number of the response where there is no marker. A marker
    gives an answer if a number follows it, or if it is a box that is closed: one with words alone in it is a wrong
    answer, an empty one is none and no marker. Thousands separators, ``$`` and ``%`` are ignored. Any other reference
    must equal the text after the last marker, or the whole response, apart from case, white space and the quotes, stars
    and full stops around it.

    Parameters
    ----------
    response
        Text of the response without special tokens.
    answer
        Reference answer; None when unknown.

    Returns
    -------
    bool or None
        None when there is no reference answer.

    Examples
    --------
    >>> is_correct("think 7 * 4 = 28. answer 28 pears", "28"), is_correct("no idea", "28"), is_correct("x", None)
    (True, False, None)
    >>> is_correct("The answer is  Paris", "paris")
    True
    """
    if answer is None:
        return None
    marked = _marked_places(response)
    wanted = _REFERENCE.fullmatch(answer.strip())
    if wanted is None:
        return _words(response[slice(*marked[-1][:2])] if marked else response) == _words(answer)
    numbers = [_given(response)[1]] if marked else [None, *_NUMBER.finditer(response)]
    found = numbers[-1]
    return found is not None and _value(found) == _value(wanted)


def answer_end(response: str) -> int | None:
    r"""Find where a response has just completed its answer.

    The answer is the one that :func:`is_correct` holds against a number, by the same rule: that of the last marker that
    gives one. One in a box is complete with the closing brace. An answer in words is found in a closed box alone:
    elsewhere nothing says where it ends, and what stands before it counts.

    Parameters
    ----------
    response
        Text of the response; special tokens may stand in it.

    Returns
    -------
    int or None
        Number of characters up to there; None where no marker gives an answer, or where the response ends with the
        number itself, which may then be cut short.

    Examples
    --------
    >>> answer_end("7 * 4 = 28. The answer is 28 pears."), answer_end(r"\boxed{28} done"), answer_end("answer 28")
    (28, 10, None)
    """
    closed, number = _given(response)
    if closed is not None:
        return closed
    return number.end() if number is not None and number.end() < len(response) else None


def _given(response: str) -> tuple[int | None, re.Match[str] | None]:
    """Find the answer of the last marker that gives one: where its box is closed, if it is one, and its number."""
    for start, end, closed in reversed(_marked_places(response)):
        number = _NUMBER.search(response, start, end)
        if closed or number is not None:
            return (end + 1 if closed else None), number
    return None, None


def _marked_places(response: str) -> list[tuple[int, int, bool]]:
    """Give where what follows each marker starts and ends, and whether it is a closed box; empty boxes are left out.

    It ends at the closing brace or, outside boxes, at the next marker; what an open box holds, at the end.
    """
    markers = list(_MARKER.finditer(response))
    ends, closing = [*(m.start() for m in markers[1:]), len(response)], _closing_braces(response)
    places = [
        (m.end(), closing.get(m.end() - 1, len(response)) if m[0].endswith("{") else end, m.end() - 1 in closing)
        for m, end in zip(markers, ends, strict=False)
    ]
    return [(start, end, closed) for start, end, closed in places if not closed or response[start:end].strip()]


def _closing_braces(text: str) -> dict[int, int]:
    """Give where each brace that is closed again is closed; in one pass, as a looping response may open thousands."""
    opened: list[int] = []
    closing = {}
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closing[opened.pop()] = brace.start()
    return closing


def _value(number: re.Match[str]) -> Fraction:
    """Give the exact value: as floats, two long numbers can be equal that are not."""
    sign, digits = number.groups()
    numerator, _, denominator = digits.replace(",", "").partition("/")
    # By way of Decimal, which reads numbers of any length.
    size = Fraction(Decimal(numerator)) / Fraction(Decimal(denominator or "1"))
    return -size if sign in ("-", "−") else size


def _words(text: str) -> str:
    plain = " ".join(_LATEX_TEXT.sub(r"\1", text).casefold().split())
    return plain.strip(_AROUND) or plain
