"""A report of the made-up run of tests/plots, with texts that want to break a page."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from plots.synthetic_run import SyntheticRun, typed

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.selftest import SelfTest
from opd_diag.records.settings import Settings
from opd_diag.records.verdict import Verdict
from opd_diag.report import Report
from opd_diag.tables.assembled import Tables
from opd_diag.tables.baselines import OVERLAPS, baseline_rows
from opd_diag.tables.floors import with_floors
from opd_diag.tables.logged import LOGGED_COLUMNS
from opd_diag.tables.tails import tail_table
from opd_diag.verdicts.headline import Headline

NAN = float("nan")
HOSTILE = "<script>alert(1)</script> \"quoted\" 'and' \x00\x1b[31m \ud83d \u202etxet | `pipe` " + "w" * 300


HEADLINES = {
    "healthy": Headline(
        "pass",
        "The student moves towards the teacher, at equal states too",
        (
            "Overlap ratio at k = 16 rose by 0.40 [0.35, 0.45] on own states and by 0.32 [0.27, 0.37] at the start's.",
            "Accuracy rose from 0.11 to 0.63 on 32 prompts.",
            "Reverse KL fell on both state sets.",
        ),
    ),
    "collapse": Headline(
        "fail",
        "The student looks aligned only because it goes where agreeing is easy",
        (
            "Overlap ratio at k = 16 rose by 0.40 [0.35, 0.45] on own states but fell by 0.20 [0.15, 0.25] at the "
            "start's.",
            "Reverse KL at the start's states rose from 2.1 to 3.0 nats.",
            "Read the last checkpoint's responses below before anything else.",
        ),
    ),
}

VERDICTS = [
    Verdict(
        "alignment_on_policy", "Does agreement on own states progress?", "pass", 0.4, 0.35, 0.45, 0.0,
        "Overlap ratio at k = 16 went from 0.34 to 0.74, paired difference +0.40 [0.35, 0.45], 32 prompts, "
        "2,560 states.", "Nothing to do.", "arXiv 2604.13016, section 4.1",
    ),
    Verdict(
        "alignment_at_start", "Does it hold at the start's states?", "fail", -0.2, -0.25, -0.15, 0.0,
        "At equal states overlap ratio fell by 0.20 [0.15, 0.25], 32 prompts.",
        "Lower the learning rate; read the responses of the last checkpoint.", "opd-diag, design section 3",
    ),
    Verdict(
        "shared_mass", "Do shared tokens carry the probability?", "warn", 0.951, 0.931, 0.971, 0.9,
        "Student mass 0.95 [0.93, 0.97], teacher mass 0.93 [0.91, 0.95] at k = 16.", "Look at the curve.",
        "arXiv 2604.13016, Fig. 18 and \"others\" <b>",
    ),
    Verdict(
        "entropy_gap", "Does the entropy gap close?", "unknown", NAN, NAN, NAN, NAN,
        "One checkpoint cannot tell.", "Save more checkpoints.", "arXiv 2604.13016, Eq. 8",
    ),
]  # fmt: skip


FALSE_SUCCESS = Verdict(
    "false_success", "Can the curves on own states be believed?", "fail", 0.9, 0.7, 1.1, -0.02,
    "The progress on own states does not hold at the start's, and something gets worse: reverse KL 2.1 → 0.6 "
    "on own states, 2.1 → 3.0 at the start's; forward KL 1.2 → 4.0 on the teacher's states; 32 prompts.",
    "Do not believe the curves on own states.", "Ours; arXiv 2604.13016, section 4.1",
)  # fmt: skip


SELFTESTS = [
    SelfTest("self_teacher", "step 0", "pass", 2e-8, 1e-4, "As its own teacher its reverse KL is 2e-08 nats.", ""),
    SelfTest("shift", "teacher <b>", "pass", 0.0, 0.0, "It fits best unshifted: 0.52 nats, 6.1 at a shift by 1.", ""),
    SelfTest("logprobs", "step 0", "unknown", NAN, NAN, "No log-probabilities were recorded.", ""),
]
FAILED_SELFTEST = SelfTest(
    "shift",
    "step 100",
    "fail",
    1.0,
    0.0,
    "It fits best shifted by 1: 0.5 nats, 6.1 unshifted.",
    "Look at the template.",
)


def baselines_of(run: SyntheticRun) -> pd.DataFrame:
    """Chance, shuffled teacher and other precision on every state set."""
    levels = {"chance": 0.03, "shuffled teacher": 0.25, "other precision": 0.999}
    rows = [
        run.keys(i, states)
        | {"metric": metric, "k": 16, "baseline": baseline, "value": value, "n_states": 2560, "n_prompts": 32}
        | {"ci_low": value - 0.02 if baseline == "shuffled teacher" else NAN}
        | {"ci_high": value + 0.02 if baseline == "shuffled teacher" else NAN}
        for i in range(len(run.steps))
        for states in run.state_sets
        for metric in OVERLAPS
        for baseline, value in levels.items()
    ]
    return baseline_rows(pd.DataFrame(rows))


def strata_of(run: SyntheticRun) -> pd.DataFrame:
    """By correctness and by group, on own states of the last checkpoint."""
    levels = [("is_correct", "True"), ("is_correct", "False"), *(("group", f"g{i}") for i in range(8))]
    rows = [
        run.keys(len(run.steps) - 1, "on-policy")
        | {"by": by, "level": level, "metric": metric, "k": pd.NA, "aggregation": "token mean"}
        | {"value": 0.1 + 0.01 * i, "ci_low": 0.05, "ci_high": 0.3, "n_states": 400, "n_rollouts": 20 + i}
        | {"n_prompts": 9, "n_undefined": 0}
        for i, (by, level) in enumerate(levels)
        for metric in ("overlap_ratio", "reverse_kl")
    ]
    return typed(pd.DataFrame(rows))


def averages_of(run: SyntheticRun) -> pd.DataFrame:
    """Means of forward KL that do not agree."""
    rows = [
        run.keys(i, "on-policy")
        | {"metric": "forward_kl", "k": pd.NA, "average": average, "value": start + slope * i, "ci_low": 0.0}
        | {"ci_high": 9.0, "n_states": 2560, "n_rollouts": 64, "n_prompts": 32}
        for i in range(len(run.steps))
        for average, start, slope in (("token", 2.0, -0.25), ("rollout", 2.0, 0.1), ("prompt", 2.0, 0.125))
    ]
    return typed(pd.DataFrame(rows))


def logged_of(run: SyntheticRun) -> pd.DataFrame:
    """A trainer's log every five steps: two metrics of ours, one that looks as if it were, one that means nothing."""
    own = run.summary[run.summary["states"] == "on-policy"].groupby("metric")["value"].mean()
    steps = range(5, max(step or 0 for step in run.steps) + 1, 5)
    state, odd = "checkpoint-100/trainer_state.json", HOSTILE[:60].replace("\ud83d", "")  # no table holds surrogates
    known = [
        ("reverse_kl", own["reverse_kl"], "loss", state, "At the temperature of sampling."),
        ("response_length", own["response_length"], "completions/mean_length", state, ""),
        (odd, 0.5, odd, f"logs/{odd}", f"Not one of ours. {odd}"),
        ("grad_norm", 0.25, "grad_norm", state, ""),
    ]
    rows = [
        (step, metric, value * (1 + 0.2 * (i % 3 - 1)), key, source, note)
        for metric, value, key, source, note in known
        for i, step in enumerate(steps)
    ]
    return pd.DataFrame(rows, columns=LOGGED_COLUMNS).astype({"step": "Int64"})


