"""The same picture gives the same text, and pictures on one page keep to themselves."""

from __future__ import annotations

import re

import numpy as np
from plots.synthetic_run import SyntheticRun

from opd_diag.plots import metric_by_step
from opd_diag.report.svg import inline_svg, letters, svg_of


def drawn() -> str:
    return svg_of(metric_by_step(SyntheticRun().summary, "reverse_kl"))


def test_same_picture_same_text():
    assert drawn() == drawn()


def test_inline_svg_keeps_to_itself():
    svg = inline_svg(drawn(), "here", 'a "name" <b>')
    assert svg.startswith('<svg class="plot" viewBox="')
    assert 'aria-label="a &quot;name&quot; &lt;b&gt;"' in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert ids
    assert all(i.startswith("here-") for i in ids)
    used = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
    shared = re.findall(r'\bid="([^"]+)"', letters([drawn()]))
    assert shared
    assert set(ids) <= set(used) <= {*ids, *shared}
    for absent in ("<style", "<metadata", "<?xml", "<!", "xlink"):
        assert absent not in svg


def test_two_pictures_share_no_id():
    one, two = (set(re.findall(r'\bid="([^"]+)"', inline_svg(drawn(), name, ""))) for name in ("a", "b"))
    assert not one & two


def test_no_date_in_the_file():
    assert "<dc:date>" not in drawn()


def test_letters_stand_on_a_page_once():
    """They are four fifths of a picture, and the same in all of them."""
    one = drawn()
    alone, together = letters([one]), letters([one, one])
    assert alone == together
    assert "<path" in alone
    assert len(inline_svg(one, "a", "")) < 0.6 * len(one)


def numbers(svg: str, *attributes: str) -> np.ndarray:
    """Give every number of some attributes, in the order of the file."""
    found = re.findall(rf' (?:{"|".join(attributes)})="([^"]*)"', svg)
    return np.array([float(n) for value in found for n in re.findall(r"-?\d+\.?\d*", value)])


def test_strokes_and_letters_are_where_the_file_has_them():
    """To half a hundredth of a point, or of a hundredth of a letter's size."""
    whole = re.sub(r"<defs>\s*<style.*", "", drawn())
    whole = re.sub(r'<path id="DejaVu[^>]*>', "", whole)
    brief = inline_svg(drawn(), "here", "")
    strokes, briefly = numbers(whole, "d"), numbers(brief, "d")
    assert len(strokes) == len(briefly) > 200
    assert 0 < np.abs(strokes - briefly).max() <= 0.005 + 1e-9
    moved = r'(?: transform="translate\(([\d.]+) ([-\d.]+)\)")?'
    placed = re.findall(rf'<use xlink:href="#(DejaVuSans[^"]*)"{moved}/>', whole)
    letters_at = re.findall(r'<use href="#(D-[^"]*)"(?: x="([\d.]+)")?(?: y="([-\d.]+)")?/>', brief)
    assert len(placed) == len(letters_at) > 50
    for (name, x, y), (short, brief_x, brief_y) in zip(placed, letters_at, strict=True):
        assert name.removeprefix("DejaVuSans") == short.removeprefix("D")
        assert abs(float(x or 0) - float(brief_x or 0)) <= 0.005 + 1e-9
        assert abs(float(y or 0) - float(brief_y or 0)) <= 0.005 + 1e-9
