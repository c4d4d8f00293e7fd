"""What a cold start is worth on the bundled pair that thinks apart: SFT on the tool's own data, then OPD, against OPD.

``python -m benchmarks.cold_start run --seeds 0-4`` grows the arms and adds a line a seed to ``cold_start.jsonl``;
``python -m benchmarks.cold_start table`` prints them. ``python -m benchmarks.cold_start truth`` asks the study about
the three bundled teachers with five sampling seeds. The budget of every arm is the same number of optimiser steps, 32
sequences each; what it costs to sample, once from the teacher or at every step from the student, is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit

DATA = Path(__file__).parents[1] / "data"
RESULTS = Path(__file__).with_suffix(".jsonl")
STUDENT, TEACHER = DATA / "student", DATA / "teachers" / "other"

BATCH = 32
SFT_STEPS, OPD_STEPS = 40, 80
LEARNING_RATE = 3e-4
"""Of all arms: that of the bundled runs."""
ROUNDS = 4
"""Responses to each held-out prompt when accuracy is measured, at temperature 1."""
TOKENS = 64
EFFECTS = ("cold_start_effect", "accuracy", "degeneration", "forgetting")
"""Verdicts on what the cold start alone did."""


def trained_on(data: Path, student: Path, steps: int, seed: int, out: Path) -> None:
    """Fine-tune a student with TRL on a file that the study wrote, and keep what comes of it."""
    import datasets
    import transformers
    import trl

    from opd_diag.lab.models import load_model, save_model
    from opd_diag.lab.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(student)
    with tempfile.TemporaryDirectory() as scratch:
        args = trl.SFTConfig(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=10,
            seed=seed,
            max_length=256,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trl.SFTTrainer(
            load_model(student),
            args=args,
            train_dataset=datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=scratch),
            processing_class=tokenizer,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        save_model(trainer.model, tokenizer, out)


def one_seed(seed: int) -> dict[str, Any]:
    """Grow all arms from one seed and measure them."""
    from opd_diag.lab.distillation import Distillation, distil
    from opd_diag.lab.prompts import as_messages, draw_training_questions
    from opd_diag.records.prompt import load_prompts
    from opd_diag.studies import cold_start

    began = time.perf_counter()
    held_out = frozenset(prompt.content[0]["content"] for prompt in load_prompts(DATA / "prompts.jsonl"))
    steps = SFT_STEPS + OPD_STEPS
    questions = draw_training_questions(BATCH * (SFT_STEPS + steps), 1000 + seed, held_out)
    of_sft, of_opd = questions[: BATCH * SFT_STEPS], questions[BATCH * SFT_STEPS :]
    row: dict[str, Any] = {"seed": seed, "accuracy": {"student": accuracies(STUDENT, seed)}, "start": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = folder / "train.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": as_messages(q)}) + "\n" for q in of_sft), encoding="utf-8")
        options: dict[str, Any] = {"max_prompts": 8, "max_new_tokens": TOKENS, "seed": seed}
        options |= {"temperature": 0.7, "top_p": 0.95, "responses": len(of_sft)}
        data = cold_start(STUDENT, TEACHER, prompts, out=folder / "data", **options).tables["sft_responses"]
        row["data"] = {"responses": len(data), "kept": int(data["kept"].sum())}
        file, started = folder / "data" / "sft" / "trl.jsonl", time.perf_counter()
        trained_on(file, STUDENT, SFT_STEPS, seed, folder / "sft")
        row["sft_seconds"] = round(time.perf_counter() - started, 1)
        trained_on(file, STUDENT, steps, seed, folder / "sft_alone")
        row["accuracy"] |= {arm: accuracies(folder / arm, seed) for arm in ("sft", "sft_alone")}
        growing = Distillation(learning_rate=LEARNING_RATE, batch_size=BATCH, seed=seed)
        for arm, first, save_at in (
            ("sft_then_opd", folder / "sft", (20, 40, OPD_STEPS)),
            ("opd_alone", STUDENT, (20, 40, OPD_STEPS, steps)),
        ):
            distil(first, TEACHER, of_opd, replace(growing, save_at=save_at), folder / arm)
            grown = {str(at): accuracies(folder / arm / f"checkpoint-{at}", seed) for at in save_at}
            row["accuracy"][arm] = grown[str(save_at[-1])]
            row.setdefault("path", {})[arm] = {at: mean(of) for at, of in grown.items()}
        study = cold_start(
            STUDENT,
            TEACHER,
            DATA / "prompts.jsonl",
            after=folder / "sft",
            out=folder / "effect",
            max_prompts=96,
            max_new_tokens=TOKENS,
            seed=seed,
        )
        row["start"] = at_start(study.tables["summary"])
        row["verdicts"] = {v.name: v.status for v in study.verdicts if v.name in EFFECTS}
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def accuracies(model: Path, seed: int) -> dict[str, float]:
    """Give the share of right answers to the held-out prompts by operation, sampled at temperature 1."""
    from opd_diag.lab.evaluation import sample_responses
    from opd_diag.lab.models import load_model
    from opd_diag.lab.tokenizer import load_tokenizer
    from opd_diag.lab.world import read_answer
    from opd_diag.records.prompt import load_prompts

    prompts = load_prompts(DATA / "prompts.jsonl") * ROUNDS
    loaded, tokenizer = load_model(model).eval(), load_tokenizer(model)
    asked = [prompt.content[0]["content"] for prompt in prompts]
    responses = sample_responses(loaded, tokenizer, asked, max_new_tokens=TOKENS, seed=seed)
    hits: dict[str, list[bool]] = {}
    for prompt, response in zip(prompts, responses, strict=True):
        hits.setdefault(str(prompt.group), []).append(str(read_answer(response)) == prompt.answer)
    return {operation: round(statistics.fmean(of), 4) for operation, of in sorted(hits.items())}


def mean(by_operation: dict[str, float]) -> float:
    """Give the mean over operations, of which there are as many prompts each."""
    return round(statistics.fmean(by_operation.values()), 4)


def at_start(summary: Any) -> dict[str, dict[str, float]]:
    """Give what distillation begins with, at own states, without a cold start and with one."""
    wanted = ("student_overlap_mass", "teacher_overlap_mass", "overlap_ratio", "reverse_kl", "entropy_gap")
    rows = summary[(summary["states"] == "on-policy") & summary["metric"].isin(wanted)]
    found: dict[str, dict[str, float]] = {}
    for _, of in rows.iterrows():
        found.setdefault(of["label"], {})[of["metric"]] = round(float(of["value"]), 4)
    return found


def interval(values: Sequence[float]) -> str:
    """Give a mean over seeds with its 95 % t interval."""
    middle, n = statistics.fmean(values), len(values)
    if n < 2:
        return f"{middle:+.3f}"
    half = stdtrit(n - 1, 0.975) * statistics.stdev(values) / math.sqrt(n)
    return f"{middle:+.3f} [{middle - half:+.3f}, {middle + half:+.3f}]"


def score(row: dict[str, Any], arm: str, operation: str) -> float:
    """Give the accuracy of an arm at an operation, or over ``all``."""
    found = row["accuracy"][arm]
    return mean(found) if operation == "all" else found[operation]


def table() -> None:
    """Print what the file holds."""
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    arms = ("student", "sft", "sft_alone", "sft_then_opd", "opd_alone")
    print(f"{len(rows)} seeds, accuracy on held-out prompts, mean over seeds; SFT {SFT_STEPS}, OPD {OPD_STEPS} steps")
    operations = list(rows[0]["accuracy"]["student"])
    print(f"{'':14}{''.join(f'{name:>10}' for name in (*operations, 'all'))}")
    for arm in arms:
        means = [statistics.fmean(row["accuracy"][arm][o] for row in rows) for o in operations]
        print(f"{arm:14}{''.join(f'{value:10.3f}' for value in (*means, statistics.fmean(means)))}")
    for other in ("opd_alone", "sft_alone"):
        print(f"sft_then_opd less {other}, paired by seed:")
        for name in (*operations, "all"):
            gains = [score(row, "sft_then_opd", name) - score(row, other, name) for row in rows]
            print(f"  {name:10}{interval(gains)}")
    print("accuracy on the way, all operations, by OPD step:")
    for arm in ("opd_alone", "sft_then_opd"):
        on_the_way = {at: statistics.fmean(row["path"][arm][at] for row in rows) for at in rows[0]["path"][arm]}
        print(f"  {arm:14}{', '.join(f'{at}: {value:.3f}' for at, value in on_the_way.items())}")
    print("where OPD begins, own states:")
    for metric in rows[0]["start"]["step 0"]:
        first, second = (statistics.fmean(row["start"][label][metric] for row in rows) for label in rows[0]["start"])
        change = interval([row["start"]["cold start"][metric] - row["start"]["step 0"][metric] for row in rows])
        print(f"  {metric:22}{first:.3f} → {second:.3f}  {change}")
    print("what the study says of the cold start alone:")
    for name in EFFECTS:
        counts = Counter(row["verdicts"].get(name, "not asked") for row in rows)
        print(f"  {name:22}{', '.join(f'{status} {n}' for status, n in counts.most_common())}")


def truth() -> None:
    """Ask the study about the bundled teachers, with five sampling seeds."""
    from opd_diag.studies import cold_start

    for teacher in ("new", "same", "other"):
        for seed in range(1, 6):
            with tempfile.TemporaryDirectory() as out:
                options: dict[str, Any] = {"max_new_tokens": TOKENS, "seed": seed}
                asked = STUDENT, DATA / "teachers" / teacher, DATA / "prompts.jsonl"
                study = cold_start(*asked, out=out, **options)
            first = study.verdicts[0]
            print(
                f"{teacher:6} seed {seed}: {first.status:8} {first.value:.3f} [{first.ci_low:.3f}, {first.ci_high:.3f}]"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "truth"))
    parser.add_argument("--seeds", default="0-4", help="first-last")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "table":
        table()
    elif given.what == "truth":
        truth()
    else:
        first, last = map(int, given.seeds.split("-"))
        lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
        done = {json.loads(line)["seed"] for line in lines}
        for seed in (s for s in range(first, last + 1) if s not in done):
            row = one_seed(seed)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