def rollout(index: int, label: str, text: str, **options) -> Rollout:
    source = Provenance("sampled", label, "", None, 1.0, 1.0, 0)
    ids = tuple(range(1, 2 + min(60, len(text))))
    return Rollout(
        index, 0, f"gsm-{index}", None, (1, 2), (1, 2), ids, options.pop("stop_reason", "stop"), source,
        answer="7", prompt_text=f"<|user|>What is {index} + 4? Show your work.<|assistant|>", response_text=text,
        **options,
    )  # fmt: skip


def excerpts_of(first: str, last: str) -> dict[str, list[Rollout]]:
    before = [
        rollout(0, first, "3 + 4 = 8 8 8 8 8 8 8 8 8 8\n" * 4, stop_reason="length", is_correct=False),
        rollout(1, first, HOSTILE, is_correct=False),
        rollout(2, first, "שלום עולם, 7", is_correct=True),
        rollout(3, first, "x" * 100_000),
    ]
    after = [
        rollout(0, last, "3 + 4 = 7\n#### 7<|end|>", is_correct=True),
        rollout(1, last, "5<|end|>", is_correct=False),
        rollout(2, last, "", stop_reason="unknown"),
        rollout(3, last, "👩‍🔬 7", is_correct=True),
    ]
    theirs = [rollout(i, "teacher", f"{i} + 4 = {i + 4}<|end|>", is_correct=i == 3) for i in range(4)]
    return {first: before, last: after, "teacher": theirs}


