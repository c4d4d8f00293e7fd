"""Compares a model in vLLM with the same model loaded here; ``check_vllm.py`` runs it in vLLM's environment.

Without an address the student is sampled by vLLM in a process of its own; else the teacher is asked there.

Its last argument is a file for what was found: a JSON list of rows ``{"what", "worst", "allowed", "of", "passed"}``,
where ``passed`` is null for what is told and not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opd_diag.inference import Model, load_model, sample_rollouts, score
from opd_diag.inference.served import score_served
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.vllm_sampling import InVLLM
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.prompt import load_prompts
from opd_diag.records.rollout import Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.records.scores import OF_WHOLE, TENSOR_FIELDS, Scores
from opd_diag.servers import ALL, Question, Server, answered, connect
from opd_diag.servers.vllm_beside import VLLMBeside
from opd_diag.tokenization import EncodedPrompt, Tokenizer, encode_prompts, load_tokenizer

TOLERANCE = 1e-3
"""Nats, and parts of a probability, by which vLLM's kernels and ours may differ in float32."""

TOP = 20
AT_ONCE = 16
SHARE = 0.8
"""Of the engine's own throughput that ours must reach."""
ROUNDS = 3
WHOLE_VALUES = 4_000_000
"""Log-probabilities that are asked for where the whole vocabulary is; above it prompts and responses are cut."""
PLACES = ("rollout", "position", "terminal", "sampled_ids")
IDS = ("student_topk_ids", "teacher_topk_ids", "curve_shared")
BY_IDS = ("student_at_teacher_topk_logprobs", "teacher_at_student_topk_logprobs")


