"""One draw of some planted faults: what must give the alarm does, and a run without a fault gives none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from opd_diag.diagnosis import measured, plan_report
from opd_diag.lab.faults import FAULTS, copied_case, record_rollouts
from opd_diag.replay import open_store
from opd_diag.verdicts import judge

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "data"
BY_NAME = {fault.name: fault for fault in FAULTS}
PLANTED = (
    "shifted_records", "lost_prompt_token", "dropped_last_token_silently", "double_bos", "permuted_ids", "other_stop",
    "misstated_temperature", "padding_counted", "wrong_template", "looping", "sharpened", "flattened", "frozen",
    "nothing_to_learn", "breaks_at_depth",
)  # fmt: skip


def case_of(root):
    """The bundled run of the teacher that has something new, with some of its prompts."""
    lines = (DATA / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return copied_case(DATA / "new", root, random.Random(1).sample(lines, 32))


def answers(case, out, store):
    """Names and statuses of all verdicts and self-tests; a name is there as often as it was asked."""
    options = {"checkpoints": "40,160", "store": store, "seed": 3}
    plan = plan_report(case.run_dir, out=out, **options)
    with open_store(out, plan.run_dir, store) as opened:
        replayed, tables = measured(plan, opened)
    verdicts = judge(tables, step_zero_known=True, selftests=replayed.selftests)
    return [(answer.name, answer.status) for answer in (*replayed.selftests, *verdicts)]


def alarms(found):
    return {name for name, status in found if status in ("warn", "fail")}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The report without a fault: what it says, where its rollouts are, and a store that others may share."""
    root = tmp_path_factory.mktemp("healthy")
    found = answers(case_of(root / "case"), root / "out", root / "store")
    return found, root / "out/rollouts", root / "store"


def test_a_healthy_run_gives_no_alarm(healthy):
    found, _, _ = healthy
    assert not alarms(found)
    passed = {name for name, status in found if status == "pass"}
    assert {"aligned_inputs", "false_success", "degeneration", "accuracy", "termination"} <= passed


def test_nor_does_it_with_recorded_rollouts(healthy, tmp_path):
    _, rollouts, store = healthy
    case = case_of(tmp_path / "case")
    record_rollouts(case, rollouts)
    assert not alarms(answers(case, tmp_path / "out", store))


@pytest.mark.parametrize("name", PLANTED)
def test_what_must_give_the_alarm_does(healthy, tmp_path, name):
    fault, (_, rollouts, store) = BY_NAME[name], healthy
    case = case_of(tmp_path / "case")
    if fault.is_recorded:
        record_rollouts(case, rollouts)
    fault.plant(case, 0)
    said = answers(case, tmp_path / "out", store)
    assert alarms(said) & {*fault.detectors}
    assert ("healthy", "pass") not in said
