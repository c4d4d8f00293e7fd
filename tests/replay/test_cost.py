"""What a report costs, said beforehand and afterwards; no clock is asked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import tiny_run as tiny

from opd_diag.errors import CheckpointError
from opd_diag.records.files import readable_size
from opd_diag.records.settings import settings_from
from opd_diag.replay import cost, make_plan, open_store, replay
from opd_diag.replay.cost import (
    TITLES,
    Cost,
    actual_cost,
    cost_lines,
    cost_record,
    predicted,
    predicted_or_none,
    total_line,
)
from opd_diag.runs import read_manifest


def planned(run, **options):
    manifest = read_manifest(run.run_dir)
    return make_plan(run.run_dir, settings_from(options, manifest.settings, manifest.path), manifest)


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    """(prediction, what it was, OUT_DIR) of a replay from nothing."""
    plan, out = planned(tiny_run), tmp_path_factory.mktemp("cost") / "out"
    prediction = predicted(plan)
    with open_store(out, plan.run_dir) as store:
        replay(plan, store)
        return prediction, actual_cost(plan, prediction, store), out


def test_predicted_and_actual_are_within_a_factor_of_two(whole):
    prediction, actual, _ = whole
    for name in ("sampled", "tokens", "gflop"):
        ratio = getattr(prediction.likely, name) / getattr(actual, name)
        assert 0.5 < ratio < 2, name
        assert getattr(prediction.at_most, name) >= getattr(actual, name), name


def test_the_bytes_are_those_of_the_folder_and_of_a_page(whole):
    prediction, actual, out = whole
    assert actual.bytes == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert 0.5 < (prediction.likely.bytes - cost.PAGE_BYTES) / actual.bytes < 2


def test_operations_follow_from_tokens_and_sizes(whole):
    prediction, actual, _ = whole
    student, teacher = prediction.sizes
    assert student == teacher
    bodies = actual.tokens * 2 * student.body
    assert bodies < actual.gflop * 1e9 < 2 * (bodies + actual.tokens * 2 * student.head_flop)


def test_no_weights_are_read(tiny_run, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **o: pytest.fail("weights"))
    before = tiny.listing(tiny_run.root)
    predicted(planned(tiny_run))
    assert tiny.listing(tiny_run.root) == before


def test_more_to_do_costs_more(tiny_run):
    little, much = (predicted(planned(tiny_run, max_prompts=n)) for n in (2, 8))
    for name, by in {"sampled": 4, "tokens": 3, "gflop": 3, "bytes": 1.1}.items():
        assert getattr(much.likely, name) >= by * getattr(little.likely, name), name


def test_the_pace_becomes_minutes(tiny_run, monkeypatch):
    def seconds(**changes):
        pace = cost.Pace(0, 0, 0, 0, 0, 0)
        monkeypatch.setattr(cost, "measured_pace", lambda *a, **o: replace(pace, **changes))
        monkeypatch.setattr(cost, "_loop_seconds", lambda: cost.LOOP_SECONDS)
        return predicted(planned(tiny_run)).likely.minutes * 60

    fixed = seconds()
    assert cost.PAGE_SECONDS < fixed < cost.PAGE_SECONDS + 2
    work = cost.planned_work(planned(tiny_run), cost.Lengths(planned(tiny_run), cost.ASSUMED_FILL))
    parts = {
        "student_drawn": work.student_sampled,
        "teacher_drawn": work.teacher_sampled,
        "student_token": work.student_tokens - work.student_sampled,
        "teacher_token": work.teacher_tokens - work.teacher_sampled,
        "state": work.states,
    }
    for name, units in parts.items():
        assert seconds(**{name: 2.0}) - fixed == pytest.approx(2 * units), name


def test_a_slower_machine_takes_longer_for_the_page(tiny_run, monkeypatch):
    monkeypatch.setattr(cost, "measured_pace", lambda *a, **o: cost.Pace(0, 0, 0, 0, 0, 0))
    minutes = []
    for slower in (1, 3):
        monkeypatch.setattr(cost, "_loop_seconds", lambda s=slower: s * cost.LOOP_SECONDS)
        minutes.append(predicted(planned(tiny_run)).likely.minutes)
    assert minutes[1] == pytest.approx(3 * minutes[0])


def test_what_is_said_beforehand(whole):
    prediction, _, _ = whole
    *table, how, memory, meanwhile = prediction.lines()
    rows = [re.split(r"  +", line) for line in table]
    assert rows[0] == ["cost", "predicted", "at most"]
    costs = prediction.likely.rough().texts(), prediction.at_most.texts()
    assert rows[1:] == [list(row) for row in zip(cost.TITLES, *costs, strict=True)]
    assert rows[1][2] == "800"
    assert len({len(line) for line in table}) == 1
    assert how == ("predicted    if nothing is stored yet and a response has 6 tokens; at most: if each fills its room")
    size, states = 2 * prediction.sizes[0].parameters * 4, 2 * 16 * (10 + 1) * 32 * 4
    weights, free = f"{size / 1000:.1f} kB of weights", prediction.memory[0].room.free
    assert memory == f"in memory    the CPU: {weights}, about 3.0 MB beside them, {readable_size(free)} free"
    assert meanwhile == f"meanwhile    at most {states / 1000:.1f} kB of the teacher's states on disk"


def test_recorded_lengths_leave_nothing_to_assume(tiny_run, whole):
    _, _, out = whole
    prediction = predicted(planned(tiny_run, rollouts=str(out / "rollouts")))
    assert prediction.likely == prediction.at_most
    assert prediction.likely.sampled == 0
    lines = prediction.lines()
    assert re.split(r"  +", lines[0]) == ["cost", "predicted"]
    assert lines[6] == "predicted    if nothing is stored yet and lengths are as recorded"


def test_side_by_side(whole):
    prediction, actual, _ = whole
    account = cost.Account(made=7)
    lines = cost_lines(cost_record(prediction, actual, account))
    assert lines[0].split() == ["cost", "predicted", "actual"]
    for line, title, a, b in zip(lines[1:], TITLES, prediction.likely.rough().texts(), actual.texts(), strict=True):
        assert line.split("  ")[0] == title
        assert line.removeprefix(title).split() == [*a.split(), *b.split()]
    assert len({len(line) for line in lines}) == 1, "columns"
    account.found = 3
    assert cost_lines(cost_record(prediction, actual, account))[-1].startswith("3 of 10 parts were stored already")


def test_a_config_that_cannot_be_read_is_no_reason_to_stop(own_run, tmp_path):
    plan = planned(own_run)
    config = json.loads((own_run.teacher / "config.json").read_text())
    (own_run.teacher / "config.json").write_text(json.dumps(config | {"model_type": "abacus"}))
    with pytest.raises(CheckpointError, match=r"teacher: .* does not load"):
        predicted(plan)
    assert predicted_or_none(plan) is None
    with open_store(tmp_path / "out", plan.run_dir) as store:
        actual = actual_cost(plan, None, store)
        assert math.isnan(actual.gflop)
        lines = cost_lines(cost_record(None, actual, store.account))
    assert lines[3].split() == ["GFLOP", "unknown", "nan"]


def test_costs_as_text():
    texts = Cost(1_234_567, 7, 12_345.6, 61.26, 2_100_000_000).texts()
    assert texts == ["1,234,567", "7", "12,346", "61.3", "2.1 GB"]
    assert Cost(0, 0, 0.123, 0, 0).texts()[2] == "0.12"


def test_several_replays_of_one_study_in_a_line():
    costs = [
        Cost(10, 20, 1.0, 2.25, 100, 56, 4_000_000),
        Cost(10, 20, 1.0, 1.5, 100),
        Cost(1, 2, 1.0, 1.0, 1, 8, 90_000),
    ]
    shared = "what the replays share is made once, and counted in each"
    assert total_line(costs) == f"in all       4.8 minutes, 64 requests to servers, 4.1 MB over the wire; {shared}"
    assert total_line(costs[1:2]) == f"in all       1.5 minutes; {shared}"
