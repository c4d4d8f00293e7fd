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
    """Numbers that verdicts hold values against.

    Raises
    ------
    InputError
        A value is no number, negative, or 0 where it is a change.
    """

    # Least changes that count (documented effects): δ of a metric is this, or twice its precision floor if larger.
    overlap_ratio_change: float = 0.02
    """Overlap ratio. Ours: a third of a token at k = 16; the paper's success moved .19 (arXiv 2604.13016, section
    4.1)."""
    reverse_kl_change: float = 0.02
    """Reverse KL, in nats. Ours: a tenth of what the least apart of the bundled pairs that have something to learn
    starts with."""
    forward_kl_change: float = 0.02
    """Forward KL at the teacher's states, in nats. Ours, as reverse KL."""
    entropy_gap_change: float = 0.02
    """Entropy gap, in nats. Ours."""
    unigram_entropy_change: float = 0.1
    """Unigram entropy of the responses, in nats: a loss of diversity, as against the start's and as against the
    teacher's responses (whose intervals must not meet besides). Ours."""
    accuracy_change: float = 0.02
    """Accuracy. Ours."""
    capability_change: float = 0.1
    """Accuracy of the teacher over the initial student's below which it brings no new capability. Ours: what 64 prompts
    can tell; a teacher from the same pipeline got 5 to 16 % of its lead across (arXiv 2604.13016, section 3.2)."""
    pass_at_k_change: float = 0.05
    """pass@k, and the share of prompts solved. Ours: what a few hundred prompts can tell."""
    repetition_rate_change: float = 0.1
    """Share of rollouts that end in a loop, over the start's and over the teacher's. Ours: a run that collapsed went
    from 0 to .3–.6 (arXiv 2604.08527, as reported)."""
    truncation_rate_change: float = 0.2
    """Share of rollouts that reach the limit, over the start's and over the teacher's. Ours: a run that collapsed went
    from .5 to .95 (arXiv 2604.08527, as reported)."""
    compression_ratio_change: float = 1.0
    """Raw over compressed length of the responses, over the start's and over the teacher's. Ours: plain text has 2 to
    4, text that loops 10 and more (arXiv 2604.08527, as reported)."""

    overlap_mass_change: float = 0.02
    """Probability on shared tokens. Ours, as the overlap ratio."""

    # Levels.
    entropy_gap_small: float = 0.05
    """Entropy gap below which there is nothing left to narrow, in nats. Ours."""
    shared_mass: float = 0.90
    """Mass on shared tokens below which the pair is called far apart, at step 0 as at the end. Ours; the paper states
    .97–.99 for its runs and shows a base-initialised student clearly below (arXiv 2604.13016, section 4.1 and appendix
    C.2)."""
    indistinguishable_kl: float = 0.01
    """Reverse KL at step 0 below which there is nothing to learn, in nats. Ours: half of the least change that
    counts."""
    teachers_alike: float = 0.1
    """KL between two teachers over their mean distance from the student below which the student cannot tell them apart.
    Ours: KL goes as the square of a small step, so that two such teachers pull within some 18 degrees of each other."""
    held_share: float = 0.5
    """Least share of the fall of reverse KL on own states that must be policy change. Ours: below, most of the progress
    comes from visiting other states."""
    state_share: float = 0.1
    """Least share of that fall which, as state change, makes progress suspect of being a false success. Ours, and
    small, for it takes a sign of harm besides, and that is what tells apart the runs grown for this project (at
    the start's states .46 to .82 of the fall holds in collapsing tiny runs, .58 to .96 in healthy ones):
    a student that was far from its teacher looks closer at its old states as soon as it loses its certainty, rubbish
    or not."""
    kept_share: float = 0.5
    """Least share of the teacher's responses that must be fit to be taught: below, those that are kept are others than
    the teacher writes. Ours."""
    kept_group_share: float = 0.5
    """Least part of its share of the prompts that a group keeps among the chosen. Ours: in real distillations groups
    that kept a quarter fell behind those taught on random prompts (``python -m benchmarks.prompts``)."""
    selection_entropy_share: float = 0.1
    """Share of the student's entropy that chosen prompts may cost, as against the others. Ours; in arXiv 2604.13016,
    section 5.2, aligned prompts had clearly less."""
    temperature: float = 0.25
    """Distance of the fitted temperature from 1 beyond which the student is over-sharp or over-flat. Ours: in runs that
    worked it was .80 to .91."""
    temperature_share: float = 0.25
    """Least share of the reverse KL that must go with the fitted temperature: below, it is about which tokens, and not
    about how sure. Ours."""
    stop_never: float = 0.1
    """Probability of stopping below which a model does not stop where the other does. Ours: a student whose stop token
    its teacher did not know had 1e-11, one that its teacher agreed with .67 to .98 (arXiv 2609.20511 and 2609.37326, as
    reported)."""
    stop_likely: float = 0.5
    """Probability of stopping from which a model wants to stop: more likely than not. Ours."""
    top_advantage_share: float = 0.9
    """Share of all sampled advantage in the hundredth of tokens with the largest, at the first checkpoint, above which
    the signal is concentrated in few tokens. Ours: tiny pairs that differ by one skill begin with .4 to .8."""
    near_zero_advantage: float = 0.9
    """Share of tokens without any advantage to speak of above which the signal is concentrated in the others. Ours; .52
    was reported for a run that worked (arXiv 2608.31046)."""
    depth_change: float = 0.1
    """Least rise of reverse KL from the early to the late half of the same rollouts, beyond that on the teacher's own,
    in nats. Ours."""
    entropy_depth_change: float = 0.1
    """Least rise of the student's entropy from a place on in its own responses, beyond that in the teacher's, in nats.
    Ours, as reverse KL by depth."""
    continuation_change: float = 0.1
    """Share of the teacher's advantage in continuing that is lost to a prefix of the student's, beyond what a prefix of
    its own as long loses. Ours: what some hundred prompts can tell; the paper's whole advantage fell from .37 to .02
    (arXiv 2604.13016, section 6.1)."""

    # What it takes to say anything.
    prompts: float = 5
    """Fewest prompts for any verdict. Ours: below, the interval rests on fewer than four degrees of freedom."""

    def __post_init__(self) -> None:
        """Refuse values that no rule can hold anything against."""
        for name, value in vars(self).items():
            _check(name, value, "thresholds")

    def effect(self, metric: str) -> float:
        """Give the documented effect of a metric: the least change that counts.

        Examples
        --------
        >>> Thresholds().effect("reverse_kl")
        0.02
        """
        return float(getattr(self, f"{_ESTIMATES.get(metric, metric)}_change"))

    @classmethod
    def of(cls, given: Thresholds | Mapping[str, float]) -> Thresholds:
        """Give thresholds as they are, or the defaults with the single fields that a mapping overrides."""
        return given if isinstance(given, Thresholds) else cls.from_mapping(given)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "thresholds") -> Thresholds:
        """Override single fields.

        Raises
        ------
        InputError
            There is no such threshold, or its value is no number, negative, or 0 where it is a change.

        Examples
        --------
        >>> Thresholds.from_mapping({"shared_mass": 0.95}).shared_mass
        0.95
        """
        known = {f.name for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise InputError(f"{where}: there is no threshold '{name}'. Known: {', '.join(sorted(known))}.")
            _check(name, value, where)
        return cls(**{name: float(value) for name, value in values.items()})


_ESTIMATES = {"tail_sampled_reverse_kl": "reverse_kl"}
"""Metrics that estimate another one."""


def _check(name: str, value: Any, where: str) -> None:
    """Refuse what is no number, negative, or 0 where it is a change."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{where}: {name} must be a number, found {value!r}.")
    if value < 0 or (value == 0 and name.endswith("_change")):
        least = "over 0, as no change is ever exactly none" if name.endswith("_change") else "at least 0"
        raise InputError(f"{where}: {name} must be {least}, found {value!r}.")


DEFAULTS = Thresholds()


def load_thresholds(path: str | Path | None) -> Thresholds:
    """Read thresholds from a TOML file with one ``name = number`` a line; None: the defaults.

    Raises
    ------
    InputError
        The file cannot be read, or names what does not exist.
    """
    if path is None:
        return DEFAULTS
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Thresholds file {path} cannot be read: {error}. Correct --thresholds.") from error
    return Thresholds.from_mapping(values, str(path))
