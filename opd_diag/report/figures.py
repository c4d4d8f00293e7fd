"""Every picture of the page: drawn once, saved as files, and given as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from opd_diag import plots
from opd_diag.plots.concentration import Which
from opd_diag.records.files import write_text
from opd_diag.report.glance import glance
from opd_diag.report.logged import drawn_only_here
from opd_diag.report.maps import MAPPED, has_map, map_panel
from opd_diag.report.panel import Panel
from opd_diag.report.readings import (
    FEWEST_ROLLOUTS,
    called,
    concentration_reading,
    depth_reading,
    ends_of,
    entropy_reading,
    gradient_reading,
    metric_reading,
    row_of,
)
from opd_diag.report.served import bound_panels
from opd_diag.report.svg import letters
from opd_diag.report.tails import tail_panels
from opd_diag.report.wording import STATES_NAMES
from opd_diag.tables.assembled import Tables
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.floors import floors_of
from opd_diag.verdicts.evidence import is_partly_known

ALIGNMENT_GROUPS: dict[str, tuple[str, ...]] = {
    "Agreement": (
        "overlap_ratio",
        "student_overlap_mass",
        "teacher_overlap_mass",
        "overlap_token_advantage",
        "entropy_gap",
        "top1_agreement",
    ),
    "Distance": ("reverse_kl", "forward_kl", "sampled_reverse_kl"),
    "Entropies": ("student_entropy", "teacher_entropy", "entropy_difference"),
    "The responses themselves": (
        "accuracy",
        "truncation_rate",
        "response_length",
        "unigram_entropy",
        "distinct_bigram_ratio",
        "distinct_trigram_ratio",
        "teacher_state_coverage",
    ),
}
"""Small multiples of the section on training, by what they tell."""

GRADIENT, LOGGED = "Where the gradient is", "What else the trainer logged"

INTRODUCTIONS = {
    GRADIENT: "Which tokens the reverse-KL gradient pushes: those among the k most probable of both models, of one "
    "alone, or of neither. Where the shared ones get nearly all of it, a loss on these alone would push much the same "
    "way.",
    LOGGED: "Metrics in the definition of the trainer whose log has them, replayed by the same formula.",
}
"""What a group of pictures shows, where its heading does not say it."""

DEPTH_METRICS = ("overlap_ratio", "reverse_kl", "entropy_gap")

Floors = Mapping[str, float]
"""Precision floor of each metric."""

SETS_IN_FULL = ("on-policy", "start", "teacher")
"""State sets with pictures of their own; `back` serves the split."""


@dataclass(frozen=True)
class Figures:
    """All pictures of a page, by section; a row of panels has a heading."""

    concentration: dict[str, list[Panel]]
    alignment: dict[str, list[Panel]]
    depth: dict[str, list[Panel]]
    entropies: list[Panel]
    glance: list[Panel] = field(default_factory=list)
    """Those under the headline; each is drawn again, with more beside it, in its section."""
    tails: list[Panel] = field(default_factory=list)
    bounds: list[Panel] = field(default_factory=list)

    def panels(self) -> Iterator[Panel]:
        """Go through all panels in the order of the page."""
        yield from self.glance
        for rows in (self.concentration, self.alignment, self.depth):
            for panels in rows.values():
                yield from panels
        yield from self.bounds
        yield from self.tails
        yield from self.entropies

    @property
    def letters(self) -> Markup:
        """What all pictures are written with, once for the page."""
        return letters(panel.svg for panel in self.panels())

    def save(self, folder: Path) -> None:
        """Write every picture but those of the glance to `folder`, each whole or not at all."""
        for panel in self.panels():
            if panel not in self.glance:
                write_text(folder / f"{panel.name}.svg", panel.svg)


def draw_figures(tables: Tables, *, k: int) -> Figures:
    """Draw every picture that `tables` hold data for.

    Parameters
    ----------
    tables
        Tables of the run.
    k
        Tokens compared, for the sentence under concentration curves.
    """
    sets = [s for s in SETS_IN_FULL if (tables.summary["states"] == s).any()]
    floors, partly = floors_of(tables.summary), is_partly_known(tables)
    return Figures(
        concentration={STATES_NAMES[s]: list(_concentration(tables.concentration, s, k, floors)) for s in sets},
        alignment={group: list(_alignment(tables, names)) for group, names in _groups(partly).items()}
        | {LOGGED: list(_alignment(tables, drawn_only_here(tables.logged, ALIGNMENT_GROUPS)))}
        | {GRADIENT: [] if partly else [_gradient(tables.summary, s) for s in sets]},
        depth={STATES_NAMES[s]: list(_depth(tables.depth, s, floors, partly)) for s in sets},
        entropies=[] if partly else list(_entropies(tables.states, floors)),
        glance=glance(tables, k=k),
        bounds=bound_panels(tables),
        tails=[] if partly else tail_panels(tables, SETS_IN_FULL),
    )


def _groups(partly: bool) -> dict[str, tuple[str, ...]]:
    """Give the small multiples; where a server leaves no upper bound of reverse KL, with its estimate."""
    if not partly:
        return ALIGNMENT_GROUPS
    return ALIGNMENT_GROUPS | {"Distance": ("reverse_kl", ESTIMATE, "forward_kl", "sampled_reverse_kl")}


def _concentration(table: pd.DataFrame, states: str, k: int, floors: Floors) -> Iterator[Panel]:
    masses = table.loc[table["states"].isin(STATES_NAMES), ["student_overlap_mass", "teacher_overlap_mass"]]
    least = float(masses.min().min())
    low = max(0.0, int(least * 10) / 10) if least == least else 0.0
    which: Which
    for which in ("student", "teacher"):
        column = f"{which}_overlap_mass"
        yield Panel.of(
            f"concentration-{which}-{states}",
            f"{which.capitalize()} overlap mass against k",
            column,
            concentration_reading(table, states, column, k, floors),
            plots.concentration_curves(table, states=states, which=which, low=low),
        )
    yield Panel.of(
        f"concentration-ratio-{states}",
        "Overlap ratio against k",
        "overlap_ratio",
        concentration_reading(table, states, "overlap_ratio", k, floors),
        plots.overlap_ratio_curves(table, states=states),
    )


def _alignment(tables: Tables, names: tuple[str, ...]) -> Iterator[Panel]:
    for name in names:
        if not (tables.summary["metric"] == name).any():
            continue
        yield Panel.of(
            f"alignment-{name}",
            plots.quantity(name).title,
            name,
            metric_reading(tables.summary, tables.differences, name),
            _curve(tables, name),
        )


def _gradient(summary: pd.DataFrame, states: str) -> Panel:
    return Panel.of(
        f"gradient-{states}",
        f"Tokens the gradient pushes, {STATES_NAMES[states]}",
        "shared_gradient_ratio",
        gradient_reading(summary, states),
        plots.gradient_by_step(summary, states=states),
    )


def _curve(tables: Tables, name: str) -> Axes:
    """Draw the curve of a quantity, with its split under it where there is one."""
    split = tables.split[tables.split["metric"] == name]
    if split["value"].notna().any():
        return plots.metric_with_split(tables.summary, split, name, logged=tables.logged).axes[0]
    return plots.metric_by_step(tables.summary, name, logged=tables.logged)


def _depth(table: pd.DataFrame, states: str, floors: Floors, partly: bool) -> Iterator[Panel]:
    reached = table[table["n_rollouts"] >= FEWEST_ROLLOUTS]  # a few long responses would set the scale of all
    drawn = reached if (reached["states"] == states).any() else table
    of_maps = table[(table["metric"] == MAPPED) & table["states"].isin(SETS_IN_FULL)]
    for name in (ESTIMATE if partly and name == MAPPED else name for name in DEPTH_METRICS):
        if drawn[drawn["metric"] == name]["value"].isna().all() and len(drawn):
            continue  # a server left it open
        if name == MAPPED and has_map(table, states):
            yield map_panel(table, states, floors, plots.heat_limit(of_maps))
            continue
        yield Panel.of(
            f"depth-{name}-{states}",
            f"{plots.quantity(name).title} against position",
            name,
            depth_reading(table, name, states, floors),
            plots.metric_by_depth(drawn, name, states=states),
        )


def _entropies(table: pd.DataFrame, floors: Floors) -> Iterator[Panel]:
    if table.empty:
        return
    first, last = ends_of(table)
    wanted = dict.fromkeys([(first, "on-policy"), *((last, states) for states in SETS_IN_FULL)])
    chosen = {
        (label, states): table[(table["label"] == label) & (table["states"] == states)] for label, states in wanted
    }
    limit = _limit(pd.concat(chosen.values()))
    for i, ((label, states), rows) in enumerate(chosen.items()):
        if rows.empty:
            continue
        row = row_of(rows)
        title = f"{called(label, row['step'] if row is not None else None)}, {STATES_NAMES[states]}"
        drawn = plots.student_against_teacher_entropy(rows, states=states, title=title, limit=limit)
        reading = entropy_reading(rows, floors)
        yield Panel.of(f"entropies-{i}-{states}", f"Entropies at {title}", "entropy_gap", reading, drawn)


def _limit(rows: pd.DataFrame) -> float | None:
    """Give an upper end for both entropies that leaves out at most one state in two hundred."""
    pair = rows[["student_entropy", "teacher_entropy"]].astype(float)
    quantile = float(pair.max(axis=1).quantile(0.995))
    return quantile if math.isfinite(quantile) else None
