"""Whether a response gives the reference answer: as a number where the answer is one, else word for word."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_PLAIN = re.compile(r"[-+]?\d+(?:\.\d+)?")
_MARKERS = re.compile(r"\\boxed\s*\{|####|\banswer\b(?:\s+is)?\s*:?", re.IGNORECASE)


def is_correct(response: str, answer: str | None) -> bool | None:
    r"""Grade a response.

    A number as reference answer: the first number after the last marker (``answer``, ``####``, ``\boxed{``) counts,
    or the last number of the response where there is no marker; thousands separators are ignored. Any other answer
    must equal the text after the last marker, or the whole response, apart from case and white space.

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
    marked = _MARKERS.split(response)
    wanted = _number(answer)
    if wanted is None:
        return " ".join(marked[-1].casefold().split()).rstrip(".}") == " ".join(answer.casefold().split())
    found = _NUMBER.findall(marked[-1])
    if not found:
        return False
    return _number(found[0] if len(marked) > 1 else found[-1]) == wanted


def _number(text: str) -> float | None:
    plain = text.strip().replace(",", "")
    return float(plain) if _PLAIN.fullmatch(plain) else None
