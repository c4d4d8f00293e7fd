"""Measuring as training goes: a few prompts, replayed every so many steps by the weights that are in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from opd_diag import stats
from opd_diag.errors import InputError, OpdDiagError
from opd_diag.inference import Model, sample_rollouts, score, wrap_model
from opd_diag.integrations.known_trainer import KnownTrainer
from opd_diag.records.prompt import load_prompts, prompt_of
from opd_diag.records.rollout import Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.tables import measure
from opd_diag.tables.catalogue import METRIC_NAMES
from opd_diag.tables.rows import sample_of
from opd_diag.tokenization import EncodedPrompt, Tokenizer, encode_prompts

PROBED = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "entropy_gap", "reverse_kl")
"""Metrics that are logged."""

Means = dict[str, float]
"""Value of each metric of `PROBED`."""


@dataclass(frozen=True)
class Probe:
    """What to measure every so many steps, with the weights in memory, and to log wherever the trainer logs.

    It logs ``opd_diag/<metric>`` on the student's own responses and ``opd_diag/start/<metric>`` at the states of its
    responses at the first probe, with ``opd_diag/policy_change/<metric>`` and ``opd_diag/state_change/<metric>``: what
    of the change since then is the policy's, and what comes from going to other states. Values are token means without
    intervals: a handful of prompts shows a drift, a report afterwards says what is established.
    """

    every: int = 50
    """Steps between two probes; the first is before the first update."""
    n_prompts: int = 16
    """Prompts that are replayed."""
    max_new_tokens: int = 64
    """Most tokens of a response."""
    k: int = 16
    """Tokens compared."""
    seed: int = 0
    """Of sampling; training's own random numbers are left alone."""
    prompts: str | Path | None = None
    """Prompts file; default: prompts of the training set."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.n_prompts < 1:
            raise InputError(
                f"every and n_prompts of a probe must be at least 1, found {self.every}, {self.n_prompts}."
            )

    def prepared(self, trainer: Any) -> Probing:
        """Check that a trainer can be probed, before it trains.

        Raises
        ------
        InputError
            It has no teacher in memory, or spreads its weights over processes.
        """
        known = KnownTrainer(trainer)
        if known.teacher_model is None:
            raise InputError("A probe needs a trainer that holds its teacher. Leave probe out of record(trainer).")
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "A probe needs whole weights, and FSDP and DeepSpeed spread them over processes. Leave probe out of "
                "record(trainer)."
            )
        tokenizer = Tokenizer(known.tokenizer, "the trainer")
        if self.prompts is not None:
            prompts = load_prompts(self.prompts)[: self.n_prompts]
        else:
            records = known.prompts(self.n_prompts)
            prompts = [prompt_of(record, "training set", n) for n, record in enumerate(records, start=1)]
        template = getattr(trainer, "chat_template_kwargs", None) or {}
        return Probing(self, trainer, known, tokenizer, encode_prompts(prompts, tokenizer, template_kwargs=template))


class Probing:
    """A probe of one trainer."""

    def __init__(
        self,
        probe: Probe,
        trainer: Any,
        known: KnownTrainer,
        tokenizer: Tokenizer,
        prompts: Sequence[EncodedPrompt],
    ) -> None:
        self.probe, self.trainer, self.known = probe, trainer, known
        self.tokenizer, self.prompts = tokenizer, prompts
        self.start: tuple[list[Rollout], Means] | None = None
        """Responses at the first probe, and what they gave."""
        self.stopped = False

    def measure(self) -> None:
        """Measure, where the time has come, and log; where a model cannot be replayed, warn and measure no more."""
        step = self.trainer.state.global_step
        if self.stopped or step % self.probe.every or not self.trainer.accelerator.is_main_process:
            return
        try:
            with self._models(step) as (student, teacher):
                values = self._measured(student, teacher)
        except OpdDiagError as error:
            self.stopped = True
            warnings.warn(f"opd-diag: {error} Nothing more is probed.", stacklevel=2)
        else:
            self._log(values)

    def _log(self, values: dict[str, float]) -> None:
        """Log as the Trainer does, and leave the log that the trainer is about to write as it is."""
        due = self.trainer.control.should_log  # which any log takes back
        transformers.Trainer.log(self.trainer, values)  # TRL's own would also empty what it gathers for its next one
        self.trainer.control.should_log = due

    def _measured(self, student: Model, teacher: Model) -> dict[str, float]:
        sampling = Sampling(1, self.probe.max_new_tokens, seed=self.probe.seed)
        size = min(student.vocabulary, teacher.vocabulary, self.tokenizer.size)
        own = sample_rollouts(student, self.tokenizer, self.prompts, sampling=sampling, vocabulary=size)
        now = self._means(student, teacher, own, "on-policy")
        if self.start is None:
            self.start = own, now
            return {f"opd_diag/{name}": value for name, value in now.items()}
        responses, first = self.start
        there = self._means(student, teacher, responses, "start")
        values: dict[str, float] = {}
        for name in PROBED:
            values |= {f"opd_diag/{name}": now[name], f"opd_diag/start/{name}": there[name]}
            values[f"opd_diag/policy_change/{name}"] = there[name] - first[name]
            values[f"opd_diag/state_change/{name}"] = now[name] - there[name]
        return values

    def _means(self, student: Model, teacher: Model, rollouts: Sequence[Rollout], states: str) -> Means:
        scores = score(student, teacher, rollouts, states=states)
        values, prompts, weights = sample_of(measure(scores, rollouts, k=min(self.probe.k, scores.k_kept)))
        means = stats.clustered_means(values, prompts, weights=weights)
        return {name: mean.value for name, mean in zip(METRIC_NAMES, means, strict=True) if name in PROBED}

    @contextmanager
    def _models(self, step: int) -> Iterator[tuple[Model, Model]]:
        """Give both models in evaluation mode, and put every module back into its own mode after."""
        student = _without_adapter_class(self.trainer.accelerator.unwrap_model(self.trainer.model))
        teacher = _without_adapter_class(self.known.teacher_model)
        modes = [(module, module.training) for model in (student, teacher) for module in model.modules()]
        try:
            yield (
                wrap_model(student, name="student", label=f"step {step}", step=step, stop_ids=self.known.stop_ids),
                wrap_model(teacher, name="teacher", stop_ids=self.known.stop_ids),
            )
        finally:
            for module, training in modes:
                module.training = training


def _without_adapter_class(model: Any) -> Any:
    """Give the transformers model that an adapter was put into: its layers have the adapter, whoever holds it."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
