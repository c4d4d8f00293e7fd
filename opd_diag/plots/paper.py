"""The settings that pictures are drawn and saved in: colours of text, fonts, inches; and others for a paper."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from opd_diag.errors import InputError
from opd_diag.notebook import figure_html

P = ParamSpec("P")
R = TypeVar("R")

INK, MUTED, HAIRLINE = "#1f2933", "#5b6672", "#d5dae0"

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "opd-diag",
}
"""Fonts come with matplotlib and text of SVG is written as paths, so that a picture looks the same on every machine;
of PDF and PostScript it stays text, in TrueType fonts that the file holds."""

PANEL = (4.0, 3.1)
"""Inches; drawn at the width of a phone's screen it is still legible."""

_SIZES = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")


@dataclass(frozen=True)
class Paper:
    """What a picture is drawn for."""

    width: float = PANEL[0]
    """Inches of one panel."""
    height: float = PANEL[1]
    """Inches of one panel."""
    font_size: float = RC["font.size"]
    """Points of the text; titles are a ninth larger, labels and legends a little smaller."""
    fonts: tuple[str, ...] = ()
    """Fonts before DejaVu Sans, the first choice first; all of them are installed."""
    svg_text: bool = False
    """Whether text of SVG stays text."""

    @property
    def scale(self) -> float:
        """How much larger text is than by default."""
        return self.font_size / float(RC["font.size"])

    def settings(self) -> dict[str, Any]:
        """Give matplotlib's settings."""
        settings = RC | {name: RC[name] * self.scale for name in _SIZES}
        settings["svg.fonttype"] = "none" if self.svg_text else "path"
        if self.fonts:
            settings["font.family"] = [*self.fonts, str(RC["font.family"])]
            faces = {"rm": "", "it": ":italic", "bf": ":bold", "cal": "", "sf": "", "tt": ""}
            settings |= {f"mathtext.{name}": self.fonts[0] + face for name, face in faces.items()}
            settings["mathtext.fontset"] = "custom"
        return settings


_PAPER: ContextVar[Paper] = ContextVar("paper", default=Paper())  # noqa: B039 - it is frozen


@contextmanager
def paper_style(
    *,
    width: float = PANEL[0],
    height: float = PANEL[1],
    font_size: float = 9.0,
    font: str | Sequence[str] = (),
    svg_text: bool = False,
) -> Iterator[None]:
    """Draw every picture under it at a size and in letters of your own; save figures that you made yourself under it.

    Parameters
    ----------
    width, height
        Inches of one panel; a figure of several panels is as many times as large.
    font_size
        Points of the text; titles are a ninth larger, labels and legends a little smaller.
    font
        Font, or several in the order of choice; those that are installed are taken, and DejaVu Sans for what they lack.
    svg_text
        Whether text of SVG stays text, that can be searched and edited and needs the font where it is shown; by default
        it is drawn.

    Raises
    ------
    InputError
        None of the fonts is installed, or a size is not above 0.

    Examples
    --------
    >>> from opd_diag.plots.style import new_axes
    >>> with paper_style(width=3.25, height=2.4, font_size=8, font="STIXGeneral"):
    ...     new_axes().figure.get_size_inches().tolist()
    [3.25, 2.4]
    """
    for name, value in (("width", width), ("height", height), ("font_size", font_size)):
        if not 0 < value < 1000:
            raise InputError(f"paper_style: {name} must be above 0 and below 1000, not {value!r}.")
    wanted = [font] if isinstance(font, str) else list(font)
    fonts = [name for name in wanted if _is_installed(name)]
    if wanted and not fonts:
        raise InputError(
            f"paper_style: none of the fonts {', '.join(map(repr, wanted))} is installed. Install one, or take one "
            "that comes with matplotlib: 'STIXGeneral' for Times, 'cmr10' for LaTeX's own, 'DejaVu Serif'."
        )
    paper = Paper(width, height, font_size, tuple(fonts), svg_text)
    token = _PAPER.set(paper)
    try:
        with _in(paper.settings()):
            yield
    finally:
        _PAPER.reset(token)


def _in(settings: dict[str, Any]) -> AbstractContextManager[None]:
    return matplotlib.rc_context(settings)  # type: ignore[arg-type]


def _is_installed(name: str) -> bool:
    return name in font_manager.get_font_names()


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate: draw in the settings of this file, and leave matplotlib's as they were."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _in(_PAPER.get().settings()):
            return draw(*args, **kwargs)

    return drawn


def points(size: float) -> float:
    """Give a length that goes with the letters: `size` points where text has its default size, else in proportion."""
    return size * _PAPER.get().scale


def panel_size(columns: float = 1.0, rows: float = 1.0) -> tuple[float, float]:
    """Give width and height, in inches, of a figure of so many panels."""
    paper = _PAPER.get()
    return paper.width * columns, paper.height * rows


class StyledFigure(Figure):
    """A figure that is saved in the settings that it was made in, whatever matplotlib's are by then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = _PAPER.get().settings()

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save as :meth:`matplotlib.figure.Figure.savefig` does."""
        with _in(self._settings):
            super().savefig(*args, **kwargs)

    def _repr_html_(self) -> str:
        """Show the picture in a notebook."""
        return figure_html(self)
