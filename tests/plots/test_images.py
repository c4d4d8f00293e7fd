"""Three pictures, pixel by pixel, against the files in ``baselines``; CONTRIBUTING.md says how to make these anew."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from opd_diag.plots import concentration_curves, gradient_by_step, metric_with_split
from plots.synthetic_run import SyntheticRun

BASELINES = Path(__file__).parent / "baselines"
DRAWN_WITH = "3.11.2"
"""Matplotlib of the baselines, pinned in constraints.txt: another version moves letters by parts of a pixel."""

TOLERANCE = 1.0
"""Root mean square of the differences of pixels, of 255. With the pinned matplotlib, whose wheels bring their own
FreeType and fonts, pictures are equal to the pixel (0.0); what is left is for the rounding of another processor. One
point of one curve that moves by a hundredth of its axis gives 3.9 and more."""


@pytest.fixture(autouse=True)
def settings_of_nobody():
    """Draw as if no matplotlibrc were on this machine."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def _concentration(run: SyntheticRun) -> Figure:
    return concentration_curves(run.concentration, low=0.0).figure


def _split(run: SyntheticRun) -> Figure:
    return metric_with_split(run.summary, run.split, "reverse_kl")


def _gradient(run: SyntheticRun) -> Figure:
    return gradient_by_step(run.summary).figure


PICTURES = {"concentration_curves": _concentration, "metric_with_split": _split, "gradient_by_step": _gradient}


def differs(figure: Figure, name: str, folder: Path) -> str | None:
    """Say how a picture differs from its baseline; None: it does not."""
    figure.savefig(folder / f"{name}.png", dpi=80, metadata={"Software": None})
    return compare_images(str(BASELINES / f"{name}.png"), str(folder / f"{name}.png"), TOLERANCE)


@pytest.mark.parametrize("name", PICTURES)
def test_looks_as_its_baseline(run, name, tmp_path):
    said = differs(PICTURES[name](run), name, tmp_path)
    assert said is None, f"{said}\nbaselines: matplotlib {DRAWN_WITH}, this one: {matplotlib.__version__}"


def moved(table: pd.DataFrame, column: str, by: float, **which: object) -> pd.DataFrame:
    """Give a table with one value of one curve moved."""
    table = table.copy()
    rows = pd.Series(True, index=table.index)
    for name, value in which.items():
        rows &= table[name] == value
    assert rows.sum() == 1
    table.loc[rows, column] += by
    return table


def test_one_point_of_one_line_that_moves_a_little_is_seen(run, tmp_path):
    other = copy(run)
    point = {"label": "step 50", "states": "on-policy", "k": 8}
    other.concentration = moved(run.concentration, "student_overlap_mass", -0.01, **point)
    assert "RMS Value" in differs(_concentration(other), "concentration_curves", tmp_path)
    point = {"label": "step 50", "metric": "reverse_kl", "part": "policy_change"}
    other.split = moved(run.split, "value", 0.05, **point)
    assert "RMS Value" in differs(_split(other), "metric_with_split", tmp_path)
    point = {"label": "step 50", "states": "on-policy", "metric": "shared_gradient_ratio"}
    other.summary = moved(run.summary, "value", -0.01, **point)
    assert "RMS Value" in differs(_gradient(other), "gradient_by_step", tmp_path)


def test_baselines_are_small_and_all_in_use():
    files = {path.stem: path.stat().st_size for path in BASELINES.iterdir()}
    assert set(files) == set(PICTURES)
    assert max(files.values()) < 60 * 1024


if __name__ == "__main__":
    matplotlib.rcdefaults()
    for called, draw in PICTURES.items():
        draw(SyntheticRun()).savefig(BASELINES / f"{called}.png", dpi=80, metadata={"Software": None})
