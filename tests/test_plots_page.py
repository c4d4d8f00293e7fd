"""The gallery of plots: it shows them all, its code names what exists, its pictures are there and are drawn by it."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from opd_diag import plots, studies
from opd_diag.plots.quantities import QUANTITIES
from opd_diag.tables.assembled import Tables
from pictures.gallery import Block, blocks, drawn, save, thumbnails

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "PLOTS.md").read_text(encoding="utf-8")
SHOWN = [block for block in blocks(PAGE) if block.picture]
PICTURES = ROOT / "pictures" / "plots"


def plot_functions() -> list[str]:
    """Names of public functions that give a picture."""
    found = {name: getattr(plots, name) for name in plots.__all__}
    return [
        name
        for name, of in found.items()
        if inspect.isfunction(of) and inspect.signature(of, eval_str=True).return_annotation in (Axes, Figure)
    ]


def test_every_plot_has_a_place_with_its_code_and_picture():
    assert sorted(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == sorted(plot_functions())
    for name in plot_functions():
        place = PAGE[PAGE.index(f"### `{name}`\n") :].split("\n### ")[0].split("\n## ")[0]
        (block,) = blocks(place)
        assert f"plots.{name}(" in block.code.strip().splitlines()[-1], name
        assert block.picture == f"pictures/plots/{name}.png"
        assert re.search(r"[A-Z].+[.?]", place.split("```")[0].splitlines()[2]), "one sentence of what it answers"


def test_small_pictures_at_the_top_lead_to_every_plot():
    top = PAGE[PAGE.index("<!-- made by") : PAGE.index("<!-- end -->")]
    assert top.split("-->\n", 1)[1] == thumbnails(PAGE)
    assert re.findall(r'href="#(\w+)"', top) == re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)


def test_pictures_are_there_and_small():
    sizes = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert set(sizes) == {Path(block.picture).name for block in SHOWN}
    assert max(sizes.values()) < 60 * 1024
    assert sum(sizes.values()) < 1.5 * 1024**2
    for block in SHOWN:
        with Image.open(ROOT / block.picture) as picture:
            assert 500 <= picture.width <= 1000, block.picture
        assert len(block.alt) > 20


@pytest.mark.parametrize("block", blocks(PAGE), ids=lambda of: Path(of.picture or "no-picture").stem)
def test_code_names_what_exists(block):
    """Functions of our modules, their arguments, the metrics they are given, and tables of a report."""
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("tables"):
            assert node.attr in {field.name for field in fields(Tables)}, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module = {"plots": plots, "studies": studies}.get(getattr(node.func.value, "id", ""))
            if module is not None:
                called = inspect.signature(getattr(module, node.func.attr))
                given = called.bind(*node.args, **{str(k.arg): k.value for k in node.keywords if k.arg})
                metric = given.arguments.get("metric")
                assert metric is None or ast.literal_eval(metric) in QUANTITIES, ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "plots.gone(tables.summary)",
        "plots.alignment_grid(tables.gone)",
        "plots.alignment_grid(runs['new'].tables.gone)",
        "plots.alignment_grid(tables.summary, gone=2)",
        "plots.metric_by_step(tables.summary, 'gone')",
    ],
)
def test_code_that_names_what_is_gone_is_found(line):
    with pytest.raises((AssertionError, AttributeError, TypeError), match="gone"):
        test_code_names_what_exists(Block(line, None, None))


def test_the_program_draws_what_the_last_line_gives_or_what_is_called_figure(tmp_path):
    page = (
        "```python\nfrom opd_diag.plots.style import new_axes\n\nax = new_axes()\n```\n\n"
        "```python\nax.set_title('one')\nax\n```\n\n![First](pictures/plots/first.png)\n\n"
        "```python\nwith open(name, 'w') as file:\n    figure = new_axes().figure\n```\n\n![Second](second.png)\n"
    )
    found = list(drawn(page, {"name": tmp_path / "made"}))
    assert [block for block, _ in found] == [
        Block("ax.set_title('one')\nax\n", "First", "pictures/plots/first.png"), blocks(page)[2],
    ]  # fmt: skip
    assert found[0][1].axes[0].get_title() == "one"
    assert found[1][1] is not found[0][1]
    save(found[0][1], tmp_path / "first.png")
    with Image.open(tmp_path / "first.png") as picture:
        assert picture.size == (720, 558)
    with pytest.raises(TypeError, match="ends in no picture but in 3"):
        list(drawn("```python\n1 + 2\n```\n\n![Third](third.png)\n", {}))
