"""What crosses between processes is afterwards what it was."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from opd_diag.errors import CheckpointError, MissingExtra, ModelError, OpdDiagError, RunFolderError
from opd_diag.replay.account import Work
from opd_diag.replay.spread.calls import Answer, Call, Refusal


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("step 10: model.safetensors is gone."),
        ModelError("It gives NaN."),
        RunFolderError("Nothing is there.", code="NO_CHECKPOINTS"),
        MissingExtra("peft", "peft"),
        OpdDiagError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_as_what_they_are(error):
    sent = pickle.loads(pickle.dumps(Refusal.of(error)))
    with pytest.raises(type(error)) as raised:
        Answer(b"", Work(), {}, sent).given()
    assert type(raised.value) is type(error)
    assert (str(raised.value), raised.value.code) == (str(error), error.code)


def test_what_was_made_can_be_written_to():
    made = {"values": np.arange(3.0)}
    given = pickle.loads(pickle.dumps(Answer(pickle.dumps(made), Work(states=3), {}))).given()
    given["values"] += 1
    assert given["values"].tolist() == [1, 2, 3]


def test_names_are_those_of_progress():
    names = [Call(what, "step 10", (), {}).name for what in ("shard", "sampled", "coverage")]
    assert names == ["step 10: scoring", "step 10: sampling responses", "step 10: coverage"]
