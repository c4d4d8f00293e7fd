"""Trainers of TRL on the bundled student, on the CPU, a few steps each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from opd_diag.records.prompt import load_prompts

DATA = Path(__file__).parents[2] / "data"
STUDENT, TEACHER = DATA / "student", DATA / "teachers" / "new"
PROMPTS = load_prompts(DATA / "prompts.jsonl")[:40]

WARNINGS = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
)
"""TRL 1.16 still says gradient where transformers 5.23 says activation checkpointing."""


def options(out: Path, **changed: Any) -> dict[str, Any]:
    """Give training arguments: four updates of eight responses, two checkpoints, every loss logged."""
    return {
        "output_dir": str(out),
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-4,
        "seed": 0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    } | changed


def of_prompts() -> Any:
    """Give the data set of a trainer that samples."""
    import datasets

    return datasets.Dataset.from_list([{"prompt": list(p.content), "answer": p.answer} for p in PROMPTS])


def of_messages() -> Any:
    """Give the data set of ``GKDTrainer``: prompts with responses, which are not used on-policy."""
    import datasets

    answered = [[*p.content, {"role": "assistant", "content": f"It is {p.answer}."}] for p in PROMPTS]
    return datasets.Dataset.from_list([{"messages": messages} for messages in answered])


def distillation(out: Path, *, lora: bool = False, evaluated: Any = None, **changed: Any) -> Any:
    """Make a ``DistillationTrainer``; with `lora`, of an adapter on the bundled student."""
    import trl

    student = loaded(STUDENT)
    if lora:
        import peft

        student = peft.get_peft_model(student, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    args = trl.DistillationConfig(**options(out, max_completion_length=12, **changed))
    more = together(of_prompts()) | {"eval_dataset": evaluated}
    return quiet(trl.DistillationTrainer(student, loaded(TEACHER), args=args, **more))


def gkd(out: Path, **changed: Any) -> Any:
    """Make a ``GKDTrainer`` that is on-policy throughout, unless `lmbda` says otherwise."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    more = {"max_new_tokens": 12, "lmbda": 1.0, "beta": 1.0, "temperature": 1.0, "max_length": 128}
    args = GKDConfig(**options(out, **more | changed))
    return quiet(GKDTrainer(loaded(STUDENT), loaded(TEACHER), args=args, **together(of_messages())))


def grpo(out: Path, **changed: Any) -> Any:
    """Make a ``GRPOTrainer``, which has no teacher."""
    import trl

    more = {"max_completion_length": 12, "num_generations": 2, "beta": 0.0, "log_completions": True}
    args = trl.GRPOConfig(**options(out, **more | changed))
    return quiet(trl.GRPOTrainer(loaded(STUDENT), shortness, args=args, **together(of_prompts())))


def rloo(out: Path, **changed: Any) -> Any:
    """Make a ``RLOOTrainer``, which has no teacher either."""
    import trl

    args = trl.RLOOConfig(**options(out, max_completion_length=12, num_generations=2, **changed))
    return quiet(trl.RLOOTrainer(loaded(STUDENT), shortness, args=args, **together(of_prompts())))


def shortness(completions: list[Any], **columns: Any) -> list[float]:
    """Reward short responses."""
    return [-len(completion[0]["content"]) / 100 for completion in completions]


def loaded(folder: Path) -> Any:
    """Load a bundled model."""
    from opd_diag.lab.models import load_model

    return load_model(folder)


def together(rows: Any) -> dict[str, Any]:
    """Give what every trainer takes besides."""
    from opd_diag.lab.tokenizer import load_tokenizer

    return {"train_dataset": rows, "processing_class": load_tokenizer(STUDENT)}


def quiet(trainer: Any) -> Any:
    """Take the printing of logs out."""
    import transformers

    trainer.remove_callback(transformers.PrinterCallback)
    return trainer
