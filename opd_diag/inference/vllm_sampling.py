"""Prompts → rollouts of a model that vLLM samples, in a process that lasts as long as its responses are wanted.

vLLM reads a folder of plain safetensors itself. Whatever else a checkpoint is (an adapter, shards, pickles, weights
without a config, a hub id) is loaded as for scoring and saved for it; so it never unpickles anything, and runs no code
of a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from opd_diag.inference.drawn_elsewhere import Asked, Elsewhere, sample_elsewhere
from opd_diag.inference.libraries import quiet
from opd_diag.inference.model import Model
from opd_diag.inference.sampling import refuse_long
from opd_diag.inference.shards import Keep, Progress, keep_nothing
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import unwritable
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.runs.weights import classify_weights
from opd_diag.servers import Sampled
from opd_diag.servers.vllm_beside import VLLMBeside
from opd_diag.tokenization import EncodedPrompt, Tokenizer

GPU_SHARE = 0.9
"""Of the GPU's memory that is free when the process begins: for a model once more, and its keys and values."""

READ_BY_VLLM = "full weights in safetensors with their config, and no other file that vLLM would read with them"
"""What it reads as it is, as words of a sentence."""

BESIDE = ("hf_quant_config.json", "consolidated*.safetensors")
"""Files that decide how vLLM reads others, and that nobody else reads: the second makes it read ``params.json``."""


class InVLLM:
    """A model that vLLM samples; its process begins when the first response has to be drawn.

    Parameters
    ----------
    begin
        Begins the process, whose log-probabilities are raw or not.
    checkpoint
        Whose weights, as records call them.
    key
        Fingerprint of the weights.
    as_teacher
        Whether it reads the prompts as the teacher sees them.
    """

    def __init__(
        self, begin: Callable[[bool], VLLMBeside], checkpoint: Checkpoint, key: str, *, as_teacher: bool
    ) -> None:
        self._begin, self._checkpoint, self._key, self._as_teacher = begin, checkpoint, key, as_teacher
        self._engine: VLLMBeside | None = None
        self._raw = False

    def sample(
        self,
        tokenizer: Tokenizer,
        prompts: Sequence[EncodedPrompt],
        *,
        sampling: Sampling,
        progress: Progress | None = None,
        keep: Keep[list[Rollout]] = keep_nothing,
    ) -> list[Rollout]:
        """Sample responses; parameters as :func:`~opd_diag.inference.sampling.sample_rollouts`.

        Returns
        -------
        list of Rollout
            Sorted by (prompt, rollout). vLLM draws with random numbers of its own, from seeds keyed by (seed, step or
            label, prompt). Log-probabilities as sampled are kept where it `gives_logprobs`.

        Raises
        ------
        PromptsError
            A prompt and the room for its response exceed the context.
        InputError, CheckpointError, ModelError
            As of :class:`~opd_diag.servers.vllm_beside.VLLMBeside`.
        """
        label, step = self._checkpoint.label, self._checkpoint.step
        source = Provenance.sampled(sampling, weights=label, weights_key=self._key, step=step)
        writer = Elsewhere(
            draw=partial(self._drawn, prompts, sampling),
            sampling=sampling,
            source=source,
            stream=f"{sampling.seed} {label if step is None else step}",
            as_teacher=self._as_teacher,
            keeps_logprobs=gives_logprobs(sampling),
        )
        return sample_elsewhere(writer, tokenizer, prompts, progress=progress, keep=keep)

    def close(self, *, at_once: bool = False) -> None:
        """End the process, if it began; parameters as :meth:`~opd_diag.servers.vllm_beside.VLLMBeside.close`."""
        if self._engine is not None:
            self._engine.close(at_once=at_once)
            self._engine = None

    def _drawn(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Sequence[Sampled]]]:
        raw = sampling.top_p < 1.0
        if raw != self._raw:
            self.close()
            self._raw = raw
        engine = self._engine = self._engine or self._begin(raw)
        seen = [(prompt, prompt.teacher_ids if self._as_teacher else prompt.ids) for prompt in prompts]
        refuse_long(seen, sampling.max_new_tokens, engine.context, name=f"{engine.name} in vLLM")
        return engine.sampled(
            asked,
            n=sampling.rollouts_per_prompt,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )


def gives_logprobs(sampling: Sampling) -> bool:
    """Whether vLLM gives log-probabilities as records have them, at the temperature and before top-p.

    It has those before both, and those after both; greedy sampling records those at temperature 1.
    """
    return sampling.top_p == 1.0 or sampling.temperature in (0.0, 1.0)


def vllm_reads(checkpoint: Checkpoint) -> bool:
    """Whether the folder of a checkpoint is one that vLLM reads as it is."""
    own = checkpoint.kind == "full" and checkpoint.config is None and checkpoint.path.is_dir()
    return own and unread_by_vllm(checkpoint.path) is None


def unread_by_vllm(folder: Path) -> str | None:
    """Say what in a folder is not `READ_BY_VLLM`; None where that is all."""
    found = classify_weights(folder)
    if found is None:
        return "no weights"
    if found.blocker is not None:
        return f"weights that cannot be loaded ({found.blocker.removesuffix('.')})"
    if found.kind != "full":
        return f"weights of another kind ({found.kind})"
    own = {file.name for file in found.files}
    if pickles := sorted(name for name in own if not name.endswith(".safetensors")):
        return f"weights in {pickles[0]}"
    all_there = {file.name for file in folder.glob("*.safetensors")}
    beside = (all_there - own) | {file.name for one in BESIDE for file in folder.glob(one)}
    return f"{min(beside)} beside them" if beside else None


def save_plain(model: Model, folder: Path) -> None:
    """Save a loaded model as plain safetensors with its config, and no generation settings of its own.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    settings = model.hf.generation_config
    model.hf.generation_config = transformers.GenerationConfig()  # theirs may be refused when they are saved
    try:
        with quiet():
            model.hf.save_pretrained(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    except SafetensorError as error:  # it hides the system's number
        raise unwritable(folder, OSError(0, str(error))) from error
    finally:
        model.hf.generation_config = settings


def gpu_share(device: torch.device) -> float:
    """Give the share of a GPU's memory that vLLM may have beside what is there; where there is none, no matter."""
    if device.type != "cuda":
        return GPU_SHARE
    torch.cuda.empty_cache()  # what no tensor uses
    free, total = torch.cuda.mem_get_info(device)
    return round(GPU_SHARE * free / total, 3)


def variables_for(device: torch.device) -> dict[str, str]:
    """Give the environment variables with which a process sees a GPU as its only one; none for the first.

    For a CPU they are those with which it sees no GPU.
    """
    if device.type != "cuda":
        return {"CUDA_VISIBLE_DEVICES": ""}
    if not device.index:
        return {}
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": listed[device.index] if listed != [""] else str(device.index)}
