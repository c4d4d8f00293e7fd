"""What was measured and how, so that a report can be understood and repeated."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections import Counter
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.settings import NEAR_ON_POLICY, Settings
from opd_diag.replay import Replay, ReplayPlan
from opd_diag.replay.near import staleness_of
from opd_diag.replay.replay import ScoredSet
from opd_diag.replay.sampled import by_vllm
from opd_diag.replay.selftests.logprobs import BEFORE_TEMPERATURE
from opd_diag.replay.served import Served
from opd_diag.replay.work import sampled_here
from opd_diag.runs import read_manifest
from opd_diag.tokenization import tokenizer_differences


def provenance(plan: ReplayPlan, replayed: Replay) -> dict[str, Any]:
    """Give what ``report.json`` and the page say of models, prompts, settings and versions."""
    settings, scores = plan.settings, replayed.scored[0].scores.provenance
    students = {s.checkpoint.label: s for s in replayed.scored}
    models = [_model(s.checkpoint, "student", s.scores.provenance["student"]) for s in students.values()]
    return {
        "opd_diag": metadata.version("opd-diag"),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "transformers", "numpy", "pandas", "scipy")},
        },
        "command": _command(plan),
        "settings": asdict(settings),
        "models": [*models, _model(plan.teacher, "teacher", scores["teacher"])],
        "sampler": _sampler(plan),
        "prompts": _prompts(plan),
        "vocabulary": {
            "common": scores["common_vocabulary"],
            "student": scores["student"]["vocabulary"],
            "teacher": scores["teacher"]["vocabulary"],
            "student_cut_mass_max": max(float(s.scores.student_cut_mass.max()) for s in replayed.scored),
            "teacher_cut_mass_max": max(float(s.scores.teacher_cut_mass.max()) for s in replayed.scored),
            "stop_ids": scores["stop_ids"],
        },
        "tokenizer": _tokenizer(plan),
        "device": scores["device"],
        "dtype": scores["dtype"],
        "threads": scores["threads"],
        "sizes": dict(sorted(scores["sizes"].items())),  # as a file gives them back
        "n_tied": sum(s.scores.provenance["n_tied"] for s in replayed.scored),
        "precision": [asdict(floor) for floor in replayed.floors],
        "logprobs": [asdict(check) for check in replayed.logprobs],
        "step_zero": plan.step_zero_known,
        "recorded": [_recorded(s) for s in replayed.scored if s.states == NEAR_ON_POLICY],
    }


def _recorded(part: ScoredSet) -> dict[str, Any]:
    """Give how stale what a checkpoint scored of a trainer's record is, in updates, and how exact."""
    stale = staleness_of(part.rollouts, part.checkpoint.step or 0)
    return {
        "label": part.checkpoint.label,
        "n_rollouts": len(part.rollouts),
        "staleness": {"min": min(stale), "max": max(stale), "mean": sum(stale) / len(stale)},
        "exactness": dict(sorted(Counter(r.exactness for r in part.rollouts).items())),
    }


def _tokenizer(plan: ReplayPlan) -> dict[str, Any]:
    theirs = plan.teacher_tokenizer
    return {
        "source": plan.tokenizer.source,
        "teacher_source": None if theirs is None else theirs.source,
        "differences": None if theirs is None else tokenizer_differences(plan.tokenizer, theirs),
    }


def _model(checkpoint: Checkpoint, role: str, known: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": checkpoint.label,
        "step": checkpoint.step,
        "role": role,
        "path": str(checkpoint.path),
        "base_model": checkpoint.base_model,
        "parameters": known["parameters"],
        "vocabulary": known["vocabulary"],
        "key": known["key"],
    }


def _sampler(plan: ReplayPlan) -> dict[str, Any]:
    """Give who sampled the responses of which models; its version is the one that is installed now."""
    names = metadata.packages_distributions().get("vllm", []) if by_vllm(plan.settings) else ["opd-diag"]
    version = next((metadata.version(name) for name in names), None)
    return {"name": plan.settings.sampler, "version": version, "models": sampled_here(plan)}


def _prompts(plan: ReplayPlan) -> dict[str, Any]:
    path = plan.settings.prompts if not plan.recorded else None
    digest = None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"path": path, "n": len(plan.prompts), "sha256": digest}


