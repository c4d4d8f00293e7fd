"""A self-test as JSON."""

from __future__ import annotations

import json
import math

from opd_diag.records.selftest import SelfTest


def test_a_record_is_json_without_nan() -> None:
    test = SelfTest("shift", "teacher", "fail", 1.0, math.nan, "Best one token later.", "Look for a stripped BOS.")
    record = json.loads(json.dumps(test.as_record(), allow_nan=False))
    assert record["threshold"] is None
    assert (record["name"], record["model"], record["status"], record["value"]) == ("shift", "teacher", "fail", 1.0)
