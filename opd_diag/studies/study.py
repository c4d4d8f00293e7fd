"""One question a user asks, answered: verdicts with what they rest on, tables, pictures, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opd_diag.notebook import answer_html, columns_of_words, escaped, figure_html, table_html
from opd_diag.records.rollout import Rollout
from opd_diag.records.verdict import Status, Verdict, alarms_first

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Picture:
    """One picture of a study, with the sentence under it."""

    name: str
    """File name without ending."""
    title: str
    reading: str
    """One sentence computed from the data."""
    draw: Callable[[], Any]
    """Draws it on a figure of its own, and gives the matplotlib Axes."""

    def _repr_html_(self) -> str:
        """Show the picture and its sentence in a notebook, on white paper in a dark one too."""
        shown = figure_html(self.draw().figure, self.title)
        return f"{shown}<p>{escaped(self.title)}: {escaped(self.reading)}</p>"


@dataclass(frozen=True)
class Shown:
    """A small table that stands on the page itself, every cell as people read it."""

    title: str
    reading: str
    """One or two sentences: what to see in it."""
    columns: Sequence[str]
    """Headings; the first is that of the rows' names."""
    rows: Sequence[Sequence[str]]
    """Cells by row, as many as there are headings."""

    @property
    def words(self) -> list[bool]:
        """Say of each column whether it holds words, and not numbers."""
        return columns_of_words(self.columns, self.rows)

    def _repr_html_(self) -> str:
        """Show the table and what to see in it in a notebook."""
        return f"{table_html(self.columns, self.rows, caption=self.title)}<p>{escaped(self.reading)}</p>"


@dataclass(frozen=True)
class Study:
    """A question, answered on a user's own models."""

    name: str
    """Fixed name, as the command has it."""
    question: str
    """In plain words."""
    headline: str
    """The answer in one line."""
    subject: str
    """What was looked at: the name of the run, or of the models."""
    verdicts: Sequence[Verdict]
    """Answers, the main one first."""
    tables: Mapping[str, pd.DataFrame]
    """What they rest on, by file name; columns are described where each is made."""
    pictures: Sequence[Picture]
    measured: Sequence[str]
    """What was measured and how, one sentence each."""
    cannot_tell: Sequence[str]
    """What no number here says, one sentence each."""
    shown: Sequence[Shown] = ()
    """Tables to be read on the page, before the pictures."""
    excerpts: Sequence[Mapping[str, Rollout]] = ()
    """Responses to be read, prompt by prompt, by the label of who wrote them."""
    excerpts_intro: str = ""
    """Which these are, one sentence."""

    facts: Sequence[str] = ()
    """Lines under the headline; default: what each verdict saw, without what follows its first semicolon."""
    headline_status: Status | None = None
    """Of the headline, where it is not that of the most urgent verdict: one good teacher among several is good news."""

    compares: bool = False
    """Whether it sets things side by side: a pass is then an answer, and neither good nor bad news."""

    @property
    def status(self) -> Status:
        """Of the headline."""
        return self.headline_status or self.answer.status

    def _repr_html_(self) -> str:
        """Show headline, facts, small tables and verdicts in a notebook."""
        lines = [*self.said, f"What to do: {self.advice}"] if self.advice else self.said
        return answer_html(self.status, self.headline, lines) + "".join(shown._repr_html_() for shown in self.shown)

    @property
    def said(self) -> Sequence[str]:
        """Lines under the headline."""
        return self.facts or [v.evidence.split("; ")[0].rstrip(".") + "." for v in self.verdicts]

    @property
    def advice(self) -> str:
        """What to do, where the headline alarms; else empty."""
        return self.answer.advice if self.status in ("warn", "fail") else ""

    @property
    def answer(self) -> Verdict:
        """The most urgent of the verdicts; of equally urgent ones the first."""
        return alarms_first(self.verdicts)[0]
