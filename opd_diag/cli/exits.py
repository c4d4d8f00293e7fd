"""Exit codes: which verdicts make a command fail."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from opd_diag.records.selftest import SelfTest
    from opd_diag.records.verdict import Verdict


class FailOn(StrEnum):
    """Which verdicts make the exit code 1."""

    never = "never"
    fail = "fail"
    warn = "warn"
    unknown = "unknown"


def failing(fail_on: FailOn) -> tuple[str, ...]:
    """Give the statuses that fail."""
    return {
        FailOn.never: (),
        FailOn.fail: ("fail",),
        FailOn.warn: ("fail", "warn"),
        FailOn.unknown: ("fail", "warn", "unknown"),
    }[fail_on]


def exit_on(answers: Sequence[Verdict | SelfTest], fail_on: FailOn) -> None:
    """End with 1 if an answer is as bad as `fail_on` says."""
    if any(answer.status in failing(fail_on) for answer in answers):
        raise typer.Exit(1)
