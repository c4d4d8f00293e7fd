"""The list of faults: each is told apart, each says what must detect it."""

from __future__ import annotations

from lab.faults.conftest import changed, contents
from opd_diag.lab.collapse import KINDS
from opd_diag.lab.faults.catalogue import FAULTS, nothing

SELF_TESTS = {"self_teacher", "shift", "batches", "template", "ends", "vocabulary", "logprobs", "repeatability"}


def test_names_are_unique_and_kinds_exist():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 20
    assert {fault.on for fault in FAULTS} <= {*KINDS}


def test_every_fault_names_its_detectors():
    from opd_diag.verdicts import RESTS_ON

    known = SELF_TESTS | {*RESTS_ON}
    assert all(fault.detectors and {*fault.detectors} <= known for fault in FAULTS)


def test_the_conjunctions_detect_nothing_by_themselves():
    assert not {"healthy", "aligned_inputs"} & {name for fault in FAULTS for name in fault.detectors}


def test_what_goes_wrong_by_itself_is_not_touched(case):
    before = contents(case)
    nothing(case, 0)
    assert not changed(case, before)
    assert {fault.on for fault in FAULTS if fault.plant is nothing} == {"collapsing", "idle"}
