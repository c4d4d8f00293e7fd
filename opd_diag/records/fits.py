"""What needs a second pass over both models, at some of the states of one set: tempered students, gradients.

One safetensors file per (checkpoint, state set). It holds what the temperature fit and the gradient coherence follow
from, with their intervals and their differences between checkpoints, so that none of them needs a model again. Letters:
N states of the subsample, G temperatures, P prompts that the states come from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from opd_diag.errors import StoreError
from opd_diag.records.arrays import load_described, save_arrays

FITS_VERSION = 1
"""Raised whenever the same states and models would give other numbers, or numbers another meaning."""

TEMPERATURES = tuple(2.0 ** (j / 4) for j in range(-8, 9))
"""G = 17 temperatures from 1/4 to 4, evenly spaced in their logarithm; 1 is one of them."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fits:
    """Tempered students and gradients at N states."""

    prompt_index: Ints
    """(N,) prompt of each state."""
    rollout_index: Ints
    """(N,) which response to it."""
    position: Ints
    """(N,) index of the response token that the state predicts."""
    tempered_reverse_kl: Floats
    """(N, G) KL(p^(1/τ)‖q) over the whole vocabulary at each of `TEMPERATURES`, in nats; not finite where undefined."""
    tempered_slope: Floats
    """(N, G) its derivative by log τ."""
    has_gradient: Bools
    """(N,) whether the gradient is defined there; of a model without a linear head, nowhere."""
    prompts: Ints
    """(P,) all of `prompt_index`, in order."""
    gradient_products: Floats
    """(P, P) Σ ⟨G_t, G_u⟩ over the states t of one prompt and u of another."""
    gradient_squared_norms: Floats
    """(P,) Σ ‖G_t‖² over the states of a prompt."""
    least_squared_norms: Floats
    """(P,) what it would be if both models differed by no more than float32 can tell from nothing."""
    about: dict[str, Any]
    """Of what they are: label, step and state set."""

    def __len__(self) -> int:
        """Count the states."""
        return len(self.position)

    @property
    def label(self) -> str:
        """Label of the checkpoint."""
        return str(self.about["label"])

    @property
    def states(self) -> str:
        """Name of the state set."""
        return str(self.about["states"])

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        about = {"fits_version": FITS_VERSION, "about": self.about}
        save_arrays(path, {name: getattr(self, name) for name in FIT_FIELDS}, about)

    @classmethod
    def load(cls, path: Path) -> Fits:
        """Read a file of :meth:`save`.

        Raises
        ------
        StoreError
            The file is missing, damaged, or of another version.
        """
        arrays, about = load_described(path)
        if about.get("fits_version") != FITS_VERSION:
            raise StoreError(
                f"{path} has fits version {about.get('fits_version')}, this opd-diag reads {FITS_VERSION}. Delete the "
                "file and run report again."
            )
        try:
            return cls(**{name: arrays[name] for name in FIT_FIELDS}, about=about["about"])
        except KeyError as error:
            raise StoreError(f"{path} lacks {error}. Delete it and run report again.") from error


FIT_FIELDS = tuple(f.name for f in fields(Fits) if f.name != "about")
"""Names of the arrays, in file order."""
