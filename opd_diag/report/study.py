"""One study, one page: HTML, JSON, its tables and pictures."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opd_diag.records.files import replaced_whole, write_json, write_text
from opd_diag.report.figures import Panel
from opd_diag.report.json_file import records
from opd_diag.report.page import environment, style
from opd_diag.report.responses import reading_of
from opd_diag.report.svg import letters, svg_of

if TYPE_CHECKING:
    from opd_diag.studies import Study


def write_study(study: Study, out_dir: str | Path) -> Path:
    """Write ``<name>.html``, ``<name>.json``, a CSV file of each table and an SVG file of each picture.

    Parameters
    ----------
    study
        From :mod:`opd_diag.studies`.
    out_dir
        Folder; made where it is not there.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        The folder cannot be written to.
    """
    folder = Path(out_dir)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    panels = [Panel(p.name, p.title, "", p.reading, svg_of(p.draw())) for p in study.pictures]
    for name, table in study.tables.items():
        with replaced_whole(folder / f"{name}.csv") as part:
            table.to_csv(part, index=False)
    for panel in panels:
        write_text(folder / f"{panel.name}.svg", panel.svg)
    write_json(folder / f"{study.name}.json", study_record(study, created))
    page = environment().get_template("study.html.j2").render(
        study=study, created=created, panels=panels, style=style(), letters=letters(panel.svg for panel in panels),
        readings=[reading_of(by_label) for by_label in study.excerpts],
    )  # fmt: skip
    write_text(folder / f"{study.name}.html", page)
    return folder / f"{study.name}.html"


def study_record(study: Study, created: str) -> dict[str, object]:
    """Give what ``<name>.json`` holds; NaN is None."""
    return {
        "schema_version": 1,
        "study": study.name,
        "subject": study.subject,
        "headline": study.headline,
        "created": created,
        "verdicts": [verdict.as_record() for verdict in study.verdicts],
        "tables": {name: records(table, list(table.columns)) for name, table in study.tables.items()},
        "measured": list(study.measured),
        "cannot_tell": list(study.cannot_tell),
    }
