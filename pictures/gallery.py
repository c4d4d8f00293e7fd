"""Makes the pictures of PLOTS.md by running its code: ``python -m pictures.gallery [FOLDER]``.

Every block of Python on the page is run, in order, in one namespace, in FOLDER (default ``opd-diag/gallery``), where
reports and studies stay, so that a second time they are read. What the last line of a block gives, or else what is
called ``figure`` after it, becomes the picture under the block.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "PLOTS.md"
THUMBNAILS = re.compile(r"(<!-- made by: python -m pictures.gallery -->\n).*?(<!-- end -->)", re.DOTALL)

DPI, MOST_PIXELS = 180.0, 1000
"""Pixels an inch, fewer where a picture would be wider than that."""
COLOURS = 64
"""Colours of a file: pictures have few, and letters need some shades between."""

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n!\[(?P<alt>[^\]]*)\]\((?P<picture>[^)]+)\))?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Code on the page, and the picture under it."""

    code: str
    alt: str | None
    """What the picture shows, for those who cannot see it; None: no picture."""
    picture: str | None
    """Its file, as the page names it."""


def blocks(page: str) -> list[Block]:
    """Give the code on a page, in order."""
    return [Block(m["code"], m["alt"], m["picture"]) for m in _BLOCK.finditer(page)]


def drawn(page: str, names: dict[str, Any]) -> Iterator[tuple[Block, Figure]]:
    """Run the code of a page; give every picture as soon as it is drawn.

    Parameters
    ----------
    page
        The page.
    names
        What the code knows already; what it makes is put there.
    """
    for block in blocks(page):
        value = _run(block.code, names)
        if block.picture is not None:
            if not isinstance(value, Artist):
                raise TypeError(f"{block.picture}: the code over it ends in no picture but in {value!r}")
            yield block, value.get_figure(root=True) if not isinstance(value, Figure) else value  # type: ignore[misc]


def _run(code: str, names: dict[str, Any]) -> Any:
    """Run code; give the value of its last line, or of the name ``figure`` where that line has none."""
    *body, last = ast.parse(code).body
    if isinstance(last, ast.Expr):
        exec(compile(ast.Module(body, []), str(PAGE), "exec"), names)
        return eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
    exec(compile(ast.Module([*body, last], []), str(PAGE), "exec"), names)
    return names.get("figure")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG."""
    width = figure.get_size_inches()[0]
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=min(DPI, MOST_PIXELS / width))
    Image.open(raw).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def thumbnails(page: str) -> str:
    """Give the pictures of a page as small ones in a row, each a link to its place."""
    shown = [b for b in blocks(page) if b.picture and f"### `{Path(b.picture).stem}`" in page]
    return "".join(
        f'<a href="#{Path(b.picture or "").stem}"><img src="{b.picture}" alt="{b.alt}" width="190"></a>\n'
        for b in shown
    )


def main() -> None:
    """Draw all pictures of the page, and put the small ones at its top."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "opd-diag" / "gallery")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # models this small lose more to threads than they gain
    page = PAGE.read_text(encoding="utf-8")
    with chdir(folder):
        for block, figure in drawn(page, {}):
            path = ROOT / str(block.picture)
            save(figure, path)
            print(f"{os.path.getsize(path) / 1024:5.0f} KB  {block.picture}", flush=True)
    page = THUMBNAILS.sub(lambda m: m[1] + thumbnails(page) + m[2], page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
