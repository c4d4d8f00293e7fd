"""Diagnose on-policy distillation: does a run work, why does it not, and what is there to do.

>>> import opd_diag
>>> report = opd_diag.diagnose("runs/my-run", teacher="org/teacher", prompts="prompts.jsonl")  # doctest: +SKIP
>>> report.verdicts  # doctest: +SKIP

The same calls stand beneath the terminal program ``opd-diag`` and beneath a notebook. Names load what they need when
they are first used: importing the package loads neither torch nor transformers nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opd_diag.diagnosis import check, diagnose, doctor
    from opd_diag.inference import load_model, sample_rollouts, score, wrap_model
    from opd_diag.records.rollout import Rollout, load_rollouts
    from opd_diag.records.scores import Scores
    from opd_diag.records.selftest import SelfTest
    from opd_diag.records.verdict import Verdict
    from opd_diag.report import Report
    from opd_diag.runs import find_checkpoints
    from opd_diag.tables import measure, summarize

_HOMES = {
    "Report": "opd_diag.report",
    "Rollout": "opd_diag.records.rollout",
    "Scores": "opd_diag.records.scores",
    "SelfTest": "opd_diag.records.selftest",
    "Verdict": "opd_diag.records.verdict",
    "check": "opd_diag.diagnosis",
    "diagnose": "opd_diag.diagnosis",
    "doctor": "opd_diag.diagnosis",
    "find_checkpoints": "opd_diag.runs",
    "load_model": "opd_diag.inference",
    "load_rollouts": "opd_diag.records.rollout",
    "measure": "opd_diag.tables",
    "sample_rollouts": "opd_diag.inference",
    "score": "opd_diag.inference",
    "summarize": "opd_diag.tables",
    "wrap_model": "opd_diag.inference",
}

__all__ = [
    "Report",
    "Rollout",
    "Scores",
    "SelfTest",
    "Verdict",
    "check",
    "diagnose",
    "doctor",
    "find_checkpoints",
    "load_model",
    "load_rollouts",
    "measure",
    "sample_rollouts",
    "score",
    "summarize",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("integrations", "metrics", "plots", "records", "runs", "stats", "studies", "tables"):
        return importlib.import_module(f"opd_diag.{name}")
    raise AttributeError(f"module 'opd_diag' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
