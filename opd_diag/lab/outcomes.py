"""What came of the grown runs: accuracies measured on the held-out prompts, written down as a page."""

from importlib.metadata import version
from pathlib import Path

from opd_diag.lab import words
from opd_diag.lab.evaluation import accuracy_by_operation
from opd_diag.lab.models import load_model
from opd_diag.lab.tokenizer import load_tokenizer
from opd_diag.lab.world import Problem

#: The three runs, called after what their teacher has: a new skill, the same schooling, the other pattern.
RUNS = ("new", "same", "other")
#: How often each held-out prompt is asked at temperature 1.
ROUNDS = 4

PAGE = """\
# Three tiny distillation runs whose outcome is known

Real on-policy distillation runs of tiny language models, trained with TRL's `DistillationTrainer` (reverse KL over
the full vocabulary, temperature 1, every rollout sampled by the student itself). They ship with `opd-diag` so that
its tests, its demo and its notebooks have something true to look at without a download.

All three start from one student. It answers word problems with an equation (one in fifty with a story), adds and
subtracts well, and gets multiplication wrong, because nine in ten products in its training data are wrong.

> **equation**: As an equation: 16 - 12 = 4. So the answer is 4 shells.
>
> **story**: Well, Victor looks at the shells at the museum. Victor counts the shells, and then Victor counts the
> shells again. Finally Victor has 4 shells.

| run | its teacher | what to expect |
|---|---|---|
| `new` | thinks like the student, and multiplies | the student learns to multiply |
| `same` | same data as the student, other seed, bigger: knows nothing more | best alignment, nothing learned |
| `other` | multiplies, but tells stories only | starts far away: little overlap, little shared mass; a rough way over |

## What happened

Share of right answers on the {n_prompts} prompts of `prompts.jsonl`, which no model was trained on: sampled at
temperature 1 ({rounds} answers a prompt), and in brackets greedy (one answer a prompt).

{table}

## What lies here

- `student/`: step 0 of every run. `teachers/new`, `teachers/same`, `teachers/other`.
- `new/`, `same/`, `other/`: the checkpoints of a run, each with the trainer's own log (`trainer_state.json`, without
  its stopwatch), and `opd-diag.toml`, which says where student, teacher and prompts are, and that the trainer's loss is
  reverse KL (`beta`).
- `prompts.jsonl`: held-out prompts with the right answer and the operation as `group`.

Weights are bfloat16. Training ran in float32, from the student's and the teachers' rounded weights, so that step 0 is
exactly `student/`; the later checkpoints were rounded when they were written. In the supervised training before,
every target gives half a percent to what usually follows the previous word, so that models of one pipeline rank
improbable words alike, as big ones do (`opd_diag/lab/pretraining.py` says why). The tokenizer is byte-level with every
word of the world as one token. The models are of no use for anything but this.

## How they were grown

```
pip install 'opd-diag[lab]'
python -m opd_diag.lab.grow --out data --seed {seed}
```

on one core of a CPU with {versions}. The same command on the same machine with
the same packages gives the same files; elsewhere floating point differs in the last bits, sampled rollouts part ways,
and the numbers come out a little different.

Licence: Apache-2.0, as the whole project.
"""


def write_readme(out: Path, problems: list[Problem], save_at: tuple[int, ...], seed: int) -> None:
    """Measure every model below `out` and write ``README.md`` beside them.

    Parameters
    ----------
    out : Path
        Where `opd_diag.lab.grow.grow` wrote the runs.
    problems : list of Problem
        The held-out problems.
    save_at : tuple of int
        Steps of the kept checkpoints.
    seed : int
        The seed that the page names.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "trl"))
    page = PAGE.format(
        n_prompts=len(problems),
        rounds=ROUNDS,
        table=accuracy_table(out, problems, save_at),
        seed=seed,
        versions=versions,
    )
    (out / "README.md").write_text(page, encoding="utf-8")


def accuracy_table(out: Path, problems: list[Problem], save_at: tuple[int, ...]) -> str:
    """Return a Markdown table of accuracies: the student, the teachers, every checkpoint of every run."""
    models = {"student (step 0)": out / "student"}
    models |= {f"teacher {name}": out / "teachers" / name for name in RUNS}
    for name in RUNS:
        models |= {f"run {name}, step {step}": out / name / f"checkpoint-{step}" for step in save_at}
    header = ["model", *words.OPERATIONS]
    rows = [header, ["---"] * len(header)]
    rows += [[label, *_accuracies(folder, problems)] for label, folder in models.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _accuracies(folder: Path, problems: list[Problem]) -> list[str]:
    """Return one cell an operation: sampled accuracy, greedy accuracy in brackets."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    sampled = accuracy_by_operation(model, tokenizer, problems, rounds=ROUNDS)
    greedy = accuracy_by_operation(model, tokenizer, problems, is_greedy=True)
    return [f"{sampled[operation]:.2f} ({greedy[operation]:.2f})" for operation in words.OPERATIONS]