PROVENANCE = {
    "opd_diag": "0.1.0",
    "versions": {"python": "3.11.9", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
    "settings": asdict(Settings(teacher="teacher", student="student", prompts="prompts.jsonl")),
    "command": "opd-diag report data/new --teacher data/new/teacher --out 'out <b>&'",
    "models": [
        {"label": "step 0", "step": 0, "role": "student", "path": "/runs/new/student", "base_model": None,
         "parameters": 1_204_224, "vocabulary": 512},
        {"label": "teacher", "step": None, "role": "teacher", "path": "/runs/new/" + "deep/" * 20 + "teacher",
         "base_model": None, "parameters": 4_204_224, "vocabulary": 512},
    ],
    "prompts": {"path": "prompts.jsonl", "n": 32, "sha256": "ab" * 32},
    "vocabulary": {"common": 512, "student": 512, "teacher": 520, "student_cut_mass_max": 0.0,
                   "teacher_cut_mass_max": 1.2e-6},
    "tokenizer": {"differences": ["teacher has 8 more added tokens", "chat templates differ"]},
    "device": "cpu",
    "dtype": "float32",
    "states": {"on-policy": {"n_states": 2560}},
    "step_zero": True,
}  # fmt: skip


FLOORS = {"overlap_ratio": 0.001, "reverse_kl": 0.2, "forward_kl": 0.001, "entropy_gap": 0.001, "student_entropy": 1.0}
"""So large that the last reverse KL, and the changes of it at the start's states and of the entropy, are within two."""


def with_precision_floors(report: Report) -> Report:
    """Give the report with a floor beside each metric, and where it comes from."""
    tables = report.tables
    marked = with_floors(tables.summary, FLOORS, tables.concentration)
    part = {"dtype": "float32", "other_dtype": "float64", "n_states": 512, "tokens": 3000, "note": None}
    models = [
        part | {"model": "step 0", "precision": {"reverse_kl": 0.1, "overlap_ratio": 0.001}, "batches": {}},
        part | {"model": "teacher", "precision": {"reverse_kl": 0.2}, "batches": {"reverse_kl": 3e-9}},
    ]
    return replace(
        report,
        tables=replace(tables, summary=marked),
        provenance=report.provenance | {"precision": models},
        verdicts=[replace(report.verdicts[0], within_floor=True), *report.verdicts[1:]],
    )


def made_up_report(out_dir: Path, kind: str = "healthy", **options) -> Report:
    run = SyntheticRun(kind, **({"state_sets": ("on-policy", "start", "teacher")} | options))
    tables = Tables(
        run.states, run.states.iloc[:0], run.summary, run.concentration, run.depth, run.differences, split=run.split,
        averages=averages_of(run), baselines=baselines_of(run), strata=strata_of(run), logged=logged_of(run),
        tails=tail_table(run.states),
    )  # fmt: skip
    found = [
        Checkpoint(label, step, Path(f"/runs/new/checkpoint-{step}"), "full")
        for label, step in zip(run.labels, run.steps, strict=True)
    ]
    broken = Checkpoint(
        "step 60", 60, Path("/runs/new/checkpoint-60"), "full", complete=False,
        blocker="model.safetensors is cut off after 1,024 of 9,216 bytes.", way_out="Copy it again or delete it.",
    )  # fmt: skip
    return Report(
        run='tiny <i>run</i> & "co"',
        created="2026-10-12T09:30:00+00:00",
        out_dir=out_dir,
        provenance=PROVENANCE,
        headline=HEADLINES[kind],
        verdicts=[FALSE_SUCCESS, *VERDICTS] if kind == "collapse" else VERDICTS,
        checkpoints=[*found, broken],
        tables=tables,
        excerpts=excerpts_of(run.labels[0], run.labels[-1]),
        notes=["step 60 is broken and was left out.", f"A label with {HOSTILE[:60]}"],
        selftests=SELFTESTS,
    )
