"""What our objects show of themselves in a notebook: HTML whose text takes the notebook's colour, light or dark."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

from opd_diag.text import status_text, visible

EDGES = {"pass": "#2e8b57", "warn": "#b7791f", "fail": "#d64545", "unknown": "#7b8794"}
"""Colour of the bar beside an answer. It alone is coloured, and is seen on white and on near black."""

_REM_PER_INCH = 8
"""Letters of a picture, 9 points, become as large as those of a notebook."""

_LEFT = ' style="text-align:left;vertical-align:top"'


def escaped(text: str) -> str:
    r"""Give text as HTML that shows it as it is, and what would not be seen as its escape.

    Examples
    --------
    >>> print(escaped("<a>\x1b\u202e"))
    &lt;a&gt;\x1b\u202e
    """
    return escape(visible(text))


def answer_html(status: str, said: str, lines: Iterable[str] = ()) -> str:
    """Give one answer as a block with a bar in the colour of its status.

    Parameters
    ----------
    status
        ``pass``, ``warn``, ``fail`` or ``unknown``.
    said
        The answer.
    lines
        What it rests on, one below the other.

    Examples
    --------
    >>> answer_html("warn", "a < b", ["32 prompts."])[-57:]
    '<strong>! warning: a &lt; b</strong><br>32 prompts.</div>'
    """
    text = "".join(f"<br>{escaped(line)}" for line in lines)
    edge = f"border-left:6px solid {EDGES[status]};padding:.3em .8em;margin:.5em 0;max-width:60rem"
    return f'<div style="{edge}"><strong>{status_text(status)}: {escaped(said)}</strong>{text}</div>'


def table_html(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """Give a table; columns that hold words are aligned to the left, those of numbers to the right.

    Examples
    --------
    >>> table_html(["", "new"], [["mass", ".99"]], caption="<t>").partition("<thead>")[0]
    '<table><caption>&lt;t&gt;</caption>'
    """
    lines = [list(row) for row in rows]
    looks = [_LEFT if words else "" for words in columns_of_words(columns, lines)]
    head = "".join(f"<th{look}>{escaped(column)}</th>" for look, column in zip(looks, columns, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{look}>{escaped(cell)}</td>' for look, cell in zip(looks, line, strict=True))}</tr>"
        for line in lines
    )
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def columns_of_words(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Say of each column whether it holds words: the first one, and where a cell begins with a letter.

    Examples
    --------
    >>> columns_of_words(["", "n", "why"], [["a", "8 of 32", "left out"]])
    [True, False, True]
    """
    return [n == 0 or any(row[n][:1].isalpha() for row in rows) for n in range(len(columns))]


def figure_html(figure: Any, title: str = "") -> str:
    """Give a matplotlib figure as an image whose letters are those of text, on white paper in a dark notebook too."""
    drawn = BytesIO()
    figure.savefig(drawn, format="svg")
    source = f"data:image/svg+xml;base64,{b64encode(drawn.getvalue()).decode()}"
    look = f"width:{_REM_PER_INCH * figure.get_figwidth():g}rem;max-width:100%;background:#fff"
    return f'<img src="{source}" alt="{escaped(title)}" style="{look}">'
