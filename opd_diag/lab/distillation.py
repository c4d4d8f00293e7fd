"""On-policy distillation of a tiny student, with TRL's own trainer."""

import importlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from opd_diag.errors import MissingExtra
from opd_diag.lab.models import load_model, save_model
from opd_diag.lab.prompts import as_messages
from opd_diag.lab.terminal import Say
from opd_diag.lab.tokenizer import load_tokenizer

MAX_NEW_TOKENS = 48
#: Keys of the trainer's log that tell of the machine's speed, not of the run.
CLOCK_KEYS = frozenset({"step_time"})

MANIFEST = """\
student = "{student}"
teacher = "{teacher}"
prompts = "{prompts}"
beta = 1.0

[sampling]
rollouts_per_prompt = 2
max_prompts = {max_prompts}
max_new_tokens = {max_new_tokens}
"""


@dataclass(frozen=True)
class Distillation:
    """How a student is distilled.

    Attributes
    ----------
    save_at : tuple of int
        Optimiser steps after which a checkpoint is kept; the last one ends the run.
    learning_rate : float
        Of AdamW; constant after ten steps of warm-up.
    batch_size : int
        Prompts (and rollouts) a step.
    seed : int
        Of the order of prompts and of the sampling.
    """

    save_at: tuple[int, ...] = (20, 40, 80, 160)
    learning_rate: float = 3e-4
    batch_size: int = 32
    seed: int = 0


class _KeepAt(TrainerCallback):
    """Keep checkpoints of the given steps as they come, so that a run that is stopped leaves what it had."""

    def __init__(self, steps: tuple[int, ...], tokenizer: PreTrainedTokenizerBase, out: Path, say: Say) -> None:
        self.steps, self.tokenizer, self.out, self.say = frozenset(steps), tokenizer, out, say

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_save = state.global_step in self.steps
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        name = f"checkpoint-{state.global_step}"
        source = Path(str(args.output_dir)) / name
        with torch.random.fork_rng(devices=[]):  # loading must not move the numbers that the run draws from
            _keep_checkpoint(source, self.tokenizer, self.out / name)
        shutil.rmtree(source)
        self.say(f"kept {name}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" in state.log_history[-1]:
            self.say(f"step {state.global_step} of {state.max_steps}, loss {state.log_history[-1]['loss']:.3f}")


def distil(
    student: Path,
    teacher: Path,
    questions: list[str],
    distillation: Distillation,
    out: Path,
    say: Say = lambda line: None,
) -> None:
    """Distil a student on-policy under reverse KL at temperature 1, and keep its checkpoints.

    Parameters
    ----------
    student, teacher : Path
        Folders of the two models; both are loaded in float32.
    questions : list of str
        What the student answers while it learns.
    distillation : Distillation
        How long and how fast.
    out : Path
        Gets one folder ``checkpoint-STEP`` for each kept step, as soon as the step is done.
    say : callable, optional
        Receives one line of progress at a time.

    Raises
    ------
    MissingExtra
        If trl or datasets is not installed.

    Notes
    -----
    TRL tells Hugging Face that one of its trainers was made, where a network is at hand; the environment
    variable ``HF_HUB_DISABLE_TELEMETRY=1`` keeps it quiet.
    """
    trl, datasets = import_extra("trl"), import_extra("datasets")
    tokenizer = load_tokenizer(student)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.DistillationTrainer(
            model=load_model(student),
            teacher_model=load_model(teacher),
            args=trl.DistillationConfig(**_trainer_options(distillation, scratch)),
            train_dataset=datasets.Dataset.from_dict({"prompt": [as_messages(q) for q in questions]}),
            processing_class=tokenizer,
            callbacks=[_KeepAt(distillation.save_at, tokenizer, out, say)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def write_manifest(run: Path, *, student: str, teacher: str, prompts: str, max_prompts: int = 64) -> None:
    """Write the ``opd-diag.toml`` of a run; paths are relative to the run's folder."""
    text = MANIFEST.format(
        student=student, teacher=teacher, prompts=prompts, max_prompts=max_prompts, max_new_tokens=MAX_NEW_TOKENS
    )
    (run / "opd-diag.toml").write_text(text, encoding="utf-8")


def _trainer_options(distillation: Distillation, scratch: str) -> dict[str, Any]:
    """Return what TRL's configuration is given; the rest stays at its defaults."""
    return {
        "output_dir": scratch,
        "beta": 1.0,
        "temperature": 1.0,
        "max_completion_length": MAX_NEW_TOKENS,
        "max_steps": max(distillation.save_at),
        "per_device_train_batch_size": distillation.batch_size,
        "learning_rate": distillation.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "seed": distillation.seed,
        "logging_steps": 5,
        "save_strategy": "no",
        "save_only_model": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "log_completions": False,
        "disable_tqdm": True,
    }


def _keep_checkpoint(source: Path, tokenizer: PreTrainedTokenizerBase, target: Path) -> None:
    """Copy what matters of a trainer's checkpoint: weights in bfloat16, tokenizer, the trainer's log."""
    save_model(load_model(source), tokenizer, target)
    state = json.loads((source / "trainer_state.json").read_text(encoding="utf-8"))
    state["log_history"] = [
        {key: value for key, value in entry.items() if key not in CLOCK_KEYS} for entry in state["log_history"]
    ]
    (target / "trainer_state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def import_extra(package: str, extra: str = "lab") -> ModuleType:
    """Import a package of an extra, or say how to get it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(package, extra=extra) from error
