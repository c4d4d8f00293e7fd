"""The formats in which trainers record responses, in order of precedence where more than one fits a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from opd_diag.runs.recorded import (
    areal,
    kdflow,
    nemo_rl,
    own,
    prime_tokens,
    prime_traces,
    roll,
    skyrl_batches,
    skyrl_evals,
    slime,
    swift,
    trl,
    verl,
)
from opd_diag.runs.recorded.recorded_file import Format

_MODULES = (
    own,
    trl,
    verl,
    kdflow,
    slime,
    nemo_rl,
    prime_tokens,
    prime_traces,
    skyrl_batches,
    skyrl_evals,
    areal,
    swift,
    roll,
)
FORMATS: dict[str, Format] = {found.name: found for module in _MODULES for found in module.FORMATS}
"""Name to format; the name is what `RecordedFile.format` says."""

KNOWN = f"Known are {'; '.join(found.writer for found in FORMATS.values())}."
"""What messages say of them."""


def named_like(path: Path | str) -> list[Format]:
    """Give the formats that a file's path fits, by names alone; `path` is absolute."""
    posix = path.as_posix() if isinstance(path, Path) else path
    return [found for found in FORMATS.values() if found.name_pattern.search(posix)]


def with_fields(fields: frozenset[str], candidates: Iterable[Format]) -> Format | None:
    """Give the first of `candidates` whose fields a first line has; None when there is none."""
    return next((found for found in candidates if found.fields and found.fields <= fields), None)
