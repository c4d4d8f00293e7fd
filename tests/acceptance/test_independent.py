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
from opd_diag.tables.diversity import DIVERSITY
from opd_diag.tables.fits import FIT_METRICS
from opd_diag.tables.repetition import REPETITION
from opd_diag.tables.responses import COVERAGE, OUTCOMES
from opd_diag.tables.rewards import REWARD_METRICS
from opd_diag.tables.stops import STOP_METRICS
from opd_diag.tokenization import load_tokenizer

DATA = Path(__file__).parents[2] / "data"
SCRIPT = Path(__file__).with_name("independent.py")
RUNS = sorted(path.parent.name for path in DATA.glob("*/opd-diag.toml"))
TOLERANCE = 1e-4
CURVE = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "student_topk_mass", "teacher_topk_mass")
OF_WRITER = {*OUTCOMES, *DIVERSITY, *REPETITION}
"""What is known of responses, whoever scores them."""
OF_OWN = {COVERAGE, *REWARD_METRICS}
PARTS = ("on_policy_change", "policy_change", "state_change")
OF_OWN_SAMPLES = ("sampled_reverse_kl", "tail_sampled_reverse_kl", "near_zero_advantage_rate")
FITTED = {"fitted_temperature": 5e-4}
"""Between temperatures that are a quarter of an octave apart, the product takes the curve for a polynomial."""
SMALL = {*STOP_METRICS, "gradient_coherence"}
"""May be far smaller than `TOLERANCE`: held to a thousandth of themselves or of their interval's ends."""
COUNTS = ("n_states", "n_rollouts", "n_prompts")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=RUNS)
def both(request, demo, tmp_path_factory):
    """What the report of one bundled run says, and what the independent computation says."""
    result = tmp_path_factory.mktemp(request.param) / "independent.json"
    return said_and_recomputed(demo.report(request.param), result)


def said_and_recomputed(out_dir, result):
    command = [sys.executable, "-I", str(SCRIPT), str(out_dir), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out_dir / "report.json").read_text()), json.loads(result.read_text())


def keyed(rows, *names):
    table = {tuple(row[name] for name in names): row for row in rows}
    assert len(table) == len(rows), "two rows have one key"
    return table


def assert_close(ours, theirs, where, tolerance=TOLERANCE):
    """Both null, or both numbers that differ by the tolerance at most."""
    if ours is None or theirs is None:
        assert ours is theirs, f"{where}: {ours} and {theirs}"
    else:
        assert math.isfinite(ours), where
        assert abs(ours - theirs) <= tolerance, f"{where}: {ours} and {theirs}"


def test_bundled_runs_are_there():
    assert RUNS


def assert_same_rows(report, independent, *names, sides=1):
    """Values, intervals and counts of `names` of each row of a table, which tells of one side or of two."""
    ours = keyed(report, "label", "states", "metric")
    theirs = keyed(independent, "label", "states", "metric")
    assert set(ours) == set(theirs)
    for key, row in ours.items():
        found = [theirs[key][name] for name in ("value", "ci_low", "ci_high")]
        tolerance = FITTED.get(key[2], TOLERANCE)
        if key[2] in SMALL:
            tolerance = 1e-9 + 1e-3 * max(abs(value or 0.0) for value in found)
        elif key[2] == COVERAGE:
            # a share of states: where a distance equals a radius but for rounding, either answer is right
            tolerance = 3 * sides / theirs[key]["n_states"]
        for name, expected in zip(("value", "ci_low", "ci_high"), found, strict=True):
            assert_close(row[name], expected, (*key, name), tolerance)
        for name in names:
            if row[name] is not None:
                assert row[name] == theirs[key][name], (*key, name)


def test_summary(both):
    report, independent = both
    assert_same_rows(report["summary"], independent["summary"], *COUNTS, "n_undefined", "step")


def test_differences(both):
    report, independent = both
    rows = [row | {"label": row["to_label"]} for row in report["differences"]]
    assert {row["from_label"] for row in rows} == {"step 0"}
    assert_same_rows(rows, independent["differences"], "n_prompts", "n_states", sides=2)


