"""One question a user asks, answered: verdicts with what they rest on, tables, pictures, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

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
    """Lines under the headline; default: what each verdict rests on."""
    headline_status: Status | None = None
    """Of the headline, where it is not that of the most urgent verdict: one good teacher among several is good news."""

    @property
    def status(self) -> Status:
        """Of the headline."""
        return self.headline_status or self.answer.status

    def _repr_html_(self) -> str:
        """Show headline, facts, small tables and verdicts in a notebook."""
        lines = [f"<p><strong>{escape(self.status)}</strong>: {escape(self.headline)}</p>"]
        facts = self.facts or [verdict.evidence for verdict in self.verdicts]
        lines.append(f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul>")
        lines += [_as_html(shown) for shown in self.shown]
        return "".join(lines)

    @property
    def answer(self) -> Verdict:
        """The most urgent of the verdicts; of equally urgent ones the first."""
        return alarms_first(self.verdicts)[0]


def _as_html(shown: Shown) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in shown.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in shown.rows)
    return f"<table><caption>{escape(shown.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
