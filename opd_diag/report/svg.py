"""Pictures as SVG: whole files, and elements of an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from html import escape

from markupsafe import Markup
from matplotlib.axes import Axes

from opd_diag.plots.style import styled


@styled
def svg_of(ax: Axes) -> str:
    """Write the figure of `ax` as SVG; the same figure always gives the same text."""
    text = io.StringIO()
    figure = ax.get_figure(root=True)
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[union-attr]
    return text.getvalue()


_DROPPED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_GLYPH = re.compile(r'<path id="([^"]+)"((?: d="[^"]*")? transform="scale\(0\.015625\)"/>)')
"""A letter: the same id means the same outline in every picture."""
_FONT = "DejaVuSans"
"""The name of the font is in each of a picture's thousand letters; on a page "D" stands for it."""
_PLACED = re.compile(r'(<use [^>]*)transform="translate\(([-\d.]+) ([-\d.]+)\)"/>')
_LENGTHS = re.compile(r' (?:d|x|y|width|height)="[^"]*"|translate\([^)]*\)')
_FINE = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """Turn an SVG file of matplotlib's into an element for an HTML page that has its letters (:func:`letters`).

    Parameters
    ----------
    svg
        The whole file.
    prefix
        Put before every id, so that pictures on one page do not share any.
    alt
        What the picture shows, for those who cannot see it.
    """
    start = svg.index("<svg")
    body = _briefly(_DROPPED.sub("", svg[svg.index(">", start) + 1 :]))
    view = re.search(r'viewBox="([\d. -]+)"', svg[start:])
    shared = {f"#{name}" for name, _ in _GLYPH.findall(body)}
    body = re.sub(r"<defs>\s*</defs>", "", _GLYPH.sub("", body))
    body = re.sub(
        r'(?:xlink:)?href="(#[^"]+)"', lambda m: f'href="#{"" if m[1] in shared else prefix + "-"}{m[1][1:]}"', body
    )
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    used = set(re.findall(rf"#{re.escape(prefix)}-([^\")]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"\n\s*", "\n", body)
    box = view.group(1) if view else "0 0 288 223"
    return Markup(f'<svg class="plot" viewBox="{box}" role="img" aria-label="{escape(alt)}">{body}')


def letters(svgs: Iterable[str]) -> Markup:
    """Give every letter of some SVG files once, as an element that shows nothing; most of a picture is its letters."""
    outlines = {name.replace(_FONT, "D"): rest for svg in svgs for name, rest in _GLYPH.findall(svg)}
    paths = "\n".join(f'<path id="{name}"{rest}' for name, rest in outlines.items())
    return Markup(f'<svg class="letters" width="0" height="0" aria-hidden="true"><defs>\n{paths}\n</defs></svg>')


def _briefly(body: str) -> str:
    """Write a picture's strokes in fewer bytes: to a hundredth of a point, which nobody sees."""
    body = _PLACED.sub(r'\1x="\2" y="\3"/>', body.replace(_FONT, "D")).replace(' y="0"/>', "/>")
    return _LENGTHS.sub(lambda m: _FINE.sub(_rounded, m[0]).replace(" \n", ""), body)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
