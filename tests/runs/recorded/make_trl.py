"""Make the parquet files in `trl/`: TRL's own trainers on the bundled student, on the CPU, half a minute.

``OMP_NUM_THREADS=1 python tests/runs/recorded/make_trl.py`` writes them anew. They were made with TRL 1.16.0.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "trl"
DATA = Path(__file__).parents[3] / "data"
STEPS = 2
BATCH = 4


def length(completions, **columns):
    """A reward function: minus the number of characters, in hundreds."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [-len(text) / 100 for text in texts]


def questions() -> list[str]:
    """What the student is asked."""
    from opd_diag.records.prompt import load_prompts

    return [prompt.content[0]["content"] for prompt in load_prompts(DATA / "prompts.jsonl")[:BATCH]]


def make(out: Path, watched=None) -> dict[str, Path]:
    """Train three times for two steps, and give the folder of each run.

    ``distillation`` and ``grpo`` on chat messages, ``grpo_text`` on plain text. `watched` gets the name and trainer of
    each run before it starts.
    """
    import datasets
    import trl
    from transformers import PrinterCallback

    from opd_diag.lab.models import load_model
    from opd_diag.lab.tokenizer import load_tokenizer

    run_dirs = {name: out / name for name in ("distillation", "grpo", "grpo_text")}
    tokenizer = load_tokenizer(DATA / "student")
    messages = datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in questions()])
    plain = datasets.Dataset.from_list([{"prompt": q} for q in questions()])
    trainers = [
        trl.DistillationTrainer(
            load_model(DATA / "student"),
            load_model(DATA / "teachers" / "new"),
            args=trl.DistillationConfig(**_options(run_dirs["distillation"])),
            train_dataset=messages,
            processing_class=tokenizer,
        )
    ]
    for name, rows in (("grpo", messages), ("grpo_text", plain)):
        config = trl.GRPOConfig(**_options(run_dirs[name]), num_generations=2, beta=0.0)
        student = load_model(DATA / "student")
        trainers.append(trl.GRPOTrainer(student, length, args=config, train_dataset=rows, processing_class=tokenizer))
    for name, trainer in zip(run_dirs, trainers, strict=True):
        trainer.remove_callback(PrinterCallback)
        if watched is not None:
            watched(name, trainer)
        trainer.train()
    return run_dirs


def _options(run_dir: Path) -> dict:
    return {
        "output_dir": str(run_dir),
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "max_completion_length": 24,
        "logging_steps": 1,
        "log_completions": True,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, run_dir in make(Path(scratch)).items():
            target = HERE / name / "completions"
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted((run_dir / "completions").iterdir()):
                (target / file.name).write_bytes(file.read_bytes())
                sys.stdout.write(f"{target / file.name}\n")
