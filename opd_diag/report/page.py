"""``report.html``: one self-contained file; and the short form that notebooks show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from opd_diag import plots
from opd_diag.notebook import EDGES
from opd_diag.plots.quantities import FIT_QUANTITIES, quantity
from opd_diag.report import responses, sections
from opd_diag.report.belief import averages_that_disagree, belief, titled
from opd_diag.report.figures import INTRODUCTIONS, Figures
from opd_diag.report.grids import baseline_grid, ending_grid, stratum_grids
from opd_diag.report.logged import logged_lines
from opd_diag.report.markdown import SHOWN_METRICS
from opd_diag.report.measured import limitations, measured, models_of, settings_of
from opd_diag.report.readings import FEWEST_ROLLOUTS, fit_reading
from opd_diag.report.reconciled import reconciled
from opd_diag.report.served import of_server
from opd_diag.report.wording import NEAR_LEGEND, ROUGH, ROUGH_LEGEND, STATES_NAMES, one_line
from opd_diag.stats.rounding import NEAR
from opd_diag.text import STATUS_SYMBOLS, STATUS_WORDS, visible
from opd_diag.verdicts.titles import title_of

if TYPE_CHECKING:
    from opd_diag.report.content import Report


def report_page(report: Report, figures: Figures) -> str:
    """Give the page of `report` as one HTML file that needs nothing else.

    Rollouts, prompts, labels and paths are a user's text: they are escaped, and what a browser would hide is shown.
    """
    splits = sections.splits(report)
    grids = _grids(report)
    return environment().get_template("page.html.j2").render(
        report=report,
        figures=figures,
        style=style(),
        span=sections.checkpoint_span(report),
        alarm=responses.alarm(report),
        belief=belief(report),
        reconciled=reconciled(report),
        served=of_server(report),
        disagreements=averages_that_disagree(report),
        verdicts=sections.sorted_verdicts(report.verdicts),
        splits=[split for split in splits if sections.is_main(split.metric)],
        other_splits=[split for split in splits if not sections.is_main(split.metric)],
        **grids,
        fits=_fits(report),
        fewest=FEWEST_ROLLOUTS,
        banded=plots.has_bands(report.tables.summary),
        signs=_signs(_shown(report, figures, splits)),
        readings=responses.readings(report),
        logged=logged_lines(report),
        measured=measured(report),
        models=models_of(report),
        settings=settings_of(report),
        limitations=limitations(report),
        definitions=sections.definitions(),
        teacher=sections.teacher_names(report),
        intros=INTRODUCTIONS,
    )  # fmt: skip


def _grids(report: Report) -> dict[str, Any]:
    """Give the small tables beside the pictures, by the name the template has for each."""
    return {"baselines": baseline_grid(report), "strata": stratum_grids(report), "endings": ending_grid(report)}


def _fits(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Give every state set that has fits, with (quantity, sentence) of each."""
    summary, fits = report.tables.summary, report.tables.fits
    found = {s: [(m, fit_reading(summary, m, s, fits)) for m in FIT_QUANTITIES] for s in STATES_NAMES}
    told = {STATES_NAMES[s]: [line for line in lines if line[1]] for s, lines in found.items()}
    return [(states, lines) for states, lines in told.items() if lines]


def report_summary(report: Report) -> str:
    """Give headline, verdicts and main numbers as an HTML fragment for a notebook."""
    changes = sections.changes(report, SHOWN_METRICS)
    shown = [*map(sections.value_text, report.verdicts), *(f"{c.first}{c.last}{c.difference}" for c in changes)]
    return (
        environment()
        .get_template("notebook.html.j2")
        .render(
            report=report,
            belief=belief(report),
            verdicts=sections.sorted_verdicts(report.verdicts),
            changes=changes,
            legend="; ".join(_signs(shown)),
        )
    )


def _shown(report: Report, figures: Figures, splits: list[sections.Split]) -> list[str]:
    """Give the texts of the page that may have a sign beside a value."""
    cells = [cell for s in splits for cell in (s.own, s.policy, s.state, s.order, s.teacher) if cell]
    return [
        *map(sections.value_text, report.verdicts),
        *(v.evidence for v in report.verdicts),
        *(panel.reading for panel in figures.panels()),
        *(f"{cell.difference}{getattr(cell, 'values', '')}" for cell in cells),
    ]


def _signs(shown: Sequence[str]) -> list[str]:
    """Say what the signs beside values mean, of those that occur."""
    legends = {NEAR: NEAR_LEGEND, f"{ROUGH}[": ROUGH_LEGEND}
    return [said for sign, said in legends.items() if any(sign in text for text in shown)]


_ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")


def with_arxiv_links(text: str) -> Markup:
    """Escape `text`, and make the papers it names links to arXiv."""
    return Markup(_ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', str(escape(visible(text)))))


_INTERVAL = re.compile(r"~?\[[^\[\]]{1,40}\]")


def unbroken(text: str) -> Markup:
    """Escape `text`, and keep each of its intervals on one line."""
    return Markup(_INTERVAL.sub(r'<span class="range">\g<0></span>', str(escape(text))))


@cache
def environment() -> Environment:
    """Give what renders templates: everything is escaped, nothing undefined passes."""
    made = Environment(
        loader=PackageLoader("opd_diag.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "visible": visible,
        "line": one_line,
        "arxiv": with_arxiv_links,
        "value": sections.value_text,
        "threshold": sections.threshold_text,
        "titled": titled,
        "unbroken": unbroken,
    }
    made.globals |= {
        "sign_terms": {NEAR: "floor", ROUGH: "interval"},
        "symbols": STATUS_SYMBOLS,
        "words": STATUS_WORDS,
        "edges": EDGES,
        "states_names": STATES_NAMES,
        "quantity": quantity,
        "title_of": title_of,
    }
    return made


@cache
def style() -> Markup:
    """Read the style sheet, which is ours and goes into the page as it is."""
    return Markup(files("opd_diag.report").joinpath("templates/page.css").read_text(encoding="utf-8"))
