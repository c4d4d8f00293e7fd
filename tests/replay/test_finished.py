"""Responses that a report left, by who wrote them."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from opd_diag.errors import StoreError
from opd_diag.records.rollout import Provenance, Rollout, in_training, save_rollouts
from opd_diag.replay.finished import finished_rollouts


def rollout(label, step, response=(2,)):
    source = Provenance("sampled", label, "", step, 1.0, 1.0, 0)
    return Rollout(0, 0, "a", None, (1,), (1,), response, "stop", source, reward=math.nan)


def summarize(folder, labels, states):
    pd.DataFrame({"label": labels, "states": states}).to_parquet(folder / "summary.parquet")


@pytest.fixture
def out_dir(tmp_path):
    summarize(tmp_path, ["step 9", "step 10", "step 9"], ["on-policy", "on-policy", "teacher"])
    files = {
        "step-000007": rollout("step 7", 7),  # of an earlier report that had more checkpoints
        "step-000010": rollout("step 10", 10),
        "step-000009": rollout("step 9", 9),
        "start": rollout("step 9", 9),
        "teacher": rollout("teacher", None),
        "step-000009.near-on-policy": rollout(in_training(9), 9, (3,)),
    }
    for name, of in files.items():
        save_rollouts(tmp_path / "rollouts" / f"{name}.jsonl", [of])
    return tmp_path


def test_in_the_order_of_the_checkpoints_then_the_teacher(out_dir):
    found = finished_rollouts(out_dir)
    assert list(found) == ["step 9", "step 10", "teacher"]
    assert {label: len(of) for label, of in found.items()} == {"step 9": 1, "step 10": 1, "teacher": 1}


def test_without_a_teacher(out_dir):
    (out_dir / "rollouts" / "teacher.jsonl").unlink()
    assert list(finished_rollouts(out_dir)) == ["step 9", "step 10"]


def test_what_an_earlier_report_left_is_not_read(out_dir):
    summarize(out_dir, ["step 9", "step 10"], ["on-policy", "start"])
    assert list(finished_rollouts(out_dir)) == ["step 9"]


def test_no_report(tmp_path):
    with pytest.raises(StoreError) as error:
        finished_rollouts(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no finished report: there is no summary.parquet. Run opd-diag report first."
    )


def test_a_report_that_was_begun_again_and_not_finished(out_dir):
    from opd_diag.records.files import content_key
    from opd_diag.replay.marker import MARKER, REPORT

    content = {"parts": {REPORT: {"key": "another", "sha256": "", "size": 0}}}
    text = json.loads(json.dumps(content))
    (out_dir / MARKER).write_text(json.dumps({**text, "checksum": content_key(text)}))
    with pytest.raises(StoreError, match=r"A later report in .* was begun and not finished"):
        finished_rollouts(out_dir)
