"""Who samples the responses of a model: this process, or vLLM in one of its own (``--sampler``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from opd_diag.errors import InputError, MissingExtra
from opd_diag.inference import Keep, resolve_device, sample_rollouts, stored_stop_ids
from opd_diag.inference.loading import unchanged
from opd_diag.inference.shards import Progress
from opd_diag.inference.vllm_sampling import InVLLM, gives_logprobs, gpu_share, save_plain, variables_for, vllm_reads
from opd_diag.records.rollout import Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.records.settings import Settings
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.store import Store
from opd_diag.servers.vllm_beside import VLLMBeside
from opd_diag.tokenization import EncodedPrompt

VLLM_SAMPLED_VERSION = 2
"""Raised whenever vLLM would be asked otherwise for the same model and prompts."""

VLLM_TEMPERATURES = (0.01, 2.0)
"""Least and greatest above 0 that it samples at; it takes a lower one for the least, and refuses a higher one."""


class Sample(Protocol):
    """Samples responses of one model to prompts; parameters as of :func:`opd_diag.inference.sample_rollouts`."""

    def __call__(
        self, prompts: Sequence[EncodedPrompt], *, sampling: Sampling, progress: Progress, keep: Keep[list[Rollout]]
    ) -> list[Rollout]:
        """Give them sorted by (prompt, rollout)."""


@contextmanager
def sampler_of(writer: LazyModel, store: Store, *, vocabulary: int, as_teacher: bool) -> Iterator[Sample]:
    """Give what samples a model, as long as the block lasts; it is loaded, or vLLM begun, when a response is drawn.

    Parameters
    ----------
    writer
        The model.
    store
        On whose disk it is saved for vLLM, where vLLM does not read it as it is.
    vocabulary
        Only ids below it are drawn.
    as_teacher
        Whether it reads the prompts as the teacher sees them.

    Raises
    ------
    CheckpointError, ModelError
        The model cannot be loaded or sampled from.
    InputError
        vLLM cannot be used at all.
    """
    if not by_vllm(writer.settings):

        def sample(prompts: Sequence[EncodedPrompt], **how: object) -> list[Rollout]:
            drawable: dict[str, object] = {"vocabulary": vocabulary, "as_teacher": as_teacher}
            return sample_rollouts(writer.model, writer.tokenizer, prompts, **drawable, **how)  # type: ignore[arg-type]

        yield sample
        return
    engine = InVLLM(partial(_begun, writer, store, vocabulary), writer.checkpoint, writer.key, as_teacher=as_teacher)
    with ExitStack() as undo:
        undo.callback(engine.close, at_once=True)
        yield partial(engine.sample, writer.tokenizer)
        undo.pop_all()
    engine.close()


def by_vllm(settings: Settings) -> bool:
    """Whether vLLM samples what is sampled here."""
    return settings.sampler == "vllm"


def decides_draws(settings: Settings) -> list[object]:
    """Give what of the sampler decides which responses are drawn; nothing of ours, which was the only one once."""
    return ["vllm", VLLM_SAMPLED_VERSION] if by_vllm(settings) else []


def refuse_sampler(settings: Settings) -> None:
    """Refuse a sampler that is not installed, or that does not go with where models run; start nothing.

    Raises
    ------
    MissingExtra, InputError
        As said.
    """
    if not by_vllm(settings):
        return
    if settings.engine != "local":
        raise InputError(
            f"vLLM samples beside one process, found --sampler vllm with --engine {settings.engine}. Leave one of them "
            "out."
        )
    low, high = VLLM_TEMPERATURES
    if settings.temperature and not low <= settings.temperature <= high:
        raise InputError(
            f"Option temperature must be 0, or {low:g} to {high:g}, for --sampler vllm, found "
            f"{settings.temperature:g}. Change --temperature, or leave --sampler out."
        )
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtra("vllm", extra="vllm")


def note_of_sampler(settings: Settings) -> list[str]:
    """Say where log-probabilities as sampled cannot be held against replayed ones."""
    if not by_vllm(settings) or gives_logprobs(settings.sampling):
        return []
    return [
        "Below top-p 1 vLLM gives log-probabilities before top-p at temperature 1 alone. Those of the responses that "
        f"it samples at {settings.temperature:g} are not held against replayed ones."
    ]


def _begun(writer: LazyModel, store: Store, vocabulary: int, raw: bool) -> VLLMBeside:
    """Begin vLLM with a model; once that is loaded its folder is needed no more."""
    settings = writer.settings
    stops = stored_stop_ids(writer.checkpoint, trust_remote_code=settings.trust_remote_code) or ()
    with ExitStack() as undo:
        with _folder(writer, store) as folder:
            device = resolve_device(settings.device)
            engine = VLLMBeside(
                str(folder),
                name=writer.name,
                dtype=settings.dtype,
                drawable=vocabulary,
                stop_ids=tuple({*stops, *writer.tokenizer.stop_ids}),
                gpu_share=gpu_share(device),
                raw=raw,
                variables=variables_for(device),
            )
            undo.callback(engine.close, at_once=True)
        undo.pop_all()
    return engine


@contextmanager
def _folder(writer: LazyModel, store: Store) -> Iterator[Path]:
    """Give a folder that vLLM reads, with the very bytes that the parts are of."""
    if vllm_reads(writer.checkpoint):
        writer.refuse_changed()
        with unchanged(writer.content.stamps):
            yield writer.checkpoint.path
        return
    with store.scratch() as folder:
        save_plain(writer.model, folder)
        yield folder
