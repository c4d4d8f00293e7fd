"""``report.html``: one self-contained file; and the short form that notebooks show."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from opd_diag.plots.quantities import quantity
from opd_diag.report import responses, sections
from opd_diag.report.figures import INTRODUCTIONS, Figures
from opd_diag.report.markdown import SHOWN_METRICS
from opd_diag.report.measured import limitations, measured, models_of, settings_of
from opd_diag.report.wording import NEAR_LEGEND, STATES_NAMES, STATUS_SYMBOLS, STATUS_WORDS, one_line, visible
from opd_diag.stats.rounding import NEAR

if TYPE_CHECKING:
    from opd_diag.report.content import Report


def report_page(report: Report, figures: Figures) -> str:
    """Give the page of `report` as one HTML file that needs nothing else.

    Rollouts, prompts, labels and paths are a user's text: they are escaped, and what a browser would hide is shown.
    """
    splits = sections.splits(report)
    return _environment().get_template("page.html.j2").render(
        report=report,
        figures=figures,
        style=_style(),
        span=sections.checkpoint_span(report),
        alarm=responses.alarm(report),
        splits=splits,
        legend=_legend(report, figures, splits),
        readings=responses.readings(report),
        measured=measured(report),
        models=models_of(report),
        settings=settings_of(report),
        limitations=limitations(report),
        definitions=sections.definitions(),
        teacher=_teacher(report),
        intros=INTRODUCTIONS,
    )  # fmt: skip


def report_summary(report: Report) -> str:
    """Give headline, verdicts and main numbers as an HTML fragment for a notebook."""
    changes = sections.changes(report, SHOWN_METRICS)
    shown = [*map(sections.value_text, report.verdicts), *(f"{c.first}{c.last}{c.difference}" for c in changes)]
    legend = NEAR_LEGEND if any(NEAR in text for text in shown) else ""
    return _environment().get_template("notebook.html.j2").render(report=report, changes=changes, legend=legend)


def _legend(report: Report, figures: Figures, splits: list[sections.Split]) -> str:
    """Give what the sign of values near the floor means, where any is on the page."""
    cells = [cell for s in splits for cell in (s.own, s.policy, s.state, s.order, s.teacher) if cell]
    shown = [
        *map(sections.value_text, report.verdicts),
        *(v.evidence for v in report.verdicts),
        *(panel.reading for panel in figures.panels()),
        *(f"{cell.difference}{getattr(cell, 'values', '')}" for cell in cells),
    ]
    return NEAR_LEGEND if any(NEAR in text for text in shown) else ""


_ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")


def with_arxiv_links(text: str) -> Markup:
    """Escape `text`, and make the papers it names links to arXiv."""
    return Markup(_ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', str(escape(visible(text)))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("opd_diag.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "visible": visible,
        "line": one_line,
        "arxiv": with_arxiv_links,
        "value": sections.value_text,
        "threshold": sections.threshold_text,
    }
    environment.globals |= {
        "symbols": STATUS_SYMBOLS,
        "words": STATUS_WORDS,
        "states_names": STATES_NAMES,
        "quantity": quantity,
    }
    return environment


@cache
def _style() -> Markup:
    """Read the style sheet, which is ours and goes into the page as it is."""
    return Markup(files("opd_diag.report").joinpath("templates/page.css").read_text(encoding="utf-8"))


def _teacher(report: Report) -> str:
    names = list(dict.fromkeys(report.tables.summary["teacher"].astype(str)))
    return ", ".join(names)
