"""How things read on a terminal, on a page and in a notebook: a user's text made visible, a status with its sign."""

from __future__ import annotations

import unicodedata

STATUS_SYMBOLS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?"}
STATUS_WORDS = {"pass": "pass", "warn": "warning", "fail": "fail", "unknown": "unknown"}

JOINERS = "\u200c\u200d\u200e\u200f"
"""What stays in a text and is not seen."""

_SHORT = {"\n": "\\n", "\t": "\\t"}


def status_text(status: str) -> str:
    """Write a status with its sign, so that no colour is needed to tell it.

    Examples
    --------
    >>> status_text("warn")
    '! warning'
    """
    return f"{STATUS_SYMBOLS[status]} {STATUS_WORDS[status]}"


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Show what a reader would not see, or what would drive a terminal or turn the direction of reading.

    Control characters, bidi overrides, characters of no width, surrogates and noncharacters become their escapes. The
    joiners that scripts and emoji need stay.

    Parameters
    ----------
    text
        A user's, or a file's.
    keep
        Characters that stay as they are. Default: line feeds and tabs.

    Examples
    --------
    >>> visible("a\x00b\ud83d\u202e")
    'a\\x00b\\ud83d\\u202e'
    >>> print(visible("a\x1bb\n", keep=""))
    a\x1bb\n
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or c in JOINERS else _visible(c) for c in text)


def _visible(c: str) -> str:
    point = ord(c)
    if point < 0x20 or point == 0x7F:
        return _SHORT.get(c, f"\\x{point:02x}")
    nonsense = (point & 0xFFFE) == 0xFFFE or 0xFDD0 <= point <= 0xFDEF
    if nonsense or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
    return c
