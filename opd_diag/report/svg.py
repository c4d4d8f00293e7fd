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
    body = _DROPPED.sub("", svg[svg.index(">", start) + 1 :])
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
    outlines = {name: rest for svg in svgs for name, rest in _GLYPH.findall(svg)}
    paths = "\n".join(f'<path id="{name}"{rest}' for name, rest in outlines.items())
    return Markup(f'<svg class="letters" width="0" height="0" aria-hidden="true"><defs>\n{paths}\n</defs></svg>')
