"""What recording costs training: time in the recorder as a share of the time of a step, both of one run.

``python -m benchmarks.recording`` distils the bundled student for some steps with TRL, recorded, on the CPU.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from opd_diag.integrations import record
from opd_diag.integrations.trl import _RECORDING

DATA = Path(__file__).parents[1] / "data"


def measured(steps: int, batch: int, tokens: int) -> tuple[list[float], list[float]]:
    """Train, and give the seconds of each step and those of them that the recorder took, the first step left out."""
    import datasets
    import transformers
    import trl

    from opd_diag.lab.models import load_model
    from opd_diag.lab.tokenizer import load_tokenizer
    from opd_diag.records.prompt import load_prompts

    prompts = [{"prompt": list(prompt.content)} for prompt in load_prompts(DATA / "prompts.jsonl")]
    with tempfile.TemporaryDirectory() as out:
        args = trl.DistillationConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=batch,
            max_completion_length=tokens,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trl.DistillationTrainer(
            load_model(DATA / "student"),
            load_model(DATA / "teachers" / "new"),
            args=args,
            train_dataset=datasets.Dataset.from_list(prompts),
            processing_class=load_tokenizer(DATA / "student"),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        record(trainer)
        recording = getattr(trainer, _RECORDING)
        inside: list[float] = []
        for name in ("_take", "write"):
            setattr(recording, name, timed(getattr(recording, name), inside))
        ends: list[float] = []

        class Clock(transformers.TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                ends.append(time.perf_counter())

        trainer.add_callback(Clock())
        trainer.train()
        ends.append(time.perf_counter())
    taken = [first + second for first, second in zip(inside[::2], inside[1::2], strict=True)]
    return [after - before for before, after in itertools.pairwise(ends[1:])], taken[1:]


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """Note how long each call took."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            seconds.append(time.perf_counter() - start)

    return call


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, taken = measured(options.steps, options.batch, options.tokens)
    step, share = statistics.median(steps), statistics.median(taken) / statistics.median(steps)
    print(
        f"{options.batch} responses of at most {options.tokens} tokens: {step * 1000:.0f} ms a step, of which "
        f"recording {statistics.median(taken) * 1000:.2f} ms ({share:.2%}); medians of {len(steps)} steps"
    )


if __name__ == "__main__":
    main()
