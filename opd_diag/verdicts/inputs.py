"""Whether the measurement itself can be believed, and which verdicts fall with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Status, Verdict
from opd_diag.verdicts.unanswered import unknown

PAIR = ("self_teacher", "shift", "vocabulary", "template", "batches", "repeatability", "ends")
"""Self-tests that every number about both models at the same states rests on."""

OWN_STATES = (*PAIR, "logprobs")
"""And that own states are what the checkpoint would sample."""

WRITTEN = ("template", "ends", "logprobs")
"""Self-tests that what is said of the responses alone rests on."""

RESTS_ON: dict[str, tuple[str, ...]] = {
    "false_success": OWN_STATES,
    "degeneration": WRITTEN,
    "alignment_on_policy": OWN_STATES,
    "alignment_at_start": OWN_STATES,
    "alignment_at_teacher": OWN_STATES,
    "accuracy": WRITTEN,
    "patterns_compatible": OWN_STATES,
    "indistinguishable_teacher": OWN_STATES,
    "new_capability": WRITTEN,
    "sharpness": OWN_STATES,
    "termination": OWN_STATES,
    "concentrated_signal": OWN_STATES,
    "depth_decay": OWN_STATES,
    "shared_mass": OWN_STATES,
    "entropy_gap": OWN_STATES,
}
"""Which verdict rests on which self-tests: one of them failed, and the verdict is unknown."""


def aligned_inputs(selftests: Sequence[SelfTest]) -> Verdict:
    """Whether student and teacher were shown the same tokens at the same places: no self-test failed.

    A self-test that warns tells of the pair and not of the measurement (other stop tokens, another template): both
    models were scored at the very same tokens, as training had them. So numbers stand, and inputs get a warning.
    """
    name, question = "aligned_inputs", "Are the inputs aligned, so that the numbers can be believed?"
    asked = [test for test in selftests if test.status != "unknown"]
    if not asked:
        none = "No self-test was run." if not selftests else f"None of {len(selftests)} self-tests could be asked."
        return unknown(name, question, none, "Run opd-diag doctor, or report again.")
    failed, warned = ([test for test in asked if test.status == status] for status in ("fail", "warn"))
    status: Status = "fail" if failed else "warn" if warned else "pass"
    silent = len(selftests) - len(asked)
    unasked = f", {silent} could not be asked" if silent else ""
    names = ", ".join(dict.fromkeys(test.name for test in asked))
    odd = " and ".join(f"{len(of)} {word}" for of, word in ((failed, "failed"), (warned, "warned")) if of)
    seen = (
        f"Of {len(asked)} self-tests {odd}{unasked}: {' '.join(map(_said, (*failed, *warned)))}"
        if odd
        else f"All {len(asked)} self-tests passed{unasked}: {names}."
    )
    nan = math.nan
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=nan,
        ci_low=nan,
        ci_high=nan,
        threshold=nan,
        evidence=seen,
        advice=(*failed, *warned)[0].advice if odd else "Go on to the other verdicts.",
        reference="Ours: self-tests before belief; faults of this kind: TRL 4561 and 6437, AReaL 1728, rllm 356",
        caution="A self-test sees the faults that it was made for; what it could not ask stays open.",
    )


def believed(verdict: Verdict, selftests: Sequence[SelfTest], rests_on: Sequence[str] | None = None) -> Verdict:
    """Give the verdict, or, where a self-test that it rests on (default: by `RESTS_ON`) failed, ``unknown`` and why."""
    names = RESTS_ON.get(verdict.name, ()) if rests_on is None else rests_on
    failed = [t for t in selftests if t.status == "fail" and t.name in names]
    if not failed:
        return verdict
    why = " ".join(f"It rests on a self-test that failed, {_said(test)}" for test in failed[:1])
    more = f" So did {', '.join(dict.fromkeys(t.name for t in failed[1:]))}." if len(failed) > 1 else ""
    nan = math.nan
    return replace(
        verdict,
        status="unknown",
        value=nan,
        ci_low=nan,
        ci_high=nan,
        threshold=nan,
        within_floor=False,
        evidence=f"{why}{more}",
        advice=failed[0].advice or "Mend that first, and run report again.",
    )


def _said(test: SelfTest) -> str:
    return f"{test.name} ({test.model}): {test.evidence}"
