"""What verl and thunlp/OPD dump, ``N.jsonl``: ``input, output, gts, score, step`` a line, special tokens stripped.

``trainer.rollout_data_dir`` gets the rollouts of step N, sampled with N - 1 updates; ``trainer.validation_data_dir``
gets files of the same form after update N (and ``0.jsonl`` before the first). They are told apart by a folder whose
name has "val" as a word, as ``validation_log/``, or holds ``0.jsonl``: training starts at 1. Asynchronous trainers are
staler than that, which no file tells. Source: ``_dump_generations`` in ``verl/trainer/ppo/ray_trainer.py`` and
``v1/trainer_base.py`` (verl main of 2026-08), thunlp/OPD of 2026-05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, updates_before
from opd_diag.runs.recorded.values import named, number, text, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read one file of rollouts or of a validation.

    Raises
    ------
    RolloutsError
        A line is no record of verl's.
    """
    recorded = []
    for place, record in rows(file.path, reading):
        step = whole(record, "step", place, file.step)
        recorded.append(
            Recorded(
                place=place,
                step=step,
                updates=updates_before(step, file),
                exactness="text-stripped",
                prompt=text(record, "input", place),
                response=text(record, "output", place),
                reward=number(record, "score", place),
                answer=named(record.get("gts")),
                group=named(record.get("data_source")),
            )
        )
    return recorded


def validations_marked(files: Iterable[RecordedFile]) -> list[RecordedFile]:
    """Mark the files of folders with a ``0.jsonl`` as those of validations: training has no step 0."""
    files = list(files)
    folders = {file.path.parent for file in files if file.format == "verl" and file.step == 0}
    return [replace(f, evaluation=True) if f.format == "verl" and f.path.parent in folders else f for f in files]


FORMATS = (
    Format(
        "verl",
        "verl or thunlp/OPD N.jsonl",
        "text-stripped",
        re.compile(r"(?:/[^/]+){0,2}/(?P<step>\d+)\.jsonl$", re.ASCII),
        read,
        frozenset({"input", "output", "step"}),
    ),
)
