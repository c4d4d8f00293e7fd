"""One picture of a page with the sentence under it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes

from opd_diag.report.svg import inline_svg, svg_of


@dataclass(frozen=True)
class Panel:
    """One picture with the sentence under it."""

    name: str
    """File name without ending, unique on the page."""
    title: str
    term: str
    """Name of the quantity shown, whose definition the page links to."""
    reading: str
    """One sentence computed from the data."""
    svg: str
    """The whole SVG file."""

    @classmethod
    def of(cls, name: str, title: str, term: str, reading: str, ax: Axes) -> Panel:
        """Make the panel of the figure that `ax` is on."""
        return cls(name, title, term, reading, svg_of(ax))

    @property
    def inline(self) -> Markup:
        """The picture as an element of an HTML page, its ids made unique by `name`."""
        return inline_svg(self.svg, self.name, f"{self.title}. {self.reading}")