@dataclass
class Found:
    """What was compared."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, what: str, worst: float, allowed: float, of: str) -> None:
        """Note the worst value, and whether it may be so."""
        row = {"what": what, "worst": float(worst), "allowed": f"≤ {allowed:g}", "of": of}
        self.rows.append(row | {"passed": bool(worst <= allowed)})


def main() -> None:
    """Compare, and write what was found."""
    parser = argparse.ArgumentParser()
    for name in ("teacher", "student", "prompts", "address"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--judge-speed", action="store_true")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    student, teacher = (
        load_model(Checkpoint(name, None, Path(path), "full"), device="cpu")
        for name, path in (("student", asked.student), ("teacher", asked.teacher))
    )
    tokenizer = load_tokenizer(asked.student)
    prompts = encode_prompts(load_prompts(asked.prompts)[:12], tokenizer)
    sampling = Sampling(rollouts_per_prompt=2, max_new_tokens=48)
    found = Found()
    if not asked.address:
        beside(found, student, Path(asked.student), tokenizer, prompts)
        asked.out.write_text(json.dumps(found.rows), encoding="utf-8")
        return
    rollouts = sample_rollouts(student, tokenizer, prompts, sampling=sampling)
    server = connect(asked.address, top=TOP, dtype="float32")
    top_k(found, student, teacher, server, rollouts)
    whole_vocabulary(found, student, teacher, server, rollouts)
    sampled(found, student, teacher, server, prompts[:4], rollouts[0])
    speed(found, server, rollouts, judge=asked.judge_speed)
    asked.out.write_text(json.dumps(found.rows), encoding="utf-8")


def served(teacher: Model, server: Server, top: int, at_once: int = AT_ONCE) -> ServedTeacher:
    """Give the teacher as scoring takes it."""
    return ServedTeacher("teacher", "key", server, top, stop_ids=teacher.stop_ids, at_once=at_once)


def top_k(found: Found, student: Model, teacher: Model, server: Server, rollouts: Sequence[Rollout]) -> None:
    """Hold the top K against local scores: what it decides, and whether the truth lies within the bounds."""
    local = score(student, teacher, rollouts)
    scores = score_served(student, served(teacher, server, TOP), rollouts)
    of = f"{len(scores)} states"
    exact = [name for name in TENSOR_FIELDS if name not in (*OF_WHOLE, "teacher_cut_mass")]
    compare(found, f"top {TOP}", scores, local, exact, of)
    outside = 0.0
    for name in OF_WHOLE:
        truth, ends = getattr(local, name).astype(np.float64)[:, None], scores.bounds[name]
        with np.errstate(invalid="ignore"):
            inside = (ends[..., 0] <= truth) & (truth <= ends[..., 1]) | np.isnan(truth)
            beyond = np.where(inside, 0.0, np.maximum(ends[..., 0] - truth, truth - ends[..., 1]))
        outside = max(outside, float(np.nan_to_num(beyond, nan=np.inf).max()))
    ends = f"{len(OF_WHOLE)} fields, {len(scores.bound_ks)} K, {of}"
    found.add(f"top {TOP}: truth beyond its bounds", outside, TOLERANCE, ends)


def whole_vocabulary(found: Found, student: Model, teacher: Model, server: Server, rollouts: Sequence[Rollout]) -> None:
    """Hold all fields against local scores."""
    few = list(rollouts)
    if sum(len(r.prompt_ids) + len(r.response_ids) for r in few) * teacher.vocabulary > WHOLE_VALUES:
        few = [
            replace(r, prompt_ids=r.prompt_ids[-4:], teacher_prompt_ids=r.teacher_prompt_ids[-4:],
                    response_ids=r.response_ids[:6], stop_reason="length", sampled_logprobs=None)
            for r in rollouts[:: len(rollouts) // 6]
        ]  # fmt: skip
    local = score(student, teacher, few)
    scores = score_served(student, served(teacher, server, ALL, at_once=2), few)
    compare(found, "whole vocabulary", scores, local, TENSOR_FIELDS, f"{len(scores)} states of {teacher.vocabulary}")


def compare(found: Found, title: str, scores: Scores, local: Scores, names: Sequence[str], of: str) -> None:
    """Compare fields; what hangs on which ids are the best, where they are the same ones."""
    width = scores.teacher_topk_ids.shape[1]
    tied = (scores.teacher_topk_ids != local.teacher_topk_ids[:, :width]).any(axis=1)
    worst, where = 0.0, ""
    for name in names:
        mine = np.asarray(getattr(scores, name))
        truth = np.asarray(getattr(local, name))
        if mine.ndim > 1:
            truth = truth[:, : mine.shape[1]]
        keep = ~tied if name in (*IDS, *BY_IDS) or name.startswith("curve_") else np.ones(len(mine), bool)
        apart = farthest(mine[keep], truth[keep], partly=bool(scores.bounds) and name == BY_IDS[1])
        if name in PLACES and apart:
            apart = np.inf
        worst, where = max((worst, where), (apart, name))
    found.add(f"{title}: farthest field, {where}", worst, TOLERANCE, f"{len(names)} fields, {of}")
    found.add(f"{title}: states whose best ids are tied otherwise", float(tied.mean()), 0.01, of)


def farthest(mine: np.ndarray, truth: np.ndarray, *, partly: bool) -> float:
    """Give the largest difference; infinity where one is NaN and the other not, unless only a part is known.

    It is infinity as well where nothing was known at all.
    """
    mine, truth = mine.astype(np.float64), truth.astype(np.float64)
    known = np.isfinite(mine) if partly else ~(np.isnan(mine) & np.isnan(truth))
    if not known.any():
        return np.inf
    with np.errstate(invalid="ignore"):
        apart = np.where(mine == truth, 0.0, np.abs(mine - truth))[known]
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def sampled(
    found: Found, student: Model, teacher: Model, server: Server, prompts: Sequence[EncodedPrompt], like: Rollout
) -> None:
    """Hold log-probabilities as sampled against the local teacher's at the same tokens."""
    rollouts, logprobs = [], []
    for prompt in prompts:
        drawn = server.sampled(prompt.ids, n=4, max_new_tokens=24, temperature=1.0, top_p=1.0, seed=prompt.index)
        for i, one in enumerate(drawn):
            rollouts.append(
                replace(like, prompt_index=prompt.index, rollout_index=i, prompt_ids=prompt.ids,
                        teacher_prompt_ids=prompt.ids, response_ids=one.ids, stop_reason=one.stop_reason,
                        sampled_logprobs=None)
            )  # fmt: skip
            logprobs.append(one.logprobs)
    local = score(student, teacher, rollouts)
    replayed = local.teacher_sampled_logprobs[~local.terminal]
    said = np.concatenate(logprobs)
    different = len({r.response_ids for r in rollouts})
    found.add("sampled: as drawn against replayed", farthest(said, replayed, partly=False), TOLERANCE,
              f"{len(said)} tokens of {len(rollouts)} responses, {different} different")  # fmt: skip


