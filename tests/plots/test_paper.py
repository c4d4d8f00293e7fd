"""Sizes, letters and fonts of a paper, and that files are saved as they were drawn."""

from __future__ import annotations

import io
import re
import zlib

import matplotlib
import pytest
from matplotlib.figure import Figure

from opd_diag.errors import InputError
from opd_diag.plots import alignment_grid, metric_by_step, metric_with_split, paper_style
from opd_diag.plots.style import new_axes, say


def saved(figure, kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()


def fonts_of(pdf: bytes) -> set[str]:
    """Names of the fonts that a PDF holds, with their kind."""
    objects = [pdf, *map(_inflated, re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL))]
    text = b"".join(objects)
    assert b"/FontFile2" in text, "a TrueType font is embedded"
    return {m.decode() for m in re.findall(rb"/Subtype /(Type3|CIDFontType2|TrueType)", text)}


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_text_of_a_pdf_is_text_in_embedded_truetype_fonts(run):
    pdf = saved(metric_by_step(run.summary, "reverse_kl").figure, "pdf")
    assert fonts_of(pdf) == {"CIDFontType2"}
    assert b"DejaVuSans" in pdf


def test_so_is_that_of_figures_of_several_panels(run):
    assert fonts_of(saved(alignment_grid(run.summary, ["reverse_kl", "entropy_gap"]), "pdf")) == {"CIDFontType2"}
    assert fonts_of(saved(metric_with_split(run.summary, run.split, "reverse_kl"), "pdf")) == {"CIDFontType2"}


def test_a_figure_of_ones_own_takes_the_settings_under_paper_style(run):
    figure = Figure(layout="constrained")
    with paper_style():
        metric_by_step(run.summary, "reverse_kl", ax=figure.add_subplot())
        assert fonts_of(saved(figure, "pdf")) == {"CIDFontType2"}
    assert matplotlib.rcParams["pdf.fonttype"] == 3


def test_text_of_an_svg_is_drawn_unless_it_is_asked_for(run):
    ax = metric_by_step(run.summary, "reverse_kl")
    assert b"<text" not in saved(ax.figure, "svg")
    with paper_style(svg_text=True):
        ax = metric_by_step(run.summary, "reverse_kl")
    assert b">own states</text>" in saved(ax.figure, "svg"), "also saved later"


def test_sizes_in_inches_and_points(run):
    with paper_style(width=3.25, height=2.4, font_size=6.0):
        ax = metric_by_step(run.summary, "reverse_kl")
        grid = alignment_grid(run.summary, ["reverse_kl", "entropy_gap"])
        split = metric_with_split(run.summary, run.split, "reverse_kl")
    assert ax.figure.get_size_inches().tolist() == [3.25, 2.4]
    assert grid.get_size_inches().tolist() == [6.5, 2.4]
    assert split.get_size_inches().tolist() == pytest.approx([3.25, 4.32])
    assert ax.xaxis.label.get_size() == pytest.approx(8.5 * 6 / 9)
    assert ax.get_legend().get_texts()[0].get_size() == pytest.approx(8 * 6 / 9)
    assert b"/MediaBox [ 0 0 234 172.8 ]" in saved(ax.figure, "pdf")
    assert new_axes().figure.get_size_inches().tolist() == [4.0, 3.1]


def test_text_that_has_a_size_of_its_own_goes_with_it():
    with paper_style(font_size=18):
        ax = new_axes()
        say(ax, "nothing")
    assert ax.texts[0].get_size() == 17.0


def test_the_legend_keeps_clear_of_the_axis_in_other_sizes(run):
    for size in (6.0, 9.0, 14.0):
        with paper_style(width=4.5, height=3.5, font_size=size):
            ax = metric_by_step(run.summary, "reverse_kl")
            ax.figure.draw_without_rendering()
            legend = ax.get_legend().get_window_extent()
            assert legend.y1 < ax.xaxis.label.get_window_extent().y0
            assert legend.x0 >= -1
            assert legend.x1 <= 450 + 1


def test_the_first_font_that_is_installed_is_taken_also_for_symbols(run):
    with paper_style(font=["No such font", "STIXGeneral"]):
        ax = metric_by_step(run.summary, "reverse_kl")
    pdf = saved(ax.figure, "pdf")
    assert b"STIXGeneral-Italic" in pdf, "p and q of the axis"
    assert ax.xaxis.label.get_fontfamily() == ["STIXGeneral", "DejaVu Sans"]


def test_wrong_settings_are_one_sentence():
    with pytest.raises(InputError) as caught, paper_style(font=["No such font", "Nor this"]):
        pass
    assert str(caught.value) == (
        "paper_style: none of the fonts 'No such font', 'Nor this' is installed. Install one, or take one that comes "
        "with matplotlib: 'STIXGeneral' for Times, 'cmr10' for LaTeX's own, 'DejaVu Serif'."
    )
    for name in ("width", "height", "font_size"):
        with pytest.raises(InputError) as caught, paper_style(**{name: 0}):
            pass
        assert str(caught.value) == f"paper_style: {name} must be above 0 and below 1000, not 0."


def test_settings_end_with_the_block_also_after_an_error():
    with pytest.raises(KeyError), paper_style(width=2):
        raise KeyError("x")
    assert new_axes().figure.get_size_inches().tolist() == [4.0, 3.1]
