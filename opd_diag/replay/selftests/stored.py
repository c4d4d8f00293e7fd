"""The file of the self-tests in OUT_DIR: written by a report or by ``doctor``, read by ``check``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from opd_diag.errors import StoreError
from opd_diag.inference import HeadCheck
from opd_diag.records.files import write_json
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.logprobs import LogprobCheck, as_json

SELFTESTS = "selftest.json"
"""Its name in OUT_DIR."""


def write_selftests(
    path: Path, heads: Iterable[HeadCheck], logprobs: Iterable[LogprobCheck], tests: Iterable[SelfTest]
) -> None:
    """Write checks of heads, of log-probabilities, and the self-tests."""
    record = {
        "head": [asdict(check) for check in heads],
        "logprobs": [as_json(check) for check in logprobs],
        "tests": [test.as_record() for test in tests],
    }
    write_json(path, record)


def load_selftests(out_dir: Path) -> tuple[SelfTest, ...]:
    """Read the self-tests of a report; none where an older opd-diag wrote it.

    Raises
    ------
    StoreError
        The file holds something else.
    """
    path = out_dir / SELFTESTS
    if not path.is_file():
        return ()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return tuple(SelfTest.from_record(test) for test in record.get("tests", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} holds no self-tests: {error!r}. Run report again with the same --out.") from error
