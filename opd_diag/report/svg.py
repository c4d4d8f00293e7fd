"""Pictures as SVG: whole files, and elements of an HTML page."""

from __future__ import annotations

import io
import re
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


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """Turn an SVG file of matplotlib's into an element for an HTML page.

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
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r"\n\s*", "\n", body)
    box = view.group(1) if view else "0 0 288 223"
    return Markup(f'<svg class="plot" viewBox="{box}" role="img" aria-label="{escape(alt)}">{body}')
