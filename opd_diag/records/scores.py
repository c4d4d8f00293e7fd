"""All that metrics need about N states, written once and memory-mapped after.

One safetensors file per (checkpoint, teacher, state set): one tensor per field, provenance in its metadata. The
distributions are those of the full common vocabulary, in natural logarithms. Letters: N states, K kept tokens
(32, or the vocabulary when that is smaller), G points of the concentration curve.

A state is (rollout, position): what precedes one response token. A truncated rollout has one more, *terminal* state
after its last token; it has no sampled token and serves the stop metrics alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from opd_diag.errors import StoreError
from opd_diag.records.files import replaced_whole

SCORES_VERSION = 1
"""Raised whenever a field is added or changes its meaning; older versions then leave such a folder alone."""

METADATA_KEY = "opd-diag"
"""Key of the file's metadata: JSON with version, grid and provenance."""

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
    student_cut_mass: Floats
    """(N,) student probability on ids outside the common vocabulary, cut before all else, in [0, 1]."""
    teacher_cut_mass: Floats
    """(N,) teacher probability on ids outside the common vocabulary, cut before all else, in [0, 1]."""
    grid: tuple[int, ...]
    """The k of the concentration curve."""
    provenance: dict[str, Any]
    """What was scored and how: models, vocabulary, temperatures, dtype, versions."""

    def __len__(self) -> int:
        """Count the states, terminal ones included."""
        return len(self.rollout)

    @property
    def k_kept(self) -> int:
        """K, the number of kept tokens."""
        return int(self.student_topk_ids.shape[1])

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        about = {"scores_version": SCORES_VERSION, "grid": self.grid, "provenance": self.provenance}
        save_arrays(path, {name: getattr(self, name) for name in TENSOR_FIELDS}, about)

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read a file of :meth:`save`, memory-mapped.

        Raises
        ------
        StoreError
            The file is missing, damaged, or of another version.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
                if about.get("scores_version") != SCORES_VERSION:
                    raise StoreError(
                        f"{path} has scores version {about.get('scores_version')}, this opd-diag reads "
                        f"{SCORES_VERSION}. Delete the file and run report again."
                    )
                tensors = {name: file.get_tensor(name) for name in TENSOR_FIELDS}
                return cls(**tensors, grid=tuple(about["grid"]), provenance=about["provenance"])
        except StoreError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is no readable scores file: {error}. Delete it and run report again.") from error


TENSOR_FIELDS = tuple(f.name for f in fields(Scores) if f.name not in ("grid", "provenance"))
"""Names of the tensors, in file order."""


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], about: dict[str, Any] | None = None) -> None:
    """Write arrays, and what is said about them, as one safetensors file, whole or not at all."""
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replaced_whole(path) as part:
        try:
            # One key only: safetensors writes several in random order, and equal arrays should be equal files.
            save_file(tensors, part, metadata=about and {METADATA_KEY: json.dumps(about, sort_keys=True)})
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))  # the system's error, as text alone
            raise OSError(int(number[1]) if number else 0, str(error)) from error


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of :func:`save_arrays`.

    Raises
    ------
    StoreError
        The file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is no readable file of arrays: {error}. Delete it and run report again.") from error