def beside(found: Found, student: Model, folder: Path, tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt]) -> None:
    """Let vLLM sample the student in a process of its own, as ``--sampler vllm`` does, and our own sampler too."""
    sampling, where = Sampling(rollouts_per_prompt=4, max_new_tokens=48), Checkpoint("student", 0, folder, "full")
    about = {"name": "student", "dtype": "float32", "drawable": tokenizer.size, "gpu_share": 0.5, "variables": {}}
    writer = InVLLM(
        lambda raw: VLLMBeside(str(folder), stop_ids=(*student.stop_ids, *tokenizer.stop_ids), raw=raw, **about),
        where,
        "key",
        as_teacher=False,
    )
    seconds, drawn = {}, {}
    ways = {
        "start": lambda: writer.sample(tokenizer, prompts[:1], sampling=Sampling(max_new_tokens=2)),
        "vLLM": lambda: writer.sample(tokenizer, prompts, sampling=sampling),
        "again": lambda: writer.sample(tokenizer, prompts, sampling=sampling),
        "ours": lambda: sample_rollouts(student, tokenizer, prompts, sampling=sampling),
        "top-p": lambda: writer.sample(tokenizer, prompts, sampling=replace(sampling, top_p=0.8)),
    }
    try:
        for way, run in ways.items():
            begin = time.perf_counter()
            drawn[way] = run()
            seconds[way] = time.perf_counter() - begin
    finally:
        writer.close()
    for way, title in (("vLLM", "sampled"), ("top-p", "sampled at top-p 0.8")):
        rollouts = drawn[way]
        scores = score(student, student, rollouts)
        said = np.concatenate([r.sampled_logprobs for r in rollouts])
        apart = farthest(said, scores.student_sampled_logprobs[~scores.terminal], partly=False)
        different = len({r.response_ids for r in rollouts})
        of = f"{len(said)} tokens of {len(rollouts)} responses, {different} different"
        found.add(f"{title}: as drawn against replayed", apart, TOLERANCE, of)
    same = np.mean([a.response_ids == b.response_ids for a, b in zip(drawn["vLLM"], drawn["again"], strict=True)])
    rates = {way: sum(len(r.response_ids) for r in drawn[way]) / seconds[way] for way in ("vLLM", "ours")}
    of = f"{rates['vLLM']:.0f} and {rates['ours']:.0f} tokens/s; beginning took {seconds['start']:.0f} s"
    told = {"allowed": "", "passed": None}
    found.rows.append({"what": "sampled again: share that is the same", "worst": float(same), "of": "", **told})
    ratio = rates["vLLM"] / rates["ours"]
    found.rows.append({"what": "speed: vLLM's sampling to ours", "worst": ratio, "of": of, **told})


def speed(found: Found, server: Server, rollouts: Sequence[Rollout], *, judge: bool) -> None:
    """Time the engine with the same requests and nothing around it, and ours, in turns."""
    questions = [Question((*r.prompt_ids, *r.response_ids), len(r.prompt_ids), TOP) for r in rollouts for _ in range(2)]
    engine = in_process(server, questions) if not server.about.url else over_http(server, questions)
    ours = lambda: list(answered(server, questions, at_once=AT_ONCE))  # noqa: E731
    took = {"engine": 0.0, "ours": 0.0}
    next(engine), ours()
    for _ in range(ROUNDS):
        for name, run in (("engine", lambda: next(engine)), ("ours", ours)):
            start = time.perf_counter()
            run()
            took[name] += time.perf_counter() - start
    tokens = ROUNDS * sum(len(q.ids) for q in questions)
    rates = {name: tokens / seconds for name, seconds in took.items()}
    of = f"{rates['ours']:.0f} of {rates['engine']:.0f} tokens/s, {len(questions)} requests, {ROUNDS} rounds in turn"
    ratio = took["engine"] / took["ours"]
    row = {"what": "speed: ours to the engine's own", "worst": ratio, "allowed": f"≥ {SHARE}", "of": of}
    found.rows.append(row | {"passed": ratio >= SHARE if judge else None})


def over_http(server: Server, questions: Sequence[Question]) -> Iterator[None]:
    """Send the requests, as many at once, and throw the answers away unread."""
    import requests

    bodies = [
        {"model": server.about.model, "prompt": q.sent, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": q.top,
         "return_token_ids": True}
        for q in questions
    ]  # fmt: skip
    local = threading.local()

    def send(body: dict[str, Any]) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        local.session.post(f"{server.about.url}/v1/completions", json=body, timeout=600).raise_for_status()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            yield [None for _ in pool.map(send, bodies)] and None


def in_process(server: Any, questions: Sequence[Question]) -> Iterator[None]:
    """Give the engine all prompts in one call, in its own thread."""
    engine = server._engine
    prompts = [engine.vllm.TokensPrompt(prompt_token_ids=list(q.sent)) for q in questions]
    one = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": TOP, "detokenize": False, "flat_logprobs": True}
    while True:
        params = [engine.vllm.SamplingParams(**one) for _ in prompts]
        engine._thread.submit(engine.llm.generate, prompts, params, use_tqdm=False).result()
        yield None


if __name__ == "__main__":
    sys.exit(main())
