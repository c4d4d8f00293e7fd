"""What a reader is told of log-probabilities that came with responses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from opd_diag.records.selftest import SelfTest
from opd_diag.replay.logprobs import LogprobCheck
from opd_diag.report.provenance import logprob_notes

RAW = (
    "Log-probabilities that came with 900 tokens of it, drawn at temperature 0.7 as stated, are those of temperature "
    "1, to 1e-06 nats: recorded before temperature."
)
DOUBTFUL = f"{RAW[:-1]}, or drawn at 1; the tokens do not tell."


def a_set(states, label, writer):
    """Scores of the teacher `new`, and responses that `writer` gave."""
    scores = SimpleNamespace(provenance={"teacher": {"name": "new"}})
    rollouts = (SimpleNamespace(provenance=SimpleNamespace(weights=writer)),)
    return SimpleNamespace(states=states, checkpoint=SimpleNamespace(label=label), scores=scores, rollouts=rollouts)


def a_check(model, difference):
    return LogprobCheck(model, "recorded", 900, difference, 2 * difference, 0.5, 0.05)


def notes(differences, evidence):
    """Notes of a run whose writers differ by so much, where self-tests of writers say this."""
    replayed = SimpleNamespace(
        scored=[a_set("on-policy", "step 0", "step 0"), a_set("start", "step 0", "step 0"),
                a_set("on-policy", "step 20", "step 20"), a_set("teacher", "step 0", "teacher")],
        logprobs=[a_check(model, difference) for model, difference in differences.items()],
        selftests=[SelfTest("logprobs", writer, "pass", 1e-6, 0.05, said, "") for writer, said in evidence.items()],
    )  # fmt: skip
    return logprob_notes(replayed)


def test_within_rounding_nothing_is_said():
    assert notes({"step 0": 0.001, "step 20": 0.001, "new": 0.001}, {"step 0": RAW}) == []


def test_those_from_before_temperature_are_one_note_and_no_alarm():
    """The teacher, which the check calls by its name and the self-test by its role, is found too."""
    found = notes({"step 0": 0.2, "step 20": 0.001, "new": 0.3}, {"step 0": RAW, "teacher": RAW})
    assert found == [
        "The log-probabilities recorded with the responses of step 0, the teacher are those before temperature, as "
        "some engines give them. That is no fault, and no number here rests on them."
    ]


@pytest.mark.parametrize("evidence", [{}, {"step 0": RAW}, {"step 20": DOUBTFUL}])
def test_what_is_not_known_as_such_stays_an_alarm(evidence):
    [found] = notes({"step 20": 0.2}, evidence)
    assert found == a_check("step 20", 0.2).note
    assert found.endswith("find out which before you believe a number.")
