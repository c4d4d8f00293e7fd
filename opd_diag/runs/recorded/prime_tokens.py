"""What prime-rl trained on, ``token_exports/step_N/rank_R.jsonl``: ids, masks and log-probabilities, token by token.

One line a sequence, without padding; the response starts at the first token of the loss mask, and what lies between
two of its stretches is tool output. Which policy version wrote it is not recorded, and the sampler runs ahead of the
trainer by design, so that the updates are unknown; ``traces.jsonl`` has them. Source:
``src/prime_rl/trainer/rl/token_export.py`` (schema 1) and ``train.py``, which aligns log-probabilities with the token
they are of, of 2026-08.
"""

from __future__ import annotations

import re

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.tokens import with_ids
from opd_diag.runs.recorded.values import Values, logprobs, mask, named, token_ids, whole


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the sequences that one rank trained on at one step.

    Raises
    ------
    RolloutsError
        A line is no record of prime-rl's.
    """
    return reading.kept(file.path, [_recorded(record, place, file) for place, record in rows(file.path, reading)])


def _recorded(record: Values, place: str, file: RecordedFile) -> Recorded | None:
    blank = Recorded(
        place=place,
        step=whole(record, "step", place, file.step),
        updates=None,
        exactness="ids",
        group=named(record.get("env_name")),
    )
    return with_ids(
        blank,
        token_ids(record, "token_ids", place),
        mask(record, "loss_mask", place),
        logprobs(record, "inference_logprobs", place),
    )


FORMATS = (
    Format(
        "prime-tokens",
        "prime-rl token_exports/step_N/rank_R.jsonl",
        "ids",
        re.compile(r"/token_exports/step_(?P<step>\d+)/rank_\d+\.jsonl$", re.ASCII),
        read,
        frozenset({"token_ids", "loss_mask"}),
        series=2,
    ),
)
