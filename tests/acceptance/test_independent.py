"""A whole report of a bundled run, every number of it against a computation that shares no code with it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import opd_diag
from opd_diag.tables.catalogue import CATALOGUE, METRIC_NAMES
from opd_diag.tables.fits import FIT_METRICS
from opd_diag.tables.responses import RESPONSE_METRICS

DATA = Path(__file__).parents[2] / "data"
SCRIPT = Path(__file__).with_name("independent.py")
RUNS = sorted(path.parent.name for path in DATA.glob("*/opd-diag.toml"))
TOLERANCE = 1e-4
CURVE = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass")
OUTCOMES = {
    "accuracy", "truncation_rate", "response_length", "distinct_bigram_ratio", "distinct_trigram_ratio",
    "unigram_entropy",
}  # fmt: skip
PARTS = ("on_policy_change", "policy_change", "state_change")
OF_OWN_SAMPLES = ("sampled_reverse_kl", "near_zero_advantage_rate")
NOT_RECOMPUTED = {*RESPONSE_METRICS, *FIT_METRICS} - {*OUTCOMES, "teacher_state_coverage"}
"""Held against closed forms and brute force in the tests of their modules, and not yet here."""
COUNTS = ("n_states", "n_rollouts", "n_prompts")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=RUNS)
def both(request, tmp_path_factory):
    """What the report of one bundled run says, and what the independent computation says."""
    out_dir = tmp_path_factory.mktemp(request.param) / "report"
    opd_diag.diagnose(DATA / request.param, out=out_dir)
    result = out_dir.parent / "independent.json"
    command = [sys.executable, "-I", str(SCRIPT), str(out_dir), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out_dir / "report.json").read_text()), json.loads(result.read_text())


def keyed(rows, *names):
    table = {tuple(row[name] for name in names): row for row in rows}
    assert len(table) == len(rows), "two rows have one key"
    return table


def recomputed(rows):
    return [row for row in rows if row["metric"] not in NOT_RECOMPUTED]


def assert_close(ours, theirs, where, tolerance=TOLERANCE):
    """Both null, or both numbers that differ by the tolerance at most."""
    if ours is None or theirs is None:
        assert ours is theirs, f"{where}: {ours} and {theirs}"
    else:
        assert math.isfinite(ours), where
        assert abs(ours - theirs) <= tolerance, f"{where}: {ours} and {theirs}"


def test_bundled_runs_are_there():
    assert RUNS


def test_summary(both):
    report, independent = both
    ours = keyed(recomputed(report["summary"]), "label", "states", "metric")
    theirs = keyed(independent["summary"], "label", "states", "metric")
    assert set(ours) == set(theirs)
    for key, row in ours.items():
        # a share of states: where a distance equals a radius but for rounding, either answer is right
        tolerance = 3 / row["n_states"] if key[2] == "teacher_state_coverage" else TOLERANCE
        for name in ("value", "ci_low", "ci_high"):
            assert_close(row[name], theirs[key][name], (*key, name), tolerance)
        for name in (*COUNTS, "n_undefined"):
            assert row[name] == theirs[key][name], (*key, name)
        assert row["step"] == theirs[key]["step"]


def test_summary_holds_every_metric_of_every_checkpoint_on_every_state_set(both):
    report, _ = both
    students = [m for m in report["provenance"]["models"] if m["role"] == "student"]
    assert [m["step"] for m in students] == sorted(m["step"] for m in students)
    assert students[0]["step"] == 0
    assert len(students) >= 3
    expected = {
        (m["label"], states, name)
        for m in students
        for states in ("on-policy", "start", "teacher")
        for name in METRIC_NAMES
    }
    expected |= {
        (m["label"], states, name) for m in students for states in ("on-policy", "teacher") for name in OUTCOMES
    }
    expected |= {(m["label"], "on-policy", "teacher_state_coverage") for m in students}
    assert set(keyed(recomputed(report["summary"]), "label", "states", "metric")) == expected
    assert {row["metric"] for row in report["summary"]} == {name for *_, name in expected} | NOT_RECOMPUTED


def test_only_sampled_quantities_are_undefined_and_only_off_policy(both):
    report, _ = both
    empty = {(r["step"], r["states"], r["metric"]) for r in recomputed(report["summary"]) if r["value"] is None}
    steps = {r["step"] for r in report["summary"]} - {0}
    assert {(s, states, metric) for s, states, metric in empty if metric != "accuracy"} == {
        *((step, "start", name) for step in steps for name in OF_OWN_SAMPLES),
        *((step, "teacher", name) for step in {*steps, 0} for name in OF_OWN_SAMPLES),
    }
    for row in report["summary"]:
        if row["metric"] in OF_OWN_SAMPLES and row["value"] is None:
            assert row["n_states"] == 0
            assert row["n_undefined"] > 0


def test_split(both):
    report, independent = both
    ours = keyed(report["split"], "label", "metric", "part")
    theirs = keyed(independent["split"], "label", "metric", "part")
    assert set(ours) == set(theirs)
    assert {part for _, _, part in ours} == set(PARTS)
    for key, row in ours.items():
        for name in ("value", "ci_low", "ci_high"):
            assert_close(row[name], theirs[key][name], (*key, name))
        assert row["n_prompts"] == theirs[key]["n_prompts"]
        assert (row["from_label"], row["orders"]) == ("step 0", 1)
    for label, metric, part in ours:
        whole, policy, state = (ours[label, metric, p]["value"] for p in PARTS)
        if part == "on_policy_change" and whole is not None:
            assert whole == pytest.approx(policy + state, abs=1e-9)


def test_concentration(both):
    report, independent = both
    ours = keyed(report["concentration"], "label", "states", "k")
    theirs = keyed(independent["concentration"], "label", "states", "k")
    assert set(ours) == set(theirs)
    assert {k for _, _, k in ours} == {1, 2, 4, 8, 16, 32, 64, 128}
    for key, row in ours.items():
        # a token that is kept or not by rounding alone is 1/k of one state, and its probability is at most that
        ties = theirs[key]["near_ties"] / (key[2] * row["n_states"])
        assert ties <= 10 * TOLERANCE, "the runs should not be full of ties"
        for name in CURVE:
            expected = theirs[key][name]
            assert_close(row[name], expected["value"], (*key, name), TOLERANCE + ties)
            assert_close(row[f"{name}_ci_low"], expected["ci_low"], (*key, name, "ci_low"), TOLERANCE + 3 * ties)
            assert_close(row[f"{name}_ci_high"], expected["ci_high"], (*key, name, "ci_high"), TOLERANCE + 3 * ties)
        assert [row[name] for name in COUNTS] == [theirs[key]["overlap_ratio"][name] for name in COUNTS]


def test_the_numbers_are_worth_comparing(both):
    report, _ = both
    table = keyed(report["summary"], "step", "states", "metric")
    last = max(r["step"] for r in report["summary"])
    spread = {}
    for name in METRIC_NAMES:
        values = [r["value"] for r in report["summary"] if r["metric"] == name and r["value"] is not None]
        spread[name] = max(values) - min(values)
    moved = {name for name, width in spread.items() if width > 10 * TOLERANCE}
    assert {metric.name for metric in CATALOGUE if metric.primary} <= moved
    assert len(moved) >= len(METRIC_NAMES) - 6, (
        set(METRIC_NAMES) - moved
    )  # a rate may be 0, and a mass almost 1, at every checkpoint of a run
    first_row, last_row = table[0, "on-policy", "reverse_kl"], table[last, "on-policy", "reverse_kl"]
    assert first_row["ci_low"] < first_row["value"] < first_row["ci_high"]
    assert first_row["value"] != last_row["value"]


def test_the_independent_computation_cannot_import_the_package(tmp_path):
    probe = tmp_path / "probe.py"
    head = SCRIPT.read_text(encoding="utf-8").split("import json")[0]
    probe.write_text(head + "\nimport opd_diag.metrics\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", str(probe)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must not import opd_diag" in done.stderr
