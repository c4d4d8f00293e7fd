"""What tests ask of a page in Chromium; the fixtures `browser` and `open_file` are in conftest.py."""

from __future__ import annotations

import functools
import os
import shutil
from importlib.resources import files

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; set CHROMIUM to its executable"),
]
"""Marks of tests that open pages."""

WIDTHS, SCHEMES = (375, 1280), ("light", "dark")


def unfold(page) -> None:
    """Open all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")


def sideways(page) -> int:
    """How many pixels the page reaches beyond the screen."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def figures_out_of_sight(page) -> list[str]:
    """Figures too small to be read, or beyond the sides of the screen, with their boxes."""
    return page.evaluate(
        """[...document.querySelectorAll('figure svg')]
            .map(e => [e.getBoundingClientRect(), e.getAttribute('aria-label')])
            .filter(([b]) => b.width <= 250 || b.height <= 150 || b.left < 0 || b.right > innerWidth)
            .map(([b, label]) => `${label}: ${b.left} to ${b.right}, ${b.height} high`)"""
    )


@functools.cache
def _axe() -> str:
    """The source of axe-core, as the package that bundles it has it."""
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def accessibility_problems(page) -> list[str]:
    """What axe-core finds on a page as it now stands: rule, impact, and the element with what to do about it.

    Every rule is on: WCAG 2.x A and AA, and best practice. Playwright's scripts are no scripts of the page, so its
    policy stays as it is. Pictures are emptied first: each is one image with a name, its thousands of strokes are
    nothing to a reader, and most of the time would go to them.
    """
    page.evaluate("document.querySelectorAll('svg[role=img]').forEach(picture => picture.replaceChildren())")
    page.evaluate(_axe())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{rule['id']} ({rule['impact']}) at {node['target']}: {node['html'][:300]}\n{node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]
