"""What the ids that occur in a report look like, so that a page needs no tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from opd_diag.errors import StoreError
from opd_diag.records.files import write_json


@dataclass(frozen=True)
class Token:
    """One vocabulary entry as people read it."""

    text: str
    """Decoded text; a lone byte of a character shows as ``<0xE2>``."""
    special: bool
    """Whether the tokenizer calls it a special token."""


def save_vocabulary(path: Path, tokens: dict[int, Token]) -> None:
    """Write the ids that occur, lowest first."""
    write_json(path, {str(i): {"text": t.text, "special": t.special} for i, t in sorted(tokens.items())})


def load_vocabulary(path: Path) -> dict[int, Token]:
    """Read a file of :func:`save_vocabulary`.

    Raises
    ------
    StoreError
        The file is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {int(i): Token(**entry) for i, entry in data.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is no readable vocabulary: {error}. Run report again.") from error
