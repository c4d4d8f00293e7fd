"""The responses a page gives to be read, and what it says before all else of a false success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from opd_diag.records.rollout import Rollout
from opd_diag.records.verdict import Verdict
from opd_diag.report.wording import count
from opd_diag.text import visible

if TYPE_CHECKING:
    from opd_diag.report.content import Report

MOST_CHARACTERS = 4000
"""Characters of one text shown on the page; the rest is counted there and kept in ``rollouts/``."""


@dataclass(frozen=True)
class Text:
    """A user's text as the page shows it."""

    shown: str
    left_out: int
    """Characters not shown."""


def text_of(text: str) -> Text:
    """Make a text visible, and cut it at the most a page shows."""
    return Text(visible(text[:MOST_CHARACTERS]), max(0, len(text) - MOST_CHARACTERS))


STOPS = {"stop": "ended by itself", "length": "cut at the length limit", "unknown": "end not recorded"}


@dataclass(frozen=True)
class Response:
    """One response to be read."""

    checkpoint: str
    text: Text
    length: str
    stop: str
    is_correct: bool | None


@dataclass(frozen=True)
class Reading:
    """One prompt, and what each checkpoint answered."""

    prompt_id: str
    prompt: Text
    answer: str
    responses: list[Response]


def readings(report: Report) -> list[Reading]:
    """Put the excerpts of the first and the last checkpoint and of the teacher side by side, prompt by prompt."""
    together: dict[tuple[int, int], dict[str, Rollout]] = {}
    for label, rollouts in report.excerpts.items():
        for rollout in rollouts:
            together.setdefault((rollout.prompt_index, rollout.rollout_index), {})[label] = rollout
    return [reading_of(by_label) for by_label in together.values()]


@dataclass(frozen=True)
class Alarm:
    """What a false success looks like: the verdict, and how the student answered one prompt before and after."""

    verdict: Verdict
    reading: Reading | None
    """With two responses; None where none were kept."""


def alarm(report: Report) -> Alarm | None:
    """Give what the page must say before all else; None unless the run is a false success."""
    verdict = next((v for v in report.verdicts if v.name == "false_success" and v.status == "fail"), None)
    if verdict is None:
        return None
    labels = list(report.excerpts)[:2]
    both = []
    for reading in readings(report):
        ends = [r for r in reading.responses if r.checkpoint in labels]
        if len(ends) == 2:
            both.append(replace(reading, responses=ends))
    both.sort(key=lambda reading: reading.responses[1].is_correct is True)  # one that went well would not show it
    return Alarm(verdict, both[0] if both else None)


def reading_of(by_label: Mapping[str, Rollout]) -> Reading:
    """Put responses to one prompt side by side, by the label of who wrote them."""
    one = next(iter(by_label.values()))
    return Reading(
        prompt_id=one.prompt_id,
        prompt=text_of(one.prompt_text),
        answer="" if one.answer is None else one.answer,
        responses=[
            Response(
                checkpoint=label,
                text=text_of(rollout.response_text),
                length=count(len(rollout.response_ids), "token"),
                stop=STOPS[rollout.stop_reason],
                is_correct=rollout.is_correct,
            )
            for label, rollout in by_label.items()
        ],
    )
