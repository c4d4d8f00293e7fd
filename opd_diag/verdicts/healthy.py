"""The conjunction: whether all is as it should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opd_diag.records.verdict import Status, Verdict
from opd_diag.verdicts.task import NO_ANSWERS
from opd_diag.verdicts.titles import title_of

PARTS = (
    "aligned_inputs",
    "false_success",
    "degeneration",
    "alignment_on_policy",
    "alignment_at_start",
    "accuracy",
)
"""What must pass, each of it; accuracy only where there are answers, and of `OF_THE_SETUP` a warning will do."""


OF_THE_SETUP = ("aligned_inputs", "patterns_compatible")
"""Whose warnings are about the pair and its setup, before any training: a run may succeed all the same."""


def healthy(verdicts: Sequence[Verdict]) -> Verdict:
    """Whether the run is healthy: own states, the start's states and the task progress, and no verdict alarms.

    Warnings about the pair and its setup are said, and are no alarm; that these verdicts fail is one.
    """
    failed, warns = ([v.name for v in verdicts if v.status == status] for status in ("fail", "warn"))
    warned, setup = ([n for n in warns if (n in OF_THE_SETUP) == of_setup] for of_setup in (False, True))
    unknown = [v.name for v in verdicts if v.name in PARTS and v.status == "unknown" and NO_ANSWERS not in v.evidence]
    blind = any(v.name == "accuracy" and NO_ANSWERS in v.evidence for v in verdicts)
    status: Status = "fail" if failed else "warn" if warned else "unknown" if unknown else "pass"
    said = {
        "fail": f"{_list(failed)} failed{'; ' + _list(warned) + ' warned' if warned else ''}",
        "warn": f"{_list(warned)} warned",
        "unknown": f"Nothing alarms, but {_list(unknown)} cannot be told",
        "pass": f"{_list([v.name for v in verdicts if v.name in PARTS and v.status == 'pass'])} passed, and nothing "
        f"alarms{'; whether anything was learned at the task is not known' if blind else ''}",
    }[status]
    beside = f"; of the pair and its setup, {_list(setup)} warned" if setup else ""
    seen = f"{said}{beside}."
    nan = math.nan
    return Verdict(
        name="healthy",
        question="Is the run healthy?",
        status=status,
        value=nan,
        ci_low=nan,
        ci_high=nan,
        threshold=nan,
        evidence=f"{seen[0].upper()}{seen[1:]}",
        advice={
            "pass": "Go on; another seed may go otherwise.",
            "warn": "Read the verdicts that warn.",
            "fail": "Read the verdicts that failed, in their order.",
            "unknown": "See what these verdicts say is missing.",
        }[status],
        reference="arXiv 2604.13016, section 4.1 for what success looks like; the conjunction is ours",
        caution="It is no more than its parts: a fault that no verdict looks for is not seen.",
    )


def _list(names: Sequence[str]) -> str:
    titles = [title_of(name) for name in names]
    return " and ".join(filter(None, [", ".join(titles[:-1]), *titles[-1:]]))
