"""Whether prompts that `opd-diag prompts` chooses teach more than random ones: real tiny distillations, same budget.

``python -m benchmarks.prompts run --results FILE`` draws a pool of questions, scores it, chooses by each quantity and
at random, distils the bundled student from the teacher `new` on each choice, and writes one line a distillation; it
can be stopped and started again. ``... table`` makes the tables of the README here from `MEASURED`, or from the file
named.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy

from opd_diag import stats
from opd_diag.lab.distillation import Distillation, distil
from opd_diag.lab.evaluation import sample_responses
from opd_diag.lab.models import load_model
from opd_diag.lab.prompts import as_messages
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.lab.world import Problem, draw_problem, read_answer
from opd_diag.records.prompt import load_prompts
from opd_diag.records.settings import Settings
from opd_diag.replay.measured import measured
from opd_diag.replay.planning import plan_models
from opd_diag.replay.store import open_store
from opd_diag.stats.rounding import with_interval
from opd_diag.tables.prompts import prompt_table, prompt_values
from opd_diag.tables.selection import Choice, choose

DATA = Path(__file__).parents[1] / "data"
STUDENT, TEACHER = DATA / "student", DATA / "teachers" / "new"
MEASURED = Path(__file__).with_name("prompts.jsonl")
"""What the tables of the README here are made from."""
POOLS: dict[str, str | None] = {"mixed": None, "multiply": "multiply"}
"""Operation that the questions of a pool ask for; None: each of three about as often."""
N_POOL, N_CHOSEN, ROLLOUTS, TOKENS = 640, 128, 4, 48
SAVE_AT = (40, 80)
ROUNDS = 4
RANDOM, WHOLE = "random", "whole pool"
CHOSEN = {
    "student_overlap_mass": ("student_overlap_mass", 0.2),
    "reverse_kl_of_response": ("reverse_kl_of_response", 0.2),
    "teacher_lead": ("teacher_lead", 0.2),
    "teacher_lead, half drawn": ("teacher_lead", 0.5),
}
"""Quantity that ranks, and share that is drawn from the rest, by arm."""
ARMS = (RANDOM, *CHOSEN, WHOLE)


def draw_pool(seed: int, operation: str | None) -> list[Problem]:
    """Draw different questions, none of them held out."""
    held_out = {prompt.content[0]["content"] for prompt in load_prompts(DATA / "prompts.jsonl")}  # type: ignore[index]
    rng = random.Random(f"pool {seed} {operation}")
    problems: dict[str, Problem] = {}
    while len(problems) < N_POOL:
        problem = draw_problem(rng, operation)
        if problem.question not in held_out:
            problems[problem.question] = problem
    return list(problems.values())


def choices(problems: list[Problem], seed: int, folder: Path) -> dict[str, list[int]]:
    """Give the numbers of the chosen questions by arm."""
    lines = [
        {"id": str(i), "prompt": as_messages(p.question), "answer": str(p.answer), "group": p.operation}
        for i, p in enumerate(problems)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = Settings(
        student=str(STUDENT),
        teacher=str(TEACHER),
        prompts=str(folder / "pool.jsonl"),
        states=("on-policy", "teacher"),
        rollouts_per_prompt=ROLLOUTS,
        max_prompts=N_POOL,
        max_new_tokens=TOKENS,
        seed=seed,
    )
    plan = plan_models(settings)
    with open_store(folder / "replay", plan.run_dir) as store:
        _, tables = measured(plan, store)
    table = prompt_table(prompt_values(tables.rollouts))
    made = {RANDOM: sorted(random.Random(f"choice {seed}").sample(range(N_POOL), N_CHOSEN))}
    for arm, (by, share) in CHOSEN.items():
        chosen = choose(table, Choice(N_CHOSEN, by, out_of_distribution=share, seed=seed))
        made[arm] = chosen.loc[chosen["is_chosen"], "prompt_index"].tolist()
    return made | {WHOLE: list(range(N_POOL))}


def evaluated(folder: Path, problems: list[Problem], seed: int) -> dict[str, float]:
    """Give accuracy by operation at temperature 1, and the unigram entropy of the responses, in nats."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    asked = problems * ROUNDS
    responses = sample_responses(model, tokenizer, [p.question for p in asked], seed=seed)
    hits: dict[str, list[bool]] = defaultdict(list)
    for problem, response in zip(asked, responses, strict=True):
        hits[problem.operation].append(read_answer(response) == problem.answer)
    found = {operation: sum(of) / len(of) for operation, of in sorted(hits.items())}
    tokens = Counter(i for response in responses for i in tokenizer(response)["input_ids"])
    return found | {"mean": sum(found.values()) / len(found), "unigram_entropy": float(entropy([*tokens.values()]))}


