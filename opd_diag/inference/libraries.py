"""What transformers, accelerate and peft print and raise: kept off the terminal, and made one sentence."""

from __future__ import annotations

import contextlib
import logging as python_logging
import warnings
from collections.abc import Iterator

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from opd_diag.errors import CheckpointError, MissingExtra
from opd_diag.records.checkpoint import Checkpoint

_LIBRARY_ERRORS = (
    *(OSError, ImportError, RuntimeError, SafetensorError),
    # what nonsense in a config.json ends in, which transformers checks in part
    *(StrictDataclassError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
)


@contextlib.contextmanager
def errors_of(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what libraries raise on a damaged or foreign folder into one sentence."""
    try:
        yield
    except (CheckpointError, MissingExtra):
        raise
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())
        where = checkpoint.path if checkpoint.base_model is None else f"{checkpoint.path} on {checkpoint.base_model}"
        raise CheckpointError(f"{checkpoint.label}: {where} does not load: {reason[:300]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, advice and warnings of the libraries off the terminal: only the terminal door draws.

    What they warn of and matters (weights that are missing or left over) is refused here instead.
    """
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    advice = python_logging.getLogger("accelerate")
    level = advice.level
    logging.set_verbosity_error()
    advice.setLevel(python_logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")
            yield
    finally:
        logging.set_verbosity(before)
        advice.setLevel(level)
        if bars:
            logging.enable_progress_bar()
