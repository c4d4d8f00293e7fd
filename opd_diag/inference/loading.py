"""From a folder or hub id to a model that can be run: no unpickling, no remote code unless asked for."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor

from opd_diag.errors import CheckpointError, InputError, MissingExtra
from opd_diag.inference.adapters import merged, some
from opd_diag.inference.head import Head, read_head
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.tokenization import split_revision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Model:
    """A causal language model: its body, its head, and what must be known to sample from and to score with it."""

    name: str
    """As tables and messages call it."""
    hf: Any
    """The transformers model, in evaluation mode."""
    head: Head
    stop_ids: tuple[int, ...]
    """Ids that end a response, from its generation settings and tokenizer."""
    context: int | None
    """Most tokens it takes; None when it does not say."""
    label: str = ""
    """Label of the checkpoint; empty for a teacher."""
    step: int | None = None
    """Optimiser step of the checkpoint; None when unknown."""
    key: str = ""
    """Fingerprint of the weights; equal weights, equal key."""

    @property
    def vocabulary(self) -> int:
        """Rows of the head, padding rows included."""
        return int(self.head.weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the body; the head always computes in float32."""
        dtype: torch.dtype = self.hf.dtype
        return dtype

    def hidden(self, tokens: Tensor) -> Tensor:
        """Give the (batch, length, d) last hidden states of (batch, length) tokens, right-padded or not padded.

        No mask is passed: under causal attention no token sees the padding behind it.
        """
        states: Tensor = self.hf.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return states

    @property
    def takes_positions(self) -> bool:
        """Whether the body takes position ids; where it does not, it derives positions from the mask."""
        return "position_ids" in self._arguments

    @property
    def takes_cache(self) -> bool:
        """Whether the body takes the key–value cache that sampling needs."""
        return "past_key_values" in self._arguments

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.hf.base_model.forward).parameters)


def wrap_model(hf_model: Any, *, name: str, stop_ids: tuple[int, ...] | None = None, **known: Any) -> Model:
    """Make a :class:`Model` of a transformers causal language model that is already loaded.

    Parameters
    ----------
    hf_model
        The model; it is put into evaluation mode.
    name
        As tables and messages call it.
    stop_ids
        Ids that end a response; default: those of its generation settings.
    known
        `label`, `step`, `key`, where known.
    """
    hf_model.eval()
    config = hf_model.config.get_text_config()
    return Model(
        name=name,
        hf=hf_model,
        head=read_head(hf_model),
        stop_ids=_stop_ids(hf_model) if stop_ids is None else tuple(sorted(set(stop_ids))),
        context=getattr(config, "max_position_embeddings", None),
        **known,
    )


def load_model(
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    key: str = "",
    dtype: str = "float32",
    device: str = "auto",
    stop_ids: tuple[int, ...] = (),
    trust_remote_code: bool = False,
) -> Model:
    """Load a checkpoint: full weights, or a PEFT adapter merged (in float32) into its base model.

    Parameters
    ----------
    checkpoint
        From :func:`~opd_diag.runs.find_checkpoints`, or made by hand.
    name
        As tables and messages call it; default: its label.
    key
        Fingerprint of the weights.
    dtype
        ``float32``, ``bfloat16`` or ``float16``, of the body; the head computes in float32.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
    stop_ids
        Ids that end a response besides those of the model's generation settings: the tokenizer's.
    trust_remote_code
        Whether code that comes with the model may run.

    Raises
    ------
    CheckpointError
        The folder cannot be loaded: blocked, damaged, of an unknown architecture, or lacking weights.
    MissingExtra
        An adapter, and peft is not installed.
    InputError
        The device is unknown or not there.
    """
    if checkpoint.blocker is not None:
        raise CheckpointError(f"{checkpoint.label}: {checkpoint.blocker} {checkpoint.way_out or ''}".strip())
    target = resolve_device(device)
    where = checkpoint.base_model if checkpoint.kind == "adapter" else str(checkpoint.path)
    load_dtype = torch.float32 if checkpoint.kind == "adapter" else DTYPES[dtype]
    with _quiet(), _errors_of(checkpoint):
        model = _full(str(where), load_dtype, trust_remote_code)
        if checkpoint.kind == "adapter":
            model = merged(model, checkpoint.path, DTYPES[dtype])
        model = model.to(target)
    stops = (*_stop_ids(model), *stop_ids)
    known = {"label": checkpoint.label, "step": checkpoint.step, "key": key}
    return wrap_model(model, name=name or checkpoint.label, stop_ids=stops, **known)


def resolve_device(device: str) -> torch.device:
    """Give the device of a name; ``auto`` takes CUDA where it is there.

    Raises
    ------
    InputError
        The name is no device, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        if target.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(target.type)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"Device '{device}' is not available here. Use --device cpu or --device auto.") from error
    return target


def _full(source: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    name, revision = split_revision(source)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, by name
    )
    missing, mismatched = sorted(info["missing_keys"]), sorted(str(m[0]) for m in info["mismatched_keys"])
    if missing or mismatched:
        kind, names = ("lacks", missing) if missing else ("has other shapes than its config says for", mismatched)
        raise CheckpointError(
            f"{source} {kind} {len(names)} weights ({some(names)}). They would be random: save the checkpoint again."
        )
    surplus = [name for name in sorted(info["unexpected_keys"]) if _counts(name, model)]
    if surplus:
        raise CheckpointError(
            f"{source} has {len(surplus)} weights that its config leaves no place for ({some(surplus)}). They would "
            "be left out: save the checkpoint again with the config that it was trained with."
        )
    return model


def _counts(name: str, model: Any) -> bool:
    """Tell whether a weight would change logits: one of the body or the head, not a value head beside them."""
    head = next((n for n, module in model.named_modules() if module is model.get_output_embeddings()), None)
    return name.startswith(tuple(f"{part}." for part in (model.base_model_prefix, head) if part))


def _stop_ids(model: Any) -> tuple[int, ...]:
    ids = getattr(model.generation_config, "eos_token_id", None)
    if ids is None:
        ids = getattr(model.config.get_text_config(), "eos_token_id", None)
    if ids is None:
        return ()
    return tuple(sorted(set(ids if isinstance(ids, list) else [ids])))


_LIBRARY_ERRORS = (
    *(OSError, ImportError, RuntimeError, SafetensorError),
    # what nonsense in a config.json ends in, which transformers checks in part
    *(StrictDataclassError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
)


@contextlib.contextmanager
def _errors_of(checkpoint: Checkpoint) -> Iterator[None]:
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
def _quiet() -> Iterator[None]:
    """Keep progress bars, advice and warnings of the libraries off the terminal: only the terminal door draws.

    What they warn of and matters (weights that are missing or left over) is refused here instead.
    """
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