def test_summary_holds_every_metric_of_every_checkpoint_on_every_state_set(both):
    report, _ = both
    students = [m for m in report["provenance"]["models"] if m["role"] == "student"]
    assert [m["step"] for m in students] == sorted(m["step"] for m in students)
    assert students[0]["step"] == 0
    assert len(students) >= 3
    labels = [m["label"] for m in students]
    of_set = {states: {*METRIC_NAMES, *FIT_METRICS} for states in ("on-policy", "start", "teacher")}
    of_set["teacher"] |= {*OF_WRITER, *STOP_METRICS}
    of_set["on-policy"] |= {*OF_WRITER, *OF_OWN, *STOP_METRICS}
    expected = {(label, states, name) for label in labels for states, names in of_set.items() for name in names}
    assert set(keyed(report["summary"], "label", "states", "metric")) == expected
    of_set["teacher"] -= OF_WRITER
    expected = {(label, states, name) for label in labels[1:] for states, names in of_set.items() for name in names}
    assert set(keyed(report["differences"], "to_label", "states", "metric")) == expected


def test_only_sampled_quantities_are_undefined_and_only_off_policy(both):
    report, _ = both
    rows = [r for r in report["summary"] if r["metric"] in {*METRIC_NAMES, *DIVERSITY, "truncation_rate"}]
    empty = {(r["step"], r["states"], r["metric"]) for r in rows if r["value"] is None}
    steps = {r["step"] for r in report["summary"]} - {0}
    assert empty == {
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


def repeated(rollout, tokenizer):
    """One response changed in one of six ways, by its prompt; the second one to each prompt stays."""
    if rollout["rollout_index"] > 0:
        return rollout
    *block, stop = rollout["response_ids"]
    kind = rollout["prompt_index"] % 6
    ids, reason = {
        0: ((6 * block)[:85], "length"),  # all of it is one block, the last copy in part
        1: ([*block, *(24 * block[-3:]), stop], "stop"),  # the end is
        2: (2 * block, "length"),  # two copies are no cycle
        3: ((6 * block)[:85], "length"),  # with tokens in between that a tool wrote
        4: (block[:8], "length"),  # too short to tell
        5: ([*block, stop], "unknown"),
    }[kind]
    generated = [not 5 <= i < 9 for i in range(len(ids))] if kind == 3 else None
    text = tokenizer.text(ids)
    changes = {"response_ids": ids, "response_text": text, "generated": generated, "stop_reason": reason}
    return rollout | changes | {"sampled_logprobs": None}


def test_responses_that_repeat_themselves(tmp_path, without_pages):
    """Those of the bundled runs do not: here they are recorded ones, of which most were changed so that they do."""
    options = {"checkpoints": "160", "max_prompts": 15}
    opd_diag.diagnose(DATA / "same", out=tmp_path / "first", states="on-policy", **options)
    lines = (tmp_path / "first/rollouts/step-000160.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = load_tokenizer(str(DATA / "student"))
    changed = [repeated(json.loads(line), tokenizer) for line in lines]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(of) + "\n" for of in changed), encoding="utf-8")
    opd_diag.diagnose(DATA / "same", out=tmp_path / "out", rollouts=str(tmp_path / "rollouts.jsonl"), **options)
    report, independent = said_and_recomputed(tmp_path / "out", tmp_path / "independent.json")
    assert_same_rows(report["summary"], independent["summary"], *COUNTS, "n_undefined", "step")
    table = keyed(report["summary"], "step", "states", "metric")
    repetition = [table[160, "on-policy", name] for name in REPETITION]
    assert [row["n_undefined"] > 0 for row in repetition] == [True, True, True]
    assert [0 < row["ci_low"] < row["value"] < row["ci_high"] for row in repetition] == [True, True, True]


def test_the_independent_computation_cannot_import_the_package(tmp_path):
    probe = tmp_path / "probe.py"
    head = SCRIPT.read_text(encoding="utf-8").split("import json")[0]
    probe.write_text(head + "\nimport opd_diag.metrics\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", str(probe)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must not import opd_diag" in done.stderr
