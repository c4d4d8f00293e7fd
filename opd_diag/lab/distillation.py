"""On-policy distillation of a tiny student, with TRL's own trainer."""

import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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
from opd_diag.lab.tokenizer import load_tokenizer

MAX_NEW_TOKENS = 48
#: Keys of the trainer's log that tell of the machine's speed, not of the run.
CLOCK_KEYS = frozenset({"step_time"})

MANIFEST = """\
student = "{student}"
teacher = "{teacher}"
prompts = "{prompts}"

[sampling]
rollouts_per_prompt = 2
max_prompts = 64
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


class _SaveAt(TrainerCallback):
    """Ask the trainer for a checkpoint after the given steps."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = frozenset(steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_save = state.global_step in self.steps
        return control


def distil(student: Path, teacher: Path, questions: list[str], distillation: Distillation, out: Path) -> None:
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
        Gets one folder ``checkpoint-STEP`` for each kept step.

    Raises
    ------
    MissingExtra
        If trl or datasets is not installed.

    Notes
    -----
    TRL tells Hugging Face that one of its trainers was made, where a network is at hand; the environment
    variable ``HF_HUB_DISABLE_TELEMETRY=1`` keeps it quiet.
    """
    trl, datasets = _import_extra("trl"), _import_extra("datasets")
    tokenizer = load_tokenizer(student)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.DistillationTrainer(
            model=load_model(student),
            teacher_model=load_model(teacher),
            args=trl.DistillationConfig(**_trainer_options(distillation, scratch)),
            train_dataset=datasets.Dataset.from_dict({"prompt": [as_messages(q) for q in questions]}),
            processing_class=tokenizer,
            callbacks=[_SaveAt(distillation.save_at)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        for step in distillation.save_at:
            name = f"checkpoint-{step}"
            _keep_checkpoint(Path(scratch) / name, tokenizer, out / name)


def write_manifest(run: Path, *, student: str, teacher: str, prompts: str) -> None:
    """Write the ``opd-diag.toml`` of a run; paths are relative to the run's folder."""
    text = MANIFEST.format(student=student, teacher=teacher, prompts=prompts, max_new_tokens=MAX_NEW_TOKENS)
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


def _import_extra(package: str) -> ModuleType:
    """Import a package of the ``lab`` extra, or say how to get it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(package, extra="lab") from error
