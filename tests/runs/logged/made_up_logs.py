"""Logs in the form in which trainers write them, a few lines each."""

import json
from pathlib import Path

from opd_diag.runs.logged.finding import LogFile, LogFormat, log_file_at

HF_STATE = {
    "global_step": 10,
    "max_steps": 20,
    "log_history": [
        {"loss": 0.5, "entropy": 1.25, "completions/mean_length": 18.5, "epoch": 0.25, "step": 5},
        {"eval_loss": 0.75, "eval_entropy": 1.5, "epoch": 0.25, "step": 5},
        {"loss": 0.25, "entropy": 1.0, "completions/mean_length": 17.5, "epoch": 0.5, "step": 10},
    ],
}

VERL = """\
{"step":0,"data":{"val-core/gsm8k/acc/mean@1":0.25}}
{"step":1,"data":{"actor/distillation/loss":0.5,"actor/distillation/student_mass":0.875,"training/global_step":1}}
{"step":2,"data":{"actor/distillation/loss":0.25,"actor/distillation/student_mass":0.9375,"training/global_step":2}}
"""

TINKER = """\
{"step": 0, "progress/batch": 0, "optim/lr": 0.0001, "test/env/all/reward": 0.5, "teacher_kl": 0.75}
{"step": 1, "progress/batch": 1, "optim/lr": 0.0001, "test/env/all/reward": 0.625, "teacher_kl": 0.5}
"""

PRIME = """\
{"step": 1, "time": 1755000000.5, "perf/throughput": 1000.0}
{"step": 1, "time": 1755000000.6, "ref_kl/mean": -0.75, "ref_kl/max": 0.0, "entropy/all/mean": 0.5}
{"step": 2, "time": 1755000001.6, "ref_kl/mean": -0.5, "ref_kl/max": 0.0, "entropy/all/mean": 0.25}
"""

SWIFT = """\
{"loss": 0.5, "teacher_kl": 0.25, "global_step/max_steps": "5/10", "elapsed_time": "1m 2s", "memory(GiB)": 20.5}
{"loss": 0.25, "teacher_kl": 0.125, "global_step/max_steps": "10/10", "elapsed_time": "2m 2s", "memory(GiB)": 20.5}
{"last_model_checkpoint": "output/v0/checkpoint-10", "log_history": [], "memory": 20.5}
"""

LLAMA_FACTORY = """\
{"current_steps": 10, "total_steps": 30, "loss": 1.5, "lr": 0.0001, "epoch": 0.5, "percentage": 33.33, "elapsed_time": "0:00:10"}
{"current_steps": 20, "total_steps": 30, "loss": 1.25, "lr": 0.0001, "epoch": 1.0, "percentage": 66.67, "elapsed_time": "0:00:20"}
"""  # noqa: E501

ROLL = {
    "kv": {},
    "log_history": [
        {"system/step": 0, "critic/kl": 0.5, "val_correct/all/mean": 0.25},
        {"system/step": 1, "critic/kl": 0.25},
    ],
    "step": 1,
}

TORCHTUNE = "Step 1 | loss:0.5 class_loss:0.75 kd_loss:0.25 lr:2e-05 \nStep 2 | loss:nan class_loss:0.5 \n"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def log(path: Path, content: object, form: LogFormat | None = None) -> LogFile:
    """Write a log and give its record."""
    found = log_file_at(write(path, content))
    assert form is None or found.format == form
    return found


def events(folder: Path, *scalars: tuple[str, int, float], text: str | None = None) -> Path:
    """A real event file, by torch's writer."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)
    if text is not None:
        writer.add_text("args", text)
    for tag, step, value in scalars:
        writer.add_scalar(tag, value, step)
    writer.close()
    return max(folder.iterdir())
