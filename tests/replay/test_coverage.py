"""Which states are looked at, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from models import random_rollouts, wrapped

from opd_diag.inference import teacher_hidden
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay import coverage
from opd_diag.replay.coverage import coverage_of, covered_states, equal_places


def responses(lengths, per_prompt=2, seed=0):
    """Rollouts of the given lengths, `per_prompt` to each prompt."""
    made = random_rollouts([(4, n) for n in lengths], seed=seed)
    return [replace(r, prompt_index=i // per_prompt, rollout_index=i % per_prompt) for i, r in enumerate(made)]


def test_as_many_of_the_teachers_as_of_the_checkpoints():
    theirs, own = responses([10, 10, 10, 10]), responses([3, 2, 4, 1])
    of_teacher, of_own = equal_places(theirs, own)
    assert len(of_teacher) == len(of_own) == 10
    assert sorted(of_own) == [(row, p) for row, n in enumerate([3, 2, 4, 1]) for p in range(n)]
    assert len(set(of_teacher)) == 10
    assert {row for row, _ in of_teacher} == {0, 1, 2, 3}


def test_first_responses_come_first_and_suffice(monkeypatch):
    monkeypatch.setattr(coverage, "MOST_STATES", 12)
    of_teacher, of_own = equal_places(responses([10, 10, 10, 10]), responses([20, 20, 20, 20], seed=1))
    assert len(of_teacher) == len(of_own) == 12
    assert {row for row, _ in of_teacher} == {0, 2}  # the first response to each prompt
    assert of_own[0] == (0, 0)
    assert of_own[-1] == (2, 19)


def test_tool_output_is_no_state():
    own = [replace(r, generated=(True, False, True)) for r in responses([3, 3])]
    assert equal_places(responses([9, 9]), own)[1] == [(0, 0), (0, 2), (1, 0), (1, 2)]


def test_a_set_without_states_gives_no_rows():
    empty = responses([0, 0])
    places = equal_places(responses([5, 5]), empty)
    assert places == ([], [])
    covered = covered_states(wrapped("llama"), responses([5, 5]), empty, places)
    table = coverage_of(Checkpoint("step 1", 1, Path(), "full"), "teacher", responses([5, 5]), [], covered)
    assert table.empty
    assert "is_covered" in table


def test_rows_name_the_states_and_hold_what_distances_say():
    teacher = wrapped("qwen3", seed=2)
    theirs, own = responses([6, 5, 7, 8, 4, 6], per_prompt=1), responses([9, 3, 8, 7, 2, 5], per_prompt=1, seed=5)
    places = equal_places(theirs, own)
    covered = covered_states(teacher, theirs, own, places)
    table = coverage_of(Checkpoint("step 7", 7, Path(), "full"), "big", theirs, places[0], covered)
    assert table[["step", "label", "teacher"]].drop_duplicates().values.tolist() == [[7, "step 7", "big"]]
    assert list(zip(table["prompt_index"], table["position"], strict=True)) == places[0]
    a = teacher_hidden(teacher, theirs, places[0]).double().numpy()
    b = teacher_hidden(teacher, own, places[1]).double().numpy()
    for i, (row, _) in enumerate(places[0]):
        others = [np.linalg.norm(a[i] - a[j]) for j, (r, _) in enumerate(places[0]) if r != row]
        nearest = min(np.linalg.norm(a[i] - b[j]) for j, (r, _) in enumerate(places[1]) if r != row)
        assert table["is_covered"][i] == (nearest <= sorted(others)[4])
    assert 0 < table["is_covered"].mean() < 1


def test_one_prompt_tells_nothing():
    theirs, own = responses([6, 6], per_prompt=2), responses([6, 6], per_prompt=2, seed=1)
    covered = covered_states(wrapped("llama"), theirs, own, equal_places(theirs, own))
    assert len(covered) == 12
    assert np.isnan(covered).all()
