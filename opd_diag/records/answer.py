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

    A number (or a fraction, ``1/2``) as reference answer: the first number after the last marker (``answer``,
    ``####``, ``\boxed{``) that a number follows counts, or the last number of the response where there is no marker;
    thousands separators, ``$`` and ``%`` are ignored. Any other answer must equal the text after the last marker, or
    the whole response, apart from case, white space and the quotes, stars and full stops around it.

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
    marked = _marked(response)
    wanted = _REFERENCE.fullmatch(answer.strip())
    if wanted is None:
        return _words(marked[-1] if marked else response) == _words(answer)
    if not marked:
        found = list(_NUMBER.finditer(response))[-1:]
    else:
        found = [n for n in map(_NUMBER.search, reversed(marked)) if n is not None][:1]
    return bool(found) and _value(found[0]) == _value(wanted)


def _marked(response: str) -> list[str]:
    """Give what follows each marker: up to its closing brace or the next marker."""
    markers = list(_MARKER.finditer(response))
    ends = [*(m.start() for m in markers[1:]), len(response)]
    return [
        _braced(response[m.end() :]) if m[0].endswith("{") else response[m.end() : end]
        for m, end in zip(markers, ends, strict=False)
    ]


def _braced(text: str) -> str:
    """Give `text` up to the brace that closes one opened before it; all of it where none does."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:place]
    return text


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
