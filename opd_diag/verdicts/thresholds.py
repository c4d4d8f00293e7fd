"""Every threshold of the verdicts, with where it comes from; none of them is a law of nature."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from opd_diag.errors import InputError


@dataclass(frozen=True)
class Thresholds:
    """Numbers that verdicts hold values against."""

    overlap_ratio_change: float = 0.02
    """Least change of the overlap ratio that counts as one. Ours: a third of a token at k = 16; the paper's success
    moved .19 (arXiv 2604.13016, section 4.1)."""
    reverse_kl_change: float = 0.02
    """Least change of the reverse KL that counts, in nats. Ours."""
    forward_kl_change: float = 0.02
    """Least change of the forward KL at the teacher's states that counts, in nats. Ours."""
    unigram_entropy_change: float = 0.1
    """Least fall of the unigram entropy of the responses that counts as a loss of diversity, in nats, as against the
    start's and as against the teacher's responses (whose intervals must not meet besides). Ours."""
    entropy_gap_change: float = 0.02
    """Least change of the entropy gap that counts, in nats. Ours."""
    entropy_gap_small: float = 0.05
    """Entropy gap below which there is nothing left to narrow, in nats. Ours."""
    shared_mass: float = 0.90
    """Mass on shared tokens below which the pair is called far apart, at step 0 as at the end. Ours; the paper states
    .97–.99 for its runs and shows a base-initialised student clearly below (arXiv 2604.13016, section 4.1 and appendix
    C.2)."""
    held_share: float = 0.5
    """Least share of the fall of reverse KL on own states that must be policy change. Ours: below, most of the progress
    comes from visiting other states."""
    state_share: float = 0.1
    """Least share of that fall which, as state change, makes progress suspect of being a false success. Ours, and
    small, for it takes a sign of harm besides, and that is what tells apart the runs grown for this project (at
    the start's states .46 to .82 of the fall holds in collapsing tiny runs, .58 to .96 in healthy ones):
    a student that was far from its teacher looks closer at its old states as soon as it loses its certainty, rubbish
    or not."""
    accuracy_change: float = 0.02
    """Least change of the accuracy that counts. Ours."""
    order: float = 0.3
    """Least Kendall's tau of the steps' means, in the direction of the change, from three checkpoints on;
    accuracy, which may well recover from a fall, goes by the paired difference alone. Ours."""
    prompts: float = 5
    """Fewest prompts for any verdict. Ours: below, the interval rests on fewer than four degrees of freedom."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "thresholds") -> Thresholds:
        """Override single fields.

        Raises
        ------
        InputError
            There is no such threshold, or its value is no number.

        Examples
        --------
        >>> Thresholds.from_mapping({"shared_mass": 0.95}).shared_mass
        0.95
        """
        known = {f.name for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise InputError(f"{where}: there is no threshold '{name}'. Known: {', '.join(sorted(known))}.")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"{where}: {name} must be a number, found {value!r}.")
        return cls(**{name: float(value) for name, value in values.items()})


DEFAULTS = Thresholds()


def load_thresholds(path: str | Path) -> Thresholds:
    """Read thresholds from a TOML file with one ``name = number`` a line.

    Raises
    ------
    InputError
        The file cannot be read, or names what does not exist.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Thresholds file {path} cannot be read: {error}. Correct --thresholds.") from error
    return Thresholds.from_mapping(values, str(path))
