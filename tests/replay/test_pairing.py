"""Which checkpoint scores responses of which weights, and what is staler than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay.pairing import EARLIER, ENOUGH, STALER, Pairing
from opd_diag.runs.recorded import RecordedFile


def pairing(*steps, most=None):
    return Pairing.of([Checkpoint(f"c{i}", step, Path(), "full") for i, step in enumerate(steps)], most)


@pytest.mark.parametrize(
    ("updates", "step"),
    [(19, EARLIER), (20, 20), (21, 20), (39, 20), (40, 40), (59, 40), (60, STALER), (79, STALER), (80, 80), (99, 80)],
)
def test_the_nearest_checkpoint_at_or_before(updates, step):
    assert pairing(80, 20, 40, None).step_of(updates) == step


@pytest.mark.parametrize(("most", "steps"), [(0, (20, STALER, STALER)), (1, (20, 20, STALER)), (100, (20, 20, 20))])
def test_the_limit_that_is_asked_for(most, steps):
    assert tuple(map(pairing(20, 40, most=most).step_of, (20, 21, 22))) == steps


def test_without_a_limit_all_checkpoints_can_have_what_the_closest_two_have():
    assert pairing(0, 20, 40, 80, 160).most == 19
    assert pairing(20).most == 0, "nothing tells how far training goes between two checkpoints"
    assert pairing(None).step_of(5) == EARLIER


@pytest.mark.parametrize(
    ("step", "full", "reason"),
    [
        (None, (), None),  # only its records tell
        (20, (), None),  # written with 19 updates, or with 20
        (40, (), None),
        (19, (), EARLIER),
        (61, (), STALER),
        (30, (20,), ENOUGH),
        (40, (20,), None),
        (40, (20, 40), ENOUGH),
    ],
)
def test_files_are_passed_over_by_their_names(step, full, reason):
    file = RecordedFile(Path("a"), "trl", step, "text-stripped")
    assert pairing(20, 40).of_no_use(file, set(full)) == reason


@pytest.mark.parametrize(
    ("step", "full", "reason"),
    [(19, (), EARLIER), (61, (), None), (61, (40,), None), (61, (20, 40), ENOUGH), (30, (20,), ENOUGH)],
)
def test_a_sampler_that_runs_ahead_may_have_used_any_older_weights(step, full, reason):
    file = RecordedFile(Path("a"), "prime-traces", step, "ids")
    assert pairing(20, 40).of_no_use(file, set(full)) == reason