def _command(plan: ReplayPlan) -> str:
    """Give the command that repeats the report, with every setting that is no default or that the manifest sets."""
    words, named = ["opd-diag", "report", str(plan.run_dir)], read_manifest(plan.run_dir).settings
    for f in fields(Settings):
        value, default = getattr(plan.settings, f.name), getattr(Settings(), f.name)
        if value is False or (value == default and f.name not in named):
            continue
        flag = "--" + f.name.replace("_", "-")
        if value is True:
            words.append(flag)
        else:
            words += [
                flag,
                ",".join(value)
                if isinstance(value, tuple)
                else json.dumps(value)
                if isinstance(value, dict)
                else str(value),
            ]
    return shlex.join(words)


def reader_notes(plan: ReplayPlan, replayed: Replay) -> list[str]:
    """Say what a reader of the page must know before believing a number."""
    notes = []
    if not plan.step_zero_known:
        first = replayed.checkpoints[0].label
        notes.append(
            f"Step 0 is unknown: 'start' is {first}, and changes before it are invisible. Name the initial student "
            "with --student."
        )
    if plan.served:
        notes.append(_of_server(plan.served))
    left_out = [*replayed.broken, *plan.blocked]
    notes += [f"Left out: {c.label}. {c.blocker} {c.way_out or ''}".strip() for c in left_out]
    cut = max(float(s.scores.student_cut_mass.max()) for s in replayed.scored)
    cut_teacher = max(float(s.scores.teacher_cut_mass.max()) for s in replayed.scored)
    if max(cut, cut_teacher) > 1e-6:
        notes.append(
            "The vocabularies differ in size; both distributions were cut to the common ids. At most "
            f"{cut:.2g} of the student's and {cut_teacher:.2g} of the teacher's mass was cut at a state."
        )
    theirs = next((s.rollouts for s in replayed.scored if s.states == "teacher"), ())
    if theirs and all(r.truncated for r in theirs):
        notes.append(
            f"All {len(theirs)} responses of the teacher were cut at the limit of {plan.settings.max_new_tokens}, so "
            "how it ends is not seen. Raise --max-new-tokens to let it finish."
        )
    for note in dict.fromkeys(check.note for check in replayed.heads if check.note):
        notes.append(f"Of {', '.join(check.model for check in replayed.heads if check.note == note)}: {note}")
    notes += [f"The precision floor of {f.model} is not known in full. {f.note}" for f in replayed.floors if f.note]
    notes += logprob_notes(replayed)
    if not all(r.provenance.plain for s in replayed.scored if s.states != NEAR_ON_POLICY for r in s.rollouts):
        notes.append(
            "Sampled reverse KL is undefined for responses that were not sampled at temperature 1 and top-p 1."
        )
    if plan.settings.student_temperature != 1.0:
        notes.append("Sampled reverse KL is undefined: the student was scored at another temperature than 1.")
    return notes


def _of_server(served: Served) -> str:
    """Say what a teacher behind a server, or in vLLM here, is, and what it cannot be asked."""
    unknown = " Its weights have no fingerprint; a few answers are held against those of the first time instead."
    part = f" Only its top {served.top} came back at each state; what the rest decides lies between bounds."
    return (
        f"The teacher is {served.named()}.{unknown if served.weights_key is None else ''}"
        f"{'' if served.whole else part} Its precision floor, a fitted temperature, gradient coherence and coverage of "
        "the teacher's states take a teacher that opd-diag loads itself."
    )


def logprob_notes(replayed: Replay) -> list[str]:
    """Say whose log-probabilities differ from the replayed ones, and where the self-test knows that as no fault."""
    known = {test.model for test in replayed.selftests if test.evidence.endswith(BEFORE_TEMPERATURE)}
    students = {s.checkpoint.label: s.rollouts for s in replayed.scored if s.states == "on-policy"}
    writers = {s.scores.provenance["teacher"]["name"]: s.rollouts for s in replayed.scored if s.states == "teacher"}
    writers |= students
    notes, raw = [], []
    for check in replayed.logprobs:
        if check.note and writers[check.model][0].provenance.weights in known:
            raw.append(check.model if check.model in students else "the teacher")
        elif check.note:
            notes.append(check.note)
    if raw:
        notes.append(
            f"The log-probabilities recorded with the responses of {', '.join(raw)} are those before temperature, as "
            "some engines give them. That is no fault, and no number here rests on them."
        )
    return notes
