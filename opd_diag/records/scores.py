"""All that metrics need about N states, written once and memory-mapped after.

One safetensors file per (checkpoint, teacher, state set): one tensor per field, provenance in its metadata. The
distributions are those of the full common vocabulary, in natural logarithms. Letters: N states, K kept tokens
(32, or the vocabulary when that is smaller), G points of the concentration curve.

A state is (rollout, position): what precedes one response token. A truncated rollout has one more, *terminal* state
after its last token; it has no sampled token and serves the stop metrics alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from opd_diag.errors import StoreError
from opd_diag.records.arrays import load_described, save_arrays

SCORES_VERSION = 3
"""Raised whenever a field is added or changes its meaning; older versions then leave such a folder alone."""

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """Scores of N states under one student and one teacher. All log-probabilities and divergences in nats."""

    rollout: Ints
    """(N,) row of the rollout in its file."""
    position: Ints
    """(N,) index of the response token that the state predicts, from 0."""
    terminal: Bools
    """(N,) whether the state stands after the last token of a truncated rollout."""
    sampled_ids: Ints
    """(N,) id that was sampled there; -1 at terminal states."""
    student_sampled_logprobs: Floats
    """(N,) student's log-probability of the sampled id; NaN at terminal states."""
    teacher_sampled_logprobs: Floats
    """(N,) teacher's log-probability of the sampled id; NaN at terminal states."""
    student_topk_ids: Ints
    """(N, K) the student's most probable ids, best first, ties by lower id."""
    student_topk_logprobs: Floats
    """(N, K) the student's log-probabilities at `student_topk_ids`."""
    teacher_at_student_topk_logprobs: Floats
    """(N, K) the teacher's log-probabilities at `student_topk_ids`, exact."""
    teacher_topk_ids: Ints
    """(N, K) the teacher's most probable ids, best first, ties by lower id."""
    teacher_topk_logprobs: Floats
    """(N, K) the teacher's log-probabilities at `teacher_topk_ids`."""
    student_at_teacher_topk_logprobs: Floats
    """(N, K) the student's log-probabilities at `teacher_topk_ids`, exact."""
    student_entropy: Floats
    """(N,) entropy of the student over the whole vocabulary, in [0, log V]."""
    teacher_entropy: Floats
    """(N,) entropy of the teacher over the whole vocabulary, in [0, log V]."""
    reverse_kl: Floats
    """(N,) KL(student‖teacher), >= 0."""
    forward_kl: Floats
    """(N,) KL(teacher‖student), >= 0."""
    jensen_shannon: Floats
    """(N,) Jensen–Shannon divergence, in [0, log 2]."""
    common_mass: Floats
    """(N,) Σ min(p, q), in [0, 1]."""
    curve_shared: Ints
    """(N, G) tokens that both top-k share, at each k of the grid, in [0, k]."""
    curve_student_shared_mass: Floats
    """(N, G) student probability on the shared tokens, in [0, 1]."""
    curve_teacher_shared_mass: Floats
    """(N, G) teacher probability on the shared tokens, in [0, 1]."""
    curve_student_mass: Floats
    """(N, G) student probability on its own top-k, in [0, 1]."""
    curve_teacher_mass: Floats
    """(N, G) teacher probability on its own top-k, in [0, 1]."""
    student_stop_logprobs: Floats
    """(N,) student's log-probability of stopping (union of both models' stop ids); -inf where no id stops."""
    teacher_stop_logprobs: Floats
    """(N,) teacher's log-probability of stopping; -inf where no id stops."""
    gradient_squared_norm: Floats
    """(N,) ‖p ⊙ (log p - log q - KL)‖², the reverse-KL gradient at the student's logits; the shares of kept tokens
    follow from the kept log-probabilities."""
    centred_reverse_kl: Floats
    """(N,) float64: `reverse_kl` minus the log-ratio at the student's most probable token, summed as such; where that
    token is nearly certain the difference of the two would have no digits, and the gradient there needs them."""
    student_cut_mass: Floats
    """(N,) student probability on ids outside the common vocabulary, cut before all else, in [0, 1]."""
    teacher_cut_mass: Floats
    """(N,) teacher probability on ids outside the common vocabulary, cut before all else, in [0, 1]."""
    grid: tuple[int, ...]
    """The k of the concentration curve."""
    provenance: dict[str, Any]
    """What was scored and how: models, vocabulary, temperatures, dtype, versions."""
    bounds: Mapping[str, Floats] = field(default_factory=dict)
    """By field, (N, J, 2): the least and the greatest it can be, had a teacher behind a server returned only the first
    k of its most probable ids, for each k of `bound_ks`. Where the last two differ the field itself is NaN: it is not
    known. Empty where the whole distributions were seen."""
    drawn: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """``ids``, ``student_logprobs`` and ``teacher_logprobs``, each (N,): of a token drawn from the student at every
    state, for estimates, where a server could be asked for its log-probability. Else empty."""
    bound_ks: tuple[int, ...] = ()
    """The k of `bounds`, increasing; the last is what the server returned."""

    def __len__(self) -> int:
        """Count the states, terminal ones included."""
        return len(self.rollout)

    @property
    def k_kept(self) -> int:
        """K, the number of kept tokens."""
        return int(self.student_topk_ids.shape[1])

    def ends(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give (N,) the least and the greatest that a field can be; the field itself where it is known."""
        known = np.asarray(getattr(self, name), dtype=np.float64)
        if name not in self.bounds:
            return known, known
        low, high = np.asarray(self.bounds[name], dtype=np.float64)[:, -1].T
        return np.where(np.isnan(known), low, known), np.where(np.isnan(known), high, known)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        about = {"scores_version": SCORES_VERSION, "grid": self.grid, "provenance": self.provenance}
        bounds = {f"{_BOUNDS}{name}": array for name, array in self.bounds.items()}
        arrays = {name: getattr(self, name) for name in TENSOR_FIELDS}
        drawn = {f"{_DRAWN}{name}": array for name, array in self.drawn.items()}
        save_arrays(path, arrays | bounds | drawn, about | {"bound_ks": self.bound_ks})

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read a file of :meth:`save`, memory-mapped.

        Raises
        ------
        StoreError
            The file is missing, damaged, or of another version.
        """
        arrays, about = load_described(path)
        if about.get("scores_version") != SCORES_VERSION:
            raise StoreError(
                f"{path} has scores version {about.get('scores_version')}, this opd-diag reads "
                f"{SCORES_VERSION}. Delete the file and run report again."
            )
        try:
            tensors: dict[str, Any] = {name: arrays[name] for name in TENSOR_FIELDS}
            bounds, drawn = (_named(arrays, prefix) for prefix in (_BOUNDS, _DRAWN))
            known: dict[str, Any] = {name: tuple(about[name]) for name in ("grid", "bound_ks")}
            return cls(**tensors, **known, provenance=about["provenance"], bounds=bounds, drawn=drawn)
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path} is no readable scores file: {error}. Delete it and run report again.") from error


_NO_TENSORS = ("grid", "provenance", "bounds", "drawn", "bound_ks")

TENSOR_FIELDS = tuple(f.name for f in fields(Scores) if f.name not in _NO_TENSORS)
"""Names of the tensors that every file has, in file order."""

OF_WHOLE = (
    *("teacher_entropy", "reverse_kl", "forward_kl", "jensen_shannon", "common_mass", "teacher_stop_logprobs"),
    *("gradient_squared_norm", "centred_reverse_kl"),
)
"""Fields that take the teacher's whole distribution: NaN where a server returned only a part of it."""

_BOUNDS, _DRAWN = "bounds.", "drawn."
"""Stand before the names of the tensors of `Scores.bounds` and `Scores.drawn`."""


def _named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Give the arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): of for name, of in arrays.items() if name.startswith(prefix)}
