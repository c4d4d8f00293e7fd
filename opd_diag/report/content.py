"""What a report of one run holds, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import replaced_whole, write_text
from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict

if TYPE_CHECKING:
    from opd_diag.report.shown_tokens import TokenView
    from opd_diag.tables.assembled import Tables
    from opd_diag.verdicts.headline import Headline


@dataclass(frozen=True)
class Report:
    """One run, diagnosed: verdicts, the tables they rest on, and what was measured."""

    run: str
    """Name of the run."""
    created: str
    """When, ISO 8601."""
    out_dir: Path
    """Where :meth:`write` puts the files."""
    provenance: dict[str, Any]
    """What was measured and how: models, prompts, settings, versions, command."""
    headline: Headline
    """The whole in one line, and the facts behind it."""
    verdicts: list[Verdict]
    checkpoints: list[Checkpoint]
    """All that were found, those that cannot be loaded too."""
    tables: Tables
    excerpts: dict[str, list[Rollout]] = field(default_factory=dict)
    """Label of a checkpoint → some of its rollouts, to be read; the first and the last checkpoint, then the teacher."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know besides, one sentence each."""
    selftests: Sequence[SelfTest] = ()
    """What the measurement said of itself, before any verdict."""
    tokens: TokenView | None = None
    """Some responses token by token; None where nothing was scored."""

    @property
    def k(self) -> int:
        """Tokens compared."""
        known = self.tables.summary["k"].dropna()
        return int(known.iloc[0]) if len(known) else 16

    def write(self, out_dir: str | Path | None = None) -> Path:
        """Write ``report.html``, ``.json`` and ``.md``, tables and ``figures``.

        Parameters
        ----------
        out_dir
            Folder; by default the report's own.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        StoreError
            The folder cannot be written to.
        """
        from opd_diag.report.figures import draw_figures
        from opd_diag.report.json_file import write_report_json
        from opd_diag.report.markdown import report_markdown
        from opd_diag.report.page import report_page

        folder = self.out_dir if out_dir is None else Path(out_dir)
        figures = draw_figures(self.tables, k=self.k)
        figures.save(folder / "figures")
        _write_table(folder, "summary", self.tables.summary)
        _write_table(folder, "strata", self.tables.strata)
        _write_table(folder, "averages", self.tables.averages)
        _write_table(folder, "logged", self.tables.logged)
        write_report_json(folder / "report.json", self)
        write_text(folder / "report.md", report_markdown(self))
        write_text(folder / "report.html", report_page(self, figures))
        return folder / "report.html"

    def _repr_html_(self) -> str:
        """Show headline, verdicts and main numbers in a notebook."""
        from opd_diag.report.page import report_summary

        return report_summary(self)


def _write_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    with replaced_whole(folder / f"{name}.csv") as part:
        table.to_csv(part, index=False)
    with replaced_whole(folder / f"{name}.parquet") as part:
        table.to_parquet(part, index=False)
