"""AReaL's ``rollout/VERSION/TASK.jsonl``: prompt and completion decoded with their special tokens.

The folder is the newest version of the weights that wrote some of the response, ``tail_version``; version v has v
updates behind it. ``head_version`` is the smallest version over all tokens, and tokens of the prompt count as -1, so
that it tells nothing. A conversation of several turns is split at the wrong place by AReaL itself. Source:
``_dump_trajectory`` in ``areal/infra/workflow_executor.py`` and ``set_version`` in ``areal/trainer/rl_trainer.py``,
1.0.4.
"""

from __future__ import annotations

import re

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.values import number, text, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the responses of one task.

    Raises
    ------
    RolloutsError
        A line is no record of AReaL's.
    """
    recorded = []
    for place, record in rows(file.path, reading):
        version = whole(record, "tail_version", place)
        recorded.append(
            Recorded(
                place=place,
                step=version if file.step is None else file.step,
                updates=version,
                exactness="text-with-specials",
                prompt=text(record, "prompt", place),
                response=text(record, "completion", place),
                reward=number(record, "reward", place),
            )
        )
    return recorded


FORMATS = (
    Format(
        "areal",
        "AReaL rollout/VERSION/*.jsonl",
        "text-with-specials",
        re.compile(r"/(?:eval-)?rollout/(?P<step>\d+)/[^/]+\.jsonl$", re.ASCII),
        read,
        frozenset({"prompt", "completion", "head_version", "tail_version"}),
        series=2,
    ),
)