def held_out_problems() -> list[Problem]:
    """Give the bundled held-out prompts; only question, operation and answer are read of them."""
    records = [json.loads(line) for line in (DATA / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    return [_Held(r["group"], r["prompt"][0]["content"], int(r["answer"])) for r in records]  # type: ignore[misc]


class _Held:
    def __init__(self, operation: str, question: str, answer: int) -> None:
        self.operation, self.question, self.answer = operation, question, answer


def lines_of(seed: int, pool: str, done: set[tuple[int, str, str]]) -> Iterator[dict[str, Any]]:
    """Distil on every choice that is not done yet."""
    arms = [arm for arm in ARMS if (seed, pool, arm) not in done]
    if not arms:
        return
    problems, held_out = draw_pool(seed, POOLS[pool]), held_out_problems()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chosen = choices(problems, seed, folder)
        for arm in arms:
            began = time.perf_counter()
            questions = [problems[i].question for i in chosen[arm]]
            of = Counter(problems[i].operation for i in chosen[arm])
            out = folder / arm.replace(" ", "-").replace(",", "")
            distil(STUDENT, TEACHER, questions, Distillation(save_at=SAVE_AT, seed=seed), out)
            at = {step: evaluated(out / f"checkpoint-{step}", held_out, seed) for step in SAVE_AT}
            seconds = round(time.perf_counter() - began, 1)
            yield {"seed": seed, "pool": pool, "arm": arm, "chosen": dict(of), "at": at, "seconds": seconds}


def run(results: Path, seeds: list[int], pools: list[str]) -> None:
    """Go on with a file of results."""
    torch.set_num_threads(1)
    done = {(line["seed"], line["pool"], line["arm"]) for line in read(results)}
    for seed in seeds:
        for pool in pools:
            for line in lines_of(seed, pool, done):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """Read what was measured; nothing of a file that is not there."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def print_tables(results: Path) -> None:
    """Print, by pool and step, means over seeds, and differences from random, paired by seed, with 95 % intervals."""
    lines = read(results)
    for pool in POOLS:
        for step in map(str, SAVE_AT):
            of = {(line["arm"], line["seed"]): line for line in lines if line["pool"] == pool}
            arms = [arm for arm in ARMS if any(arm == which for which, _ in of)]
            seeds = sorted({seed for _, seed in of if all((arm, seed) in of for arm in arms)})
            if not seeds:
                continue
            names = list(of[RANDOM, seeds[0]]["at"][step])
            print(f"\n{pool}, step {step}, {len(seeds)} seeds\n")
            print("| prompts | add / subtract / multiply in them | " + " | ".join(names) + " |")
            print("|---|---|" + "---|" * len(names))
            for arm in arms:
                counts = [
                    np.mean([of[arm, seed]["chosen"].get(name, 0) for seed in seeds])
                    for name in ("add", "subtract", "multiply")
                ]
                cells = [_cell(of, arm, seeds, step, name) for name in names]
                print(f"| {arm} | {' / '.join(f'{c:.0f}' for c in counts)} | " + " | ".join(cells) + " |")


def _cell(of: dict[tuple[str, int], dict[str, Any]], arm: str, seeds: list[int], step: str, name: str) -> str:
    values, base = (np.array([of[which, seed]["at"][step][name] for seed in seeds]) for which in (arm, RANDOM))
    if arm == RANDOM:
        return f"{values.mean():.3f}"
    found = stats.clustered_mean(values - base, range(len(seeds)))
    return f"{values.mean():.3f} ({with_interval(found.value, found.ci_low, found.ci_high, signed=True)})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--results", type=Path, default=MEASURED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pools", nargs="+", choices=[*POOLS], default=[*POOLS])
    options = parser.parse_args()
    if options.what == "run":
        run(options.results, options.seeds, options.pools)
    else:
        print_tables(options.results)


if __name__ == "__main__":
    main()
