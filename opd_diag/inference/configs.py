"""What a folder or hub id says of a model besides its weights: its config, and its generation settings."""

from __future__ import annotations

from typing import Any

import transformers

from opd_diag.tokenization import split_revision


def read_config(source: str, *, trust_remote_code: bool) -> Any:
    """Read the transformers config of a folder or hub id. Errors of the libraries pass."""
    name, revision = split_revision(source)
    return transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def generation_settings(*sources: str) -> Any:
    """Read the generation settings of the first folder or hub id that has some; None where none has."""
    for source in dict.fromkeys(sources):
        name, revision = split_revision(source)
        try:
            return transformers.GenerationConfig.from_pretrained(name, revision=revision)
        except (OSError, TypeError, ValueError):  # most folders of trainers have none
            continue
    return None
